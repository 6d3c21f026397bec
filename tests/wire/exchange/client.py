"""A FIX member on a real socket: sends what it is told, keeps what it reads, waits with a deadline."""

import asyncio
import socket
from collections.abc import Callable
from datetime import UTC, datetime
from types import TracebackType
from typing import Self

from kernel.fix import tags
from kernel.fix.codec import MessageReader, encode_body, frame
from kernel.fix.fieldtypes import format_timestamp
from kernel.fix.message import Body, Message

DEADLINE_SECONDS = 10.0


class FixClient:
    """One connection of one member."""

    def __init__(self, name: str, venue: str = "XSIM") -> None:
        self.name = name
        self.venue = venue
        self.next_out = 1
        self.received: list[Message] = []
        self._messages = MessageReader()
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def connect(self, port: int, *, receive_buffer_bytes: int = 0) -> Self:
        """Open the connection; with a small receive buffer the venue feels soon that nobody reads."""
        connection = socket.socket()
        connection.setblocking(False)
        if receive_buffer_bytes:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
        await asyncio.get_running_loop().sock_connect(connection, ("127.0.0.1", port))
        self._reader, self._writer = await asyncio.open_connection(sock=connection, limit=4096)
        self._messages = MessageReader()
        return self

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()

    async def close(self) -> None:
        """Close without a Logout."""
        if self._writer is not None:
            self._writer.transport.abort()
            self._writer = None

    def frame(self, msg_type: str, body: Body) -> bytes:
        """Encode a message with the next number."""
        self.next_out += 1
        return frame(
            tags.BEGIN_STRING, msg_type, sequence=self.next_out - 1, sender=self.name, target=self.venue,
            sending_time=format_timestamp(datetime.now(UTC)), body=encode_body(body),
        )  # fmt: skip

    async def send(self, *data: bytes) -> None:
        """Write bytes."""
        assert self._writer is not None
        self._writer.write(b"".join(data))
        await self._writer.drain()

    async def logon(self, password: str, *, heartbeat: int = 0) -> None:
        """Log on and wait for the answer."""
        body = [(98, "0"), (108, str(heartbeat)), (tags.USERNAME, self.name.lower()), (tags.PASSWORD, password)]
        await self.send(self.frame(tags.LOGON, body))
        await self.wait(lambda message: message.msg_type == tags.LOGON)

    def order(self, client_order_id: str, side: str = "1", quantity: str = "100", price: str = "100", **more: str) -> bytes:
        """Encode a NewOrderSingle for AAPL."""
        fields = {1: "ACC-1", 11: client_order_id, 21: "1", 38: quantity, 40: "2", 44: price, 54: side, 55: "AAPL", 59: "0"}
        fields[60] = format_timestamp(datetime.now(UTC))
        fields |= {int(name[1:]): text for name, text in more.items()}
        return self.frame(tags.NEW_ORDER_SINGLE, [(tag, text) for tag, text in fields.items() if text])

    async def wait(self, wanted: Callable[[Message], bool], count: int = 1) -> list[Message]:
        """Read until `count` messages that are wanted have come since the start; return them."""

        async def read() -> list[Message]:
            assert self._reader is not None
            while len(found := [message for message in self.received if wanted(message)]) < count:
                data = await self._reader.read(1 << 16)
                if not data:
                    raise ConnectionResetError("the venue closed the connection")
                self.received += [item for item in self._messages.feed(data) if isinstance(item, Message)]
            return found

        return await asyncio.wait_for(read(), DEADLINE_SECONDS)

    async def wait_closed(self) -> None:
        """Read until the venue closes."""
        try:
            while True:
                await self.wait(lambda _: True, len(self.received) + 1)
        except ConnectionError:
            return


def is_report(exec_type: str) -> Callable[[Message], bool]:
    """A filter for execution reports of one ExecType."""
    return lambda message: message.msg_type == tags.EXECUTION_REPORT and message.get(tags.EXEC_TYPE) == exec_type
