"""A client outside the mesh: REST, sockets and gRPC through its edge, with tokens of its issuer."""

from __future__ import annotations

import json
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
import grpc.aio

from cli.access import LocalUsers
from mesh.local.harness import LocalMesh
from mesh.local.operator import Caller
from mesh.local.outside import door
from mesh.local.seed_data import TENANT

ADA = Caller("ada", TENANT, ("trader", "viewer"), ("ACC-1",))
STRANGER = Caller("eve", "other-tenant", ("trader", "viewer"), ("ACC-1",))
ORDERS = "/v1/accounts/ACC-1/orders"
SUBPROTOCOL = "trademesh.v1+json"


@dataclass(frozen=True)
class Answer:
    """One HTTP answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def reason(self) -> str:
        """The reason of the ErrorInfo in a `google.rpc.Status`."""
        (info,) = [detail for detail in self.json["details"] if detail["@type"].endswith("google.rpc.ErrorInfo")]
        return str(info["reason"])


class Client:
    """One user at the edge.

    Args:
        mesh: a running one.
        session: of HTTP, which the caller closes.
    """

    def __init__(self, mesh: LocalMesh, session: aiohttp.ClientSession) -> None:
        self.mesh = mesh
        self.session = session
        entrance = door(mesh.layout)
        self.url = f"https://{entrance.edge}"
        self.address = entrance.edge
        self.root = entrance.authority_file
        self.tls = ssl.create_default_context(cafile=str(entrance.authority_file))
        self.users = LocalUsers(mesh.layout)

    def token(self, caller: Caller = ADA) -> str:
        """Return a fresh token of a user."""
        return self.users.token(caller).text

    def bearer(self, caller: Caller = ADA) -> dict[str, str]:
        """Return the header that says who calls."""
        return {"authorization": f"Bearer {self.token(caller)}"}

    async def call(self, verb: str, path: str, body: Any = None, *, headers: Mapping[str, str] | None = None) -> Answer:
        """Make one request, as ada unless headers are given; text is sent as it is, anything else as JSON."""
        sent = dict(self.bearer() if headers is None else headers)
        data = None
        if body is not None:
            sent.setdefault("content-type", "application/json")
            data = body if isinstance(body, str | bytes) else json.dumps(body)
        async with self.session.request(verb, self.url + path, data=data, headers=sent, ssl=self.tls) as response:
            return Answer(response.status, {key.lower(): value for key, value in response.headers.items()}, await response.read())

    @asynccontextmanager
    async def stream(self, path: str, accept: str) -> AsyncIterator[aiohttp.ClientResponse]:
        """Open a stream as ada."""
        async with self.session.get(self.url + path, headers={**self.bearer(), "accept": accept}, ssl=self.tls) as response:
            yield response

    @asynccontextmanager
    async def socket(
        self, headers: Mapping[str, str], *, protocols: tuple[str, ...] = (SUBPROTOCOL,), path: str = "/v1/ws"
    ) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
        """Open a WebSocket.

        Raises:
            aiohttp.WSServerHandshakeError: refused.
        """
        async with self.session.ws_connect(self.url + path, headers=dict(headers), protocols=protocols, ssl=self.tls) as socket:
            yield socket

    @asynccontextmanager
    async def channel(self) -> AsyncIterator[grpc.aio.Channel]:
        """Return a gRPC channel to the edge."""
        credentials = grpc.ssl_channel_credentials(self.root.read_bytes())
        async with grpc.aio.secure_channel(self.address, credentials, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
            yield channel


def order(key: str, quantity: str) -> dict[str, str]:
    """Return a market order to buy, as JSON."""
    fixed = {"instrument_id": "AAPL", "side": "SIDE_BUY", "type": "ORDER_TYPE_MARKET", "time_in_force": "TIME_IN_FORCE_DAY"}
    return {"client_order_id": key, "quantity": quantity, **fixed}
