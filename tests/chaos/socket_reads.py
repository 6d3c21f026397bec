"""Reads of every service over one WebSocket through the edge, as a web page makes them."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Callable, Mapping
from typing import Any

import aiohttp

from tests.e2e.edge.client import SUBPROTOCOL


class SocketError(Exception):
    """The socket was refused, was lost, or a call on it had no answer; the text says which."""


class SocketReads:
    """Opens a socket for each round of reads.

    Args:
        address: `host:port` of the edge.
        tls: trusts its authority.
        bearer: returns the header with a valid token; may block.
        reads: requests as JSON, by method.
    """

    def __init__(
        self, address: str, tls: ssl.SSLContext, bearer: Callable[[], tuple[str, str]], reads: Mapping[str, Mapping[str, Any]]
    ) -> None:
        self._url, self._tls, self._bearer, self._reads = f"https://{address}/v1/ws", tls, bearer, reads
        self._session: aiohttp.ClientSession | None = None

    async def round(self, timeout_seconds: float) -> None:
        """Make all reads side by side.

        Raises:
            SocketError: one of them was not answered in time.
        """
        if self._session is None:
            self._session = aiohttp.ClientSession()
        header = await asyncio.to_thread(self._bearer)
        try:
            async with (
                asyncio.timeout(timeout_seconds),
                self._session.ws_connect(self._url, protocols=(SUBPROTOCOL,), headers=dict([header]), ssl=self._tls) as socket,
            ):
                for method, request in self._reads.items():
                    await socket.send_json({"id": method.rpartition("/")[2], "method": method, "request": request})
                await self._answers(socket)
        except (aiohttp.ClientError, OSError) as error:
            raise SocketError(f"{type(error).__name__}: {error}") from error
        except TimeoutError:
            raise SocketError(f"not answered in {timeout_seconds:g} s") from None

    async def close(self) -> None:
        """Forget the connections."""
        if self._session is not None:
            await self._session.close()

    async def _answers(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        ended = 0
        while ended < len(self._reads):
            frame = await socket.receive()
            if frame.type is not aiohttp.WSMsgType.TEXT:
                raise SocketError(f"closed with {socket.close_code}")
            found = json.loads(frame.data)
            if "end" in found:
                status = found["end"]["status"]
                if status["code"]:
                    raise SocketError(f"{found['id']}: {status['code']} {status['message']}"[:160])
                ended += 1
