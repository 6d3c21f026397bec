"""Ways around the edge: none leads to a service."""

from __future__ import annotations

from typing import Any

import grpc.aio
import pytest

from kernel.identity import CLAIMS_HEADER, PEER_HEADER, User, claims_header, xfcc
from mesh.local.compiler import host_name
from mesh.local.layout import Layout
from mesh.local.sidecar import GRPC_PORT
from tests.e2e.edge.client import ORDERS, Client
from trademesh.oms.v1 import order_service_pb2

pytestmark = pytest.mark.e2e

LIST = "/trademesh.oms.v1.OrderService/ListOrders"
CREATE = "/trademesh.oms.v1.OrderService/CreateOrder"
USER = claims_header(User("ada", "demo", frozenset({"trader"}), frozenset({"ACC-1"}), 4_000_000_000))
FORGED: tuple[tuple[str, Any], ...] = (
    (PEER_HEADER, xfcc("edge", trust_domain="trademesh.local", namespace="trading")),
    (CLAIMS_HEADER, USER),
)


async def refusal(target: str, path: str, metadata: tuple[tuple[str, Any], ...], authority: str | None = None) -> grpc.aio.AioRpcError:
    options: list[tuple[str, Any]] = [("grpc.use_local_subchannel_pool", 1)]
    if authority is not None:
        options.append(("grpc.default_authority", authority))
    request = order_service_pb2.ListOrdersRequest(account_id="ACC-1").SerializeToString()
    async with grpc.aio.insecure_channel(target, options=options) as channel:
        method: Any = channel.unary_unary(path)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await method(request, metadata=metadata, timeout=10)
    return caught.value


def egress(layout: Layout, instance: str) -> str:
    return f"unix:{layout.private(instance) / 'egress.sock'}"


async def test_an_applications_socket_wants_its_sidecars_secret(client: Client) -> None:
    socket = f"unix:{client.mesh.layout.socket('svc_oms-0')}"
    for metadata in ((), FORGED, (*FORGED, ("x-trademesh-sidecar-secret", "guessed"))):
        error = await refusal(socket, LIST, metadata)
        assert error.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_what_a_caller_says_of_itself_is_not_heard(client: Client) -> None:
    forged = {PEER_HEADER: str(FORGED[0][1]), CLAIMS_HEADER: str(USER)}
    refused = await client.call("GET", ORDERS, headers=forged)
    assert (refused.status, refused.reason) == (401, "USER_UNAUTHENTICATED")
    # With a token of one's own, the forged words about somebody else change nothing.
    answer = await client.call("GET", "/v1/accounts/ACC-2/orders", headers={**client.bearer(), **forged})
    assert answer.status == 403


@pytest.mark.parametrize(("instance", "path"), [("svc_risk-0", LIST), ("svc_gateway-0", CREATE), ("svc_custody-0", LIST)])
async def test_another_services_way_out_is_its_own(client: Client, instance: str, path: str) -> None:
    authority = f"{host_name('svc-oms')}:{GRPC_PORT}"
    bearer = ("authorization", client.bearer()["authorization"])
    error = await refusal(egress(client.mesh.layout, instance), path, (bearer, *FORGED), authority)
    assert error.code() is grpc.StatusCode.PERMISSION_DENIED
