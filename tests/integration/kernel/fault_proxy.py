"""A proxy between a pool and PostgreSQL that cuts the line at the worst moment: a message was delivered, its answer never returns."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from urllib.parse import parse_qs, quote, urlsplit

from kernel.config import Dsn


class FaultProxy:
    """Listens on a UNIX socket in `directory` and forwards to the server that a DSN names.

    Set `cut_after` or `cut_before` to bytes of a client's message: the connection that carries them is cut after forwarding it and seeing
    the server's answer, or before forwarding it. `silence` cuts every connection and refuses new ones.
    """

    def __init__(self, upstream: Dsn, directory: Path) -> None:
        self._parts = urlsplit(upstream.reveal())
        query = parse_qs(self._parts.query)
        self._socket = Path(query["host"][0]) / f".s.PGSQL.{query['port'][0]}"
        self._directory = directory
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self.cut_after: bytes | None = None
        self.cut_before: bytes | None = None
        self.silent = False
        self.cuts = 0

    @property
    def dsn(self) -> Dsn:
        credentials = self._parts.netloc.rpartition("@")[0]
        return Dsn(f"postgresql://{credentials}@{self._parts.path}?host={quote(str(self._directory), safe='')}&port=5432")

    async def __aenter__(self) -> FaultProxy:
        self._server = await asyncio.start_unix_server(self._serve, self._directory / ".s.PGSQL.5432")
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        self.cut_all()

    def cut_all(self) -> None:
        """Cut every connection now."""
        for writer in list(self._writers):
            writer.transport.abort()

    def silence(self) -> None:
        """Cut every connection and refuse new ones until `speak`."""
        self.silent = True
        self.cut_all()

    def speak(self) -> None:
        """Accept connections again."""
        self.silent = False

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.silent:
            writer.transport.abort()
            return
        server_reader, server_writer = await asyncio.open_unix_connection(self._socket)
        self._writers |= {writer, server_writer}
        answering = asyncio.create_task(self._pump(server_reader, writer))
        try:
            with contextlib.suppress(ConnectionError):
                await self._forward(reader, server_reader, server_writer, answering)
        finally:
            answering.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await answering
            for end in (writer, server_writer):
                self._writers.discard(end)
                end.transport.abort()

    async def _forward(
        self,
        reader: asyncio.StreamReader,
        server_reader: asyncio.StreamReader,
        server_writer: asyncio.StreamWriter,
        answering: asyncio.Task[None],
    ) -> None:
        while data := await reader.read(65_536):
            if self.cut_before is not None and self.cut_before in data:
                self.cut_before = None
                self.cuts += 1
                return
            cut = self.cut_after is not None and self.cut_after in data
            if cut:
                self.cut_after = None
                self.cuts += 1
                answering.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await answering
            server_writer.write(data)
            await server_writer.drain()
            if cut:
                # The server has answered, so what it was told to do is done; the client will never know.
                await server_reader.read(1)
                return

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65_536):
                writer.write(data)
                await writer.drain()
        writer.transport.abort()
