"""The gateway between real Envoys: a socket from the edge, the user's token checked on the way in and again at the service behind."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from kernel.identity import CLAIMS_HEADER
from mesh.local.sidecar import egress_target
from tests.integration.gateway.process import DEADLINE_SECONDS, environment, serving
from tests.integration.mesh.world import World, running
from tests.wire.gateway.world import GET, ORDER_ID, PROTOCOL, Socket, reason
from trademesh.oms.v1 import order_pb2, order_service_pb2

GATEWAY = "svc_gateway-0"
ADDRESS = "http://svc-gateway.trading.svc.cluster.local:8080"


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with running(tmp_path / "m", {"svc_gateway": [GATEWAY], "svc_oms": ["svc_oms-0"], "edge": ["edge-0"]}) as started:
        application = started.applications["svc_oms-0"]
        answer = application.answer

        async def get_order(path: str, request: bytes, context: Any) -> bytes:
            who = await answer(path, request, context)
            order = order_pb2.Order(order_id=order_service_pb2.GetOrderRequest.FromString(request).order_id, principal=who.decode())
            return order_service_pb2.GetOrderResponse(order=order).SerializeToString()

        application.answer = get_order  # type: ignore[method-assign]  # it plays the one method that is asked for
        yield started


@asynccontextmanager
async def session(world: World, folder: Path) -> AsyncIterator[aiohttp.ClientSession]:
    """Run the gateway in its place and return a client that comes as the edge comes."""
    proxy = world.proxy(GATEWAY)
    keys = environment(
        folder,
        SIDECAR_SECRET=proxy.secret,
        HTTP_SOCKET_PATH=str(proxy.applications[8080]),
        OMS_TARGETS=egress_target(world.layout, GATEWAY, "svc_oms"),
    )
    connector = aiohttp.UnixConnector(str(world.proxy("edge-0").egress_socket))
    async with serving(keys), aiohttp.ClientSession(ADDRESS, connector=connector) as made:
        yield made


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


async def test_a_token_goes_all_the_way_and_is_checked_twice(world: World, scratch: Path) -> None:
    folder = scratch / "gateway"
    folder.mkdir(mode=0o700)
    async with session(world, folder) as client:
        async with client.ws_connect("/v1/ws", protocols=(PROTOCOL,), headers=bearer(world.issuer.token())) as opened:
            socket = Socket(opened)
            await socket.call("1", GET, account_id="ACC-1", order_id=ORDER_ID)
            order = (await socket.message("1"))["order"]
            assert order["order_id"] == ORDER_ID
            # What the service behind two more sidecars believed.
            assert order["principal"] == '{"peer": "svc-gateway", "user": "ada"}'
            assert (await socket.end("1"))["code"] == 0

        ends = int(time.time()) + 3
        async with client.ws_connect("/v1/ws", protocols=(PROTOCOL,), headers=bearer(world.issuer.token(seconds=3))) as opened:
            assert await Socket(opened).closed() == 4401
            assert time.time() >= ends - 1

        refused = [
            ({}, "USER_UNAUTHENTICATED"),
            ({CLAIMS_HEADER: "eyJzdWIiOiJhZGEifQ", **bearer("made.up.token")}, ""),
            (bearer(world.issuer.token()[:-6] + "AAAAAA"), ""),
            (bearer(world.issuer.token(seconds=-60)), ""),
            (bearer(world.issuer.token(aud="elsewhere")), ""),
        ]
        for headers, why in refused:
            handshake = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
            handshake |= {"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Protocol": PROTOCOL}
            timeout = aiohttp.ClientTimeout(total=DEADLINE_SECONDS)
            async with client.get("/v1/ws", headers={**headers, **handshake}, timeout=timeout) as response:
                assert response.status in (401, 403), headers
                if why:
                    assert reason(await response.json()) == why

        async with client.get("/docs") as response:
            assert response.status == 200
            assert "default-src 'none'" in response.headers["Content-Security-Policy"]
