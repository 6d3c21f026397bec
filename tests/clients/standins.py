"""The edge and the issuer, played badly on purpose where a relay of bytes cannot: between one call and the next."""

from __future__ import annotations

import base64
import datetime
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import grpc.aio
from aiohttp import web

from kernel.status import DETAILS_KEY
from mesh.local.ca import Authority

_ADDRESS = "127.0.0.1"
_CERTIFICATE_SECONDS = 3_600
_ATTEMPT_SECONDS = 30.0
_AWAY_REQUESTS = 2


@dataclass(frozen=True)
class Credentials:
    """What a stand-in for the edge shows to clients, and trusts the edge by.

    Attributes:
        trusted: PEM of all authorities that a client must know: the edge's, and the stand-ins'.
    """

    trusted: Path
    key: bytes
    certificate: bytes

    @classmethod
    def make(cls, edge_authority: Path, folder: Path) -> Credentials:
        """Make an authority for stand-ins beside the edge's."""
        own = Authority.open(folder / "authority", trust_domain="standins.trademesh.local", now=lambda: datetime.datetime.now(datetime.UTC))
        served = own.issue_server([_ADDRESS], seconds=_CERTIFICATE_SECONDS)
        trusted = folder / "trusted.pem"
        trusted.write_text(edge_authority.read_text() + own.root_pem)
        return cls(trusted, served.key.encode(), served.certificate.encode())


class ForgetfulEdge(grpc.GenericRpcHandler):
    """Carries unary calls to the edge. The first one is carried out, and its answer lost, as a proxy's is whose server dies; all later
    ones go under another token, so that the edge's own refusal comes back. An async context manager.

    Args:
        edge: `host:port`.
        later_token: what callers have left.
    """

    def __init__(self, edge: str, credentials: Credentials, *, later_token: str) -> None:
        self._edge = edge
        self._credentials = credentials
        self._later_token = later_token
        self._calls = 0

    async def __aenter__(self) -> ForgetfulEdge:
        held = self._credentials
        trust = grpc.ssl_channel_credentials(held.trusted.read_bytes())
        self._channel = grpc.aio.secure_channel(self._edge, trust, options=(("grpc.use_local_subchannel_pool", 1),))
        self._server = grpc.aio.server()
        self._server.add_generic_rpc_handlers((self,))
        port = self._server.add_secure_port(f"{_ADDRESS}:0", grpc.ssl_server_credentials([(held.key, held.certificate)]))
        self.address = f"{_ADDRESS}:{port}"
        await self._server.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._server.stop(None)
        await self._channel.close()

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[bytes, bytes]:
        path = handler_call_details.method

        async def carry(request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
            return await self._carry(path, request, context)

        return grpc.unary_unary_rpc_method_handler(carry)

    async def _carry(self, path: str, request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        self._calls += 1
        is_first = self._calls == 1
        own = dict(context.invocation_metadata() or ())["authorization"]
        authorization = own if is_first else f"Bearer {self._later_token}"
        call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = self._channel.unary_unary(path)
        try:
            answer: bytes = await call(request, metadata=(("authorization", authorization),), timeout=_ATTEMPT_SECONDS)
        except grpc.aio.AioRpcError as error:
            details = tuple(item for item in error.trailing_metadata() if item[0] == DETAILS_KEY)
            await context.abort(error.code(), error.details() or "", details)
        if is_first:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "connection lost")
        return answer


class AbsentIssuer:
    """An issuer that is away for the first two requests of every client, of which it cuts one and refuses the other for the time being;
    then it has a token for whoever asks. An async context manager.

    Args:
        issuer: whose discovery document it shows as its own.
        token: what it hands out.
    """

    def __init__(self, issuer: str, *, token: str) -> None:
        self._issuer = issuer
        self._token = token
        self._asked: Counter[str] = Counter()

    async def __aenter__(self) -> AbsentIssuer:
        async with aiohttp.ClientSession() as session, session.get(f"{self._issuer}/.well-known/openid-configuration") as answer:
            document = await answer.text()
        application = web.Application()
        application.add_routes([web.get("/.well-known/openid-configuration", self._discover), web.post("/token", self._issue)])
        self._runner = web.AppRunner(application)
        await self._runner.setup()
        await web.TCPSite(self._runner, _ADDRESS, 0).start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{port}"
        self._document = document.replace(self._issuer, self.url)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    async def _discover(self, _: web.Request) -> web.Response:
        return web.Response(text=self._document, content_type="application/json")

    async def _issue(self, request: web.Request) -> web.Response:
        pair = base64.b64decode(request.headers["Authorization"].removeprefix("Basic ")).decode()
        client, _, _ = pair.partition(":")
        self._asked[client] += 1
        if self._asked[client] == 1 and request.transport is not None:
            request.transport.abort()
        if self._asked[client] <= _AWAY_REQUESTS:
            raise web.HTTPServiceUnavailable
        return web.json_response({"access_token": self._token, "token_type": "Bearer", "expires_in": 300})
