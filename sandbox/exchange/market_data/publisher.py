"""Numbers, packs, paces and sends what the book events say; keeps the packets for whoever lost them."""

import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from kernel.itch.codec import encode
from kernel.itch.messages import SystemEvent
from kernel.itch.moldudp64 import HEADER_BYTES, PAYLOAD_BYTES_MAX, Request, encode_end_of_session, encode_heartbeat, encode_packet
from kernel.ports import Clock
from sandbox.exchange.engine.state import VenueState
from sandbox.exchange.market_data.image import MarketImage
from sandbox.exchange.market_data.line_faults import LineFaultBook
from sandbox.exchange.market_data.pace import Pace
from sandbox.exchange.market_data.session_names import SessionName, SessionNames
from sandbox.exchange.market_data.store import PacketStore
from sandbox.exchange.tap import BookEvent

LINES = ("A", "B")
HEARTBEAT_SECONDS = 0.5
# A burst of this many packets goes out at once: less than the smallest usual socket buffer of a receiver holds.
BURST_PACKETS = 32
# Beyond this many messages unsent the session is given up for a new one, which begins with the book as it is then.
PENDING_MESSAGES_MAX = 2_000_000
SESSIONS_KEPT = 2
# The end of a session is said so often, in case a line loses it.
_END_PACKETS = 3
_DAY_NS = 86_400 * 1_000_000_000
_START_OF_MESSAGES, _START_OF_SYSTEM_HOURS, _END_OF_MESSAGES = "O", "S", "C"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class FeedSettings:
    """What a feed is set up with.

    Attributes:
        packets_per_second: the pace, per line; what waits fills the packets better.
        store_bytes_max: how much of a session can be asked for again.
    """

    packets_per_second: int = 2_000
    store_bytes_max: int = 32 * 1024 * 1024


@dataclass(slots=True)
class FeedCounts:
    """What happened since the start; all only grow."""

    messages: int = 0
    packets: int = 0
    heartbeats: int = 0
    requests: int = 0
    snapshots: int = 0
    overruns: int = 0


class SnapshotSource(NamedTuple):
    """A snapshot as of now: the messages, made as they are taken, and where the feed goes on from."""

    session: str
    next_sequence: int
    messages: Iterator[bytes]


@dataclass(slots=True)
class _Session:
    """The MoldUDP64 session that is being sent."""

    name: SessionName
    store: PacketStore
    next_sequence: int = 1
    pending: deque[bytes] = field(default_factory=deque)


class ItchPublisher:
    """Implements `BookPublisher`. It never raises into the venue: a defect ends the feed, which then is silent, and is logged.

    Args:
        names: names sessions.
        transmit: sends a packet on a line (`A`, `B`), without blocking and without raising.
        wait: called while messages wait for their turn: `pump` is due soon.
    """

    def __init__(
        self,
        settings: FeedSettings,
        clock: Clock,
        names: SessionNames,
        transmit: Callable[[str, bytes], None],
        wait: Callable[[], None] = lambda: None,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._names = names
        self._transmit = transmit
        self._wait = wait
        self.faults = LineFaultBook(LINES)
        self.counts = FeedCounts()
        self.failure: Exception | None = None
        self._image: MarketImage | None = None
        self._session: _Session | None = None
        self._stores: deque[PacketStore] = deque(maxlen=SESSIONS_KEPT)
        self._pace = Pace(settings.packets_per_second, BURST_PACKETS, clock.monotonic())
        self._sent_at = clock.monotonic()

    @property
    def session(self) -> str:
        """The current session's name; empty before `open`."""
        return self._session.name.text if self._session else ""

    @property
    def next_sequence(self) -> int:
        """The number that the next message will have once all that waits was sent; 0 before `open`."""
        return self._session.next_sequence + len(self._session.pending) if self._session else 0

    def open(self, state: VenueState) -> None:
        """Begin a session with the durable state: everything that is published from now on builds on it.

        Raises:
            FeedRulesError: the state cannot be published.
            SessionFileError: no name can be given to the session.
        """
        self._image = MarketImage(state)
        self._begin()
        self.pump()

    def publish(self, book_events: Sequence[BookEvent]) -> None:
        """Take the durable book events of one batch, in order. Before `open` they are part of the state that it will see."""
        if self._session is not None and self.failure is None:
            self._guard(lambda: self._tell(book_events))

    def _tell(self, book_events: Sequence[BookEvent]) -> None:
        assert self._image is not None
        assert self._session is not None
        pending, midnight_ns = self._session.pending, self._session.name.midnight_ns
        for event in book_events:
            pending += self._image.apply(event, midnight_ns)
        if len(pending) > PENDING_MESSAGES_MAX:
            self.counts.overruns += 1
            pending.clear()
            self._end()
            self._begin()
        self.pump()

    def pulse(self) -> None:
        """Let time pass: send what waits, a heartbeat if nothing was sent for 0.5 s, and another session once its day is over.

        While packets wait, the day's messages go on: their timestamps are then beyond 24 hours.
        """
        if self._session is None or self.failure is not None:
            return
        self._guard(self._pulse)

    def _pulse(self) -> None:
        assert self._session is not None
        if self._clock.now_ns() >= self._session.name.midnight_ns + _DAY_NS and not self._session.pending:
            self._end()
            self._begin()
        self.pump()
        if self._clock.monotonic() - self._sent_at >= HEARTBEAT_SECONDS:
            self.counts.heartbeats += 1
            self._send(encode_heartbeat(self.session, self._session.next_sequence), is_data=False)

    def pump(self) -> None:
        """Send as many packets as the pace allows."""
        session = self._session
        if session is None or not session.pending or self.failure is not None:
            return
        now = self._clock.monotonic()
        while session.pending and self._pace.take(now):
            self._send_next(session)
        if session.pending:
            self._wait()

    def _send_next(self, session: _Session) -> None:
        pending = session.pending
        run = [pending.popleft()]
        size = HEADER_BYTES + 2 + len(run[0])
        while pending and size + 2 + len(pending[0]) <= PAYLOAD_BYTES_MAX:
            size += 2 + len(pending[0])
            run.append(pending.popleft())
        sequence = session.next_sequence
        session.next_sequence += len(run)
        self.counts.messages += len(run)
        self.counts.packets += 1
        if self.faults.loses():
            return
        packet = encode_packet(session.name.text, sequence, run)
        session.store.add(sequence, packet)
        self._send(packet, is_data=True)

    def _send(self, packet: bytes, *, is_data: bool) -> None:
        self._sent_at = self._clock.monotonic()
        for line in LINES:
            for bent in self.faults.bend(line, packet, is_data=is_data):
                self._transmit(line, bent)

    def _begin(self) -> None:
        assert self._image is not None
        now_ns = self._clock.now_ns()
        name = self._names.next(now_ns)
        store = PacketStore(name.text, self._settings.store_bytes_max)
        self._stores.append(store)
        self._session = _Session(name, store)
        pending = self._session.pending
        pending.append(self._system_event(_START_OF_MESSAGES))
        pending += self._image.frame(now_ns, name.midnight_ns)
        pending += (self._image.add_message(*entry, now_ns, name.midnight_ns) for entry in self._image.booked())
        pending.append(self._system_event(_START_OF_SYSTEM_HOURS))
        _log.info("market data session", extra={"fields": {"session": name.text, "orders": len(self._image.orders)}})

    def _system_event(self, code: str) -> bytes:
        assert self._session is not None
        return encode(SystemEvent(0, 0, max(self._clock.now_ns() - self._session.name.midnight_ns, 0), code))

    def _end(self) -> None:
        """End the session: everything that waits leaves at once, then the end, several times."""
        assert self._session is not None
        self._session.pending.append(self._system_event(_END_OF_MESSAGES))
        while self._session.pending:
            self._send_next(self._session)
        for _ in range(_END_PACKETS):
            self._send(encode_end_of_session(self.session, self._session.next_sequence), is_data=False)

    def close(self) -> None:
        """Say that nothing follows."""
        if self._session is not None and self.failure is None:
            self._guard(self._end)
            self._session = None

    def answer(self, request: Request) -> Iterator[bytes]:
        """Yield the packets that answer a re-request; none for another session than the latest two, or for what is forgotten."""
        self.counts.requests += 1
        for store in self._stores:
            if store.session == request.session:
                yield from store.answer(request)

    def snapshot(self) -> SnapshotSource | None:
        """Return the published state, or None if there is no feed."""
        if self._session is None or self._image is None or self.failure is not None:
            return None
        self.counts.snapshots += 1
        image, now_ns, midnight_ns = self._image, self._clock.now_ns(), self._session.name.midnight_ns
        frame, booked = image.frame(now_ns, midnight_ns), image.booked()

        def messages() -> Iterator[bytes]:
            yield from frame
            for reference, order in booked:
                yield image.add_message(reference, order, now_ns, midnight_ns)

        return SnapshotSource(self.session, self.next_sequence, messages())

    def _guard(self, action: Callable[[], None]) -> None:
        try:
            action()
        except Exception as error:  # noqa: BLE001 (whatever is wrong with the feed, the venue goes on; its silence is what receivers see)
            self.failure = error
            _log.critical("market data stops", exc_info=error)
