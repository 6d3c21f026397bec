"""The venue's sockets: FIX acceptor on TCP, control on a UNIX socket, market data (`market_data/`). One loop, one thread.

Whatever the sockets bring in one turn of the loop becomes one batch: one journal write, one fdatasync, one socket write per member.
"""

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import cast

from kernel.fix.codec import MessageReader
from kernel.fix.message import Garbled, Message
from sandbox.exchange.control import LINE_BYTES_MAX, Control
from sandbox.exchange.exchange import Exchange
from sandbox.exchange.journal import JournalError
from sandbox.exchange.market_data.channels import BoundPorts, MarketDataServer
from sandbox.exchange.members import Member
from sandbox.exchange.pacer import FlowPacer

CONNECTIONS_MAX = 64
LOGON_TIMEOUT_SECONDS = 10.0
# How long a venue that stops waits for its members' Logouts.
LOGOUT_SECONDS_MAX = 2.0
# A member that lets more than this pile up is dropped; its reports wait in the journal. Resends wait for the link instead.
WRITE_BUFFER_BYTES_MAX = 64 * 1024 * 1024
PULSE_SECONDS = 0.02

_log = logging.getLogger(__name__)


class FixConnection(asyncio.Protocol):
    """One connection at the FIX door: a stranger until its Logon, then a member's link."""

    def __init__(self, server: "ExchangeServer") -> None:
        self._server = server
        self._reader = MessageReader()
        self._member: Member | None = None
        self._transport: asyncio.Transport | None = None
        self._logon_timeout: asyncio.TimerHandle | None = None
        self.is_behind = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports have the methods of asyncio.Transport without being one.
        self._transport = cast("asyncio.Transport", transport)
        if len(self._server.fix_connections) >= CONNECTIONS_MAX:
            self.abort("too many connections")
            return
        self._server.fix_connections.add(self)
        self._logon_timeout = asyncio.get_running_loop().call_later(LOGON_TIMEOUT_SECONDS, self.abort, "no logon in time")

    def data_received(self, data: bytes) -> None:
        if self._transport is None:
            return
        items = self._reader.feed(data)
        if items:
            self._server.guard(lambda: self._take(items))

    def _take(self, items: list[Message | Garbled]) -> None:
        exchange = self._server.exchange
        if self._member is not None:
            if self._member.link is self:
                exchange.receive(self._member, items)
        else:
            first = items[0]
            self._member = exchange.logon(self, first, items[1:]) if isinstance(first, Message) else None
            if self._member is None:
                self.abort("the first message is not a valid logon")
                return
            if self._logon_timeout is not None:
                self._logon_timeout.cancel()
        self._server.commit_soon()

    def connection_lost(self, exc: Exception | None) -> None:
        self._server.fix_connections.discard(self)
        self._transport = None
        if self._logon_timeout is not None:
            self._logon_timeout.cancel()
        member = self._member
        if member is not None:
            self._server.guard(lambda: self._server.exchange.lost(member, self))
            self._server.commit_soon()

    def pause_writing(self) -> None:
        self.is_behind = True

    def resume_writing(self) -> None:
        self.is_behind = False
        self._server.resend_soon()

    def pause_reading(self) -> None:
        """Read nothing more."""
        if self._transport is not None:
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Read on."""
        if self._transport is not None:
            self._transport.resume_reading()

    @property
    def write_buffer_bytes(self) -> int:
        """How much is queued."""
        return 0 if self._transport is None else self._transport.get_write_buffer_size()

    def write(self, data: bytes) -> None:
        """Queue bytes; a peer that has not read what was queued before is dropped."""
        if self._transport is None:
            return
        if self.write_buffer_bytes > WRITE_BUFFER_BYTES_MAX:
            self.abort("the member does not read")
        else:
            self._transport.write(data)

    def close(self, reason: str) -> None:
        """Close after what was queued."""
        if self._transport is not None:
            _log.info("fix connection closed", extra={"fields": {"member": self._name, "reason": reason}})
            self._transport.close()

    def abort(self, reason: str) -> None:
        """Close at once."""
        if self._transport is not None:
            _log.info("fix connection dropped", extra={"fields": {"member": self._name, "reason": reason}})
            self._transport.abort()

    @property
    def _name(self) -> str:
        return self._member.comp_id if self._member is not None else ""


class ControlConnection(asyncio.Protocol):
    """The operator: a line in, a line out."""

    def __init__(self, server: "ExchangeServer") -> None:
        self._server = server
        self._buffer = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        assert self._transport is not None
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        if max(map(len, (*lines, self._buffer))) > LINE_BYTES_MAX:
            self._transport.write(b'{"ok":false,"error":"the line is too long"}\n')
            self._transport.close()
            return
        answers: list[str] = []
        self._server.guard(lambda: answers.extend(self._server.control.handle(line) for line in lines))
        self._server.guard(self._server.exchange.commit)
        self._transport.write("".join(f"{answer}\n" for answer in answers).encode())


class ExchangeServer:
    """Serves one exchange until `stopped` is set. After a failure `failure` has the reason, and nothing more is sent."""

    def __init__(self, exchange: Exchange, flow_rate: float, market_data: MarketDataServer | None = None) -> None:
        self.exchange = exchange
        self.market_data = market_data
        self.pacer = FlowPacer(exchange.venue, flow_rate, exchange.clock.monotonic())
        self.control = Control(exchange, self.pacer, market_data)
        self.fix_connections: set[FixConnection] = set()
        self.stopped = asyncio.Event()
        self.failure: BaseException | None = None
        self.market_data_ports: BoundPorts | None = None
        self._servers: list[asyncio.AbstractServer] = []
        self._commit_scheduled = False
        self._resend_scheduled = False
        self._empty = asyncio.Event()
        self._pulse_handle: asyncio.TimerHandle | None = None

    async def start(self, host: str, fix_port: int, control_path: Path | None) -> int:
        """Bind the sockets (port 0: any) and return the FIX port.

        Raises:
            OSError: an address is taken or not allowed.
            FeedRulesError, SessionFileError: market data cannot be published.
        """
        loop = asyncio.get_running_loop()
        fix = await loop.create_server(lambda: FixConnection(self), host, fix_port)
        self._servers.append(fix)
        if control_path is not None:
            listener = _private_listener(control_path)
            self._servers.append(await loop.create_unix_server(lambda: ControlConnection(self), sock=listener))
        if self.market_data is not None:
            self.market_data_ports = await self.market_data.start()
            # No turn of the loop between these two: the session begins with what is durable, and is told all that comes after.
            self.guard(self.exchange.commit)
            self.market_data.publisher.open(self.exchange.state)
        self._pulse()
        port: int = fix.sockets[0].getsockname()[1]
        return port

    def guard(self, action: Callable[[], object]) -> None:
        """Run something that changes the venue. Whatever it raises ends the venue without another word: the journal is right, memory
        may not be."""
        if self.failure is not None:
            return
        try:
            action()
        except BaseException as error:
            self.failure = error
            self.stopped.set()
            if not isinstance(error, JournalError):
                raise

    def commit_soon(self) -> None:
        """Commit once everything that this turn of the loop brings was read."""
        if not self._commit_scheduled:
            self._commit_scheduled = True
            asyncio.get_running_loop().call_soon(self._commit)

    def _commit(self) -> None:
        self._commit_scheduled = False
        self.guard(self.exchange.commit)
        self.resend_soon()
        if self.exchange.is_empty:
            self._empty.set()

    def resend_soon(self) -> None:
        """Send the next part of each resend that is due, in a turn of the loop of its own: others are served in between."""
        if not self._resend_scheduled and self.failure is None and self.exchange.resend_is_due:
            self._resend_scheduled = True
            asyncio.get_running_loop().call_soon(self._resend)

    def _resend(self) -> None:
        self._resend_scheduled = False
        self.guard(self.exchange.resend)
        self.resend_soon()

    def _pulse(self) -> None:
        """Let time pass, every 20 ms: timers and flow, and market data's heartbeats."""
        loop = asyncio.get_running_loop()
        self._pulse_handle = loop.call_later(PULSE_SECONDS, self._pulse)
        now = self.exchange.clock.monotonic()
        self.guard(lambda: self.pacer.run(now))
        self.guard(self.exchange.tick)
        self.guard(self.exchange.commit)
        if self.market_data is not None and self.failure is None:
            self.market_data.publisher.pulse()

    async def close(self) -> None:
        """Stop listening, log members out, wait a little for their answers, commit, close the journal."""
        if self._pulse_handle is not None:
            self._pulse_handle.cancel()
        for server in self._servers:
            server.close()
        self.guard(self.exchange.log_out)
        if self.failure is None and not self.exchange.is_empty:
            self._empty.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._empty.wait(), LOGOUT_SECONDS_MAX)
        if self.failure is None:
            self.guard(self.exchange.stop)
        else:
            for connection in list(self.fix_connections):
                connection.abort("the venue failed")
            self.exchange.journal.close()
        if self.market_data is not None:
            self.market_data.close()
        # One turn of the loop, so that the transports flush the Logouts.
        await asyncio.sleep(0)


def _private_listener(path: Path) -> socket.socket:
    """Bind a UNIX socket that only its owner may connect to; a stale one from before is replaced."""
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    mask = os.umask(0o177)
    try:
        listener.bind(str(path))
    finally:
        os.umask(mask)
    listener.setblocking(False)
    return listener
