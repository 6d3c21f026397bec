"""A road to the edge with weather: answers arrive late, or the connection breaks. TLS passes through untouched."""

from __future__ import annotations

import asyncio
import contextlib


class Relay:
    """Listens on 127.0.0.1 and hands bytes on to an address. An async context manager.

    Args:
        target: `host:port`.
        answer_delay_seconds: what comes back is held for so long; what goes there is not.
        life_seconds: after which a connection is reset; none where unset.
    """

    def __init__(self, target: str, *, answer_delay_seconds: float = 0.0, life_seconds: float | None = None) -> None:
        self._host, _, port = target.rpartition(":")
        self._port = int(port)
        self._answer_delay_seconds = answer_delay_seconds
        self._life_seconds = life_seconds
        self._connections: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Relay:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    @property
    def address(self) -> str:
        """Where it listens, `host:port`."""
        host, port = self._server.sockets[0].getsockname()
        return f"{host}:{port}"

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            with contextlib.suppress(TimeoutError, ConnectionError, asyncio.CancelledError):
                async with asyncio.timeout(self._life_seconds):
                    await self._carry(reader, writer)
        finally:
            writer.transport.abort()
            self._connections.discard(task)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection(self._host, self._port)
        ways = (_pump(reader, far_writer, 0.0), _pump(far_reader, writer, self._answer_delay_seconds))
        tasks = [asyncio.create_task(way) for way in ways]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            far_writer.transport.abort()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay_seconds: float) -> None:
    loop = asyncio.get_running_loop()
    while data := await reader.read(65_536):
        if delay_seconds:
            loop.call_later(delay_seconds, writer.write, data)
        else:
            writer.write(data)
            await writer.drain()
