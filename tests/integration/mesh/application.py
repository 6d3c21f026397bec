"""An application behind a sidecar: believes what the kernel believes, and tells the caller what it was told."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc.aio

from kernel.errors import UnauthenticatedError
from kernel.identity import CLAIMS_HEADER, PEER_HEADER, SECRET_HEADER, Authenticator
from mesh.local.operator import NAMESPACE, TRUST_DOMAIN

Headers = list[tuple[str, Any]]


def _set() -> asyncio.Event:
    event = asyncio.Event()
    event.set()
    return event


@dataclass
class Application:
    """What it was asked, and what it does.

    `refuses` says for which paths it honestly answers UNAVAILABLE; `goes_on`, where it is clear, keeps calls waiting.
    """

    authenticator: Authenticator
    refuses: Callable[[str], bool] = lambda path: False
    goes_on: asyncio.Event = field(default_factory=_set)
    calls: list[tuple[str, Headers]] = field(default_factory=list)

    def paths(self) -> list[str]:
        """Return the paths that were executed, in order."""
        return [path for path, _ in self.calls]

    async def answer(self, path: str, request: bytes, context: Any) -> bytes:
        """Serve one call: say who called."""
        headers = list(context.invocation_metadata())
        self.calls.append((path, headers))
        await self.goes_on.wait()
        try:
            values = [[str(value) for key, value in headers if key == name] for name in (SECRET_HEADER, PEER_HEADER, CLAIMS_HEADER)]
            identity = self.authenticator.authenticate(*(",".join(value) for value in values))
        except UnauthenticatedError as error:
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, error.message)
        if self.refuses(path):
            await context.abort(grpc.StatusCode.UNAVAILABLE, "not now")
        user = identity.user.principal if identity.user is not None else None
        return json.dumps({"peer": identity.peer, "user": user}).encode()


class _Everything(grpc.GenericRpcHandler):
    def __init__(self, application: Application) -> None:
        self._application = application

    def service(self, details: Any) -> Any:
        async def unary(request: bytes, context: Any) -> bytes:
            return await self._application.answer(details.method, request, context)

        return grpc.unary_unary_rpc_method_handler(unary)


@asynccontextmanager
async def serving(socket: Path, secret: str) -> AsyncIterator[Application]:
    """Serve an application on its UNIX socket."""
    application = Application(Authenticator(secret, trust_domain=TRUST_DOMAIN, namespace=NAMESPACE, now=time.time))
    # As ours: its sidecar pings it every second, which gRPC's own bound takes for an attack.
    server = grpc.aio.server(options=(("grpc.http2.max_ping_strikes", 0),))
    server.add_generic_rpc_handlers((_Everything(application),))
    server.add_insecure_port(f"unix:{socket}")
    await server.start()
    try:
        yield application
    finally:
        await server.stop(None)
