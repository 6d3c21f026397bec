"""The feed's sockets: two lines and a re-request server on UDP, snapshots on TCP. Same loop and thread as the venue's."""

import asyncio
import logging
import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, cast

from kernel.itch import soupbintcp
from kernel.itch.errors import MalformedError
from kernel.itch.glimpse import encode_end
from kernel.itch.moldudp64 import decode_request
from kernel.itch.soupbintcp import LoginAccepted, LoginRefusal, PacketReader, PacketType
from kernel.ports import Clock
from sandbox.exchange.market_data.pace import Pace
from sandbox.exchange.market_data.publisher import LINES, FeedSettings, ItchPublisher, SnapshotSource
from sandbox.exchange.market_data.session_names import SessionNames

SNAPSHOT_CONNECTIONS_MAX = 16
SNAPSHOT_SECONDS_MAX = 30.0
LOGIN_SECONDS_MAX = 5.0
# So many messages of a snapshot are made in one turn of the loop; the venue has the turns between.
SNAPSHOT_RUN_MESSAGES = 500
# Answers to re-requests, over all receivers.
ANSWERS_PER_SECOND = 2_000
ANSWERS_BURST = 256
_PUMP_SECONDS = 0.002

_log = logging.getLogger(__name__)

Address = tuple[str, int]


@dataclass(frozen=True, slots=True)
class ChannelSettings:
    """Where the feed goes and where it can be asked.

    Attributes:
        destinations: by line, `A` and `B`.
        address: what the servers listen on and the lines send from.
        request_port, snapshot_port: 0 takes a free one.
    """

    destinations: Mapping[str, Sequence[Address]]
    address: str = "127.0.0.1"
    request_port: int = 0
    snapshot_port: int = 0
    feed: FeedSettings = field(default_factory=FeedSettings)


class BoundPorts(NamedTuple):
    """The ports that were taken."""

    request: int
    snapshot: int


class UdpLines:
    """Sends packets, and never waits: what the kernel does not take is counted and lost, as on any network."""

    def __init__(self, settings: ChannelSettings) -> None:
        self._destinations = {line: tuple(settings.destinations.get(line, ())) for line in LINES}
        self._sockets: dict[str, socket.socket] = {}
        self._address = settings.address
        self.errors = dict.fromkeys(LINES, 0)

    def open(self) -> None:
        """Make one socket per line.

        Raises:
            OSError: the address cannot be sent from.
        """
        for line in LINES:
            udp = self._sockets[line] = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            udp.setblocking(False)
            udp.bind((self._address, 0))

    def send(self, line: str, packet: bytes) -> None:
        """Send a packet to every destination of a line."""
        udp = self._sockets.get(line)
        if udp is None:
            return
        for destination in self._destinations[line]:
            try:
                udp.sendto(packet, destination)
            except OSError:
                self.errors[line] += 1

    def close(self) -> None:
        """Let go of the sockets."""
        while self._sockets:
            self._sockets.popitem()[1].close()


class RequestServer(asyncio.DatagramProtocol):
    """Answers MoldUDP64 request packets, within a pace; what is not one is counted and ignored."""

    def __init__(self, publisher: ItchPublisher, clock: Clock) -> None:
        self._publisher = publisher
        self._clock = clock
        self._pace = Pace(ANSWERS_PER_SECOND, ANSWERS_BURST, clock.monotonic())
        self._transport: asyncio.DatagramTransport | None = None
        self.malformed = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: Any) -> None:
        assert self._transport is not None
        try:
            request = decode_request(data)
        except MalformedError:
            self.malformed += 1
            return
        for packet in self._publisher.answer(request):
            if not self._pace.take(self._clock.monotonic()):
                return
            self._transport.sendto(packet, addr)

    def error_received(self, exc: Exception) -> None:
        """A receiver is gone; it will ask again if it is not."""


class SnapshotConnection(asyncio.Protocol):
    """One login, one snapshot, the end. Names and passwords are not looked at: the feed is public on this machine."""

    def __init__(self, server: "MarketDataServer") -> None:
        self._server = server
        self._reader = PacketReader()
        self._transport: asyncio.Transport | None = None
        self._messages: Iterator[bytes] | None = None
        self._is_behind = False
        self._timeout: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        if len(self._server.snapshot_connections) >= SNAPSHOT_CONNECTIONS_MAX:
            self._transport.abort()
            return
        self._server.snapshot_connections.add(self)
        self._close_after(LOGIN_SECONDS_MAX)

    def _close_after(self, seconds: float) -> None:
        if self._timeout is not None:
            self._timeout.cancel()
        self._timeout = asyncio.get_running_loop().call_later(seconds, self.abort)

    def data_received(self, data: bytes) -> None:
        try:
            for packet_type, payload in self._reader.feed(data):
                if packet_type is PacketType.LOGIN_REQUEST and self._messages is None:
                    self._login(soupbintcp.decode_login(payload).session)
                elif packet_type is not PacketType.CLIENT_HEARTBEAT and packet_type is not PacketType.DEBUG:
                    self.abort()
        except MalformedError as error:
            _log.info("snapshot connection dropped", extra={"fields": {"reason": str(error)}})
            self.abort()

    def _login(self, wanted: str) -> None:
        source = self._server.publisher.snapshot()
        if self._transport is None:
            return
        if source is None or wanted not in ("", source.session):
            self._transport.write(soupbintcp.encode_refusal(LoginRefusal.SESSION_NOT_AVAILABLE))
            self._transport.close()
            return
        self._close_after(SNAPSHOT_SECONDS_MAX)
        self._transport.write(soupbintcp.encode_accepted(LoginAccepted(source.session, 1)))
        self._messages = _packets(source)
        self._write_on()

    def _write_on(self) -> None:
        """Write a run of messages; the next one in another turn of the loop, once there is room."""
        if self._transport is None or self._messages is None or self._is_behind:
            return
        run = b"".join(islice(self._messages, SNAPSHOT_RUN_MESSAGES))
        if run:
            self._transport.write(run)
            asyncio.get_running_loop().call_soon(self._write_on)
        else:
            self._transport.close()

    def pause_writing(self) -> None:
        self._is_behind = True

    def resume_writing(self) -> None:
        self._is_behind = False
        self._write_on()

    def abort(self) -> None:
        """Close at once."""
        if self._transport is not None:
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._server.snapshot_connections.discard(self)
        if self._timeout is not None:
            self._timeout.cancel()


def _packets(source: SnapshotSource) -> Iterator[bytes]:
    for message in source.messages:
        yield soupbintcp.encode(PacketType.SEQUENCED_DATA, message)
    yield soupbintcp.encode(PacketType.SEQUENCED_DATA, encode_end(source.next_sequence))
    yield soupbintcp.encode(PacketType.END_OF_SESSION)


class MarketDataServer:
    """The feed with its sockets.

    Args:
        session_file: remembers the last MoldUDP64 session; in the journal's directory, which one venue has at a time.
    """

    def __init__(self, settings: ChannelSettings, clock: Clock, session_file: Path) -> None:
        self._settings = settings
        self._clock = clock
        self.lines = UdpLines(settings)
        self.publisher = ItchPublisher(settings.feed, clock, SessionNames(session_file), self.lines.send, self._pump_soon)
        self.requests = RequestServer(self.publisher, clock)
        self.snapshot_connections: set[SnapshotConnection] = set()
        self._pump_handle: asyncio.TimerHandle | None = None
        self._request_transport: asyncio.DatagramTransport | None = None
        self._snapshots: asyncio.Server | None = None

    async def start(self) -> BoundPorts:
        """Bind the sockets. Nothing is sent before `publisher.open`.

        Raises:
            OSError: an address is taken or not allowed.
        """
        loop = asyncio.get_running_loop()
        address, settings = self._settings.address, self._settings
        transport, _ = await loop.create_datagram_endpoint(lambda: self.requests, (address, settings.request_port))
        self._request_transport = transport
        self._snapshots = await loop.create_server(lambda: SnapshotConnection(self), address, settings.snapshot_port)
        self.lines.open()
        return BoundPorts(transport.get_extra_info("sockname")[1], self._snapshots.sockets[0].getsockname()[1])

    def _pump_soon(self) -> None:
        if self._pump_handle is None:
            self._pump_handle = asyncio.get_running_loop().call_later(_PUMP_SECONDS, self._pump)

    def _pump(self) -> None:
        self._pump_handle = None
        self.publisher.pump()

    def close(self) -> None:
        """End the session and let go of the sockets."""
        if self._pump_handle is not None:
            self._pump_handle.cancel()
        self.publisher.close()
        self.lines.close()
        if self._request_transport is not None:
            self._request_transport.close()
        if self._snapshots is not None:
            self._snapshots.close()
        for connection in list(self.snapshot_connections):
            connection.abort()

    def status(self) -> dict[str, Any]:
        """Return session and counters as JSON values."""
        counts = self.publisher.counts
        return {
            "session": self.publisher.session,
            "next_sequence": self.publisher.next_sequence,
            "failed": self.publisher.failure is not None,
            "send_errors": dict(self.lines.errors),
            "malformed_requests": self.requests.malformed,
            **{name: getattr(counts, name) for name in counts.__slots__},
        }
