"""The clients that take no loss for an answer, against a server that breaks off."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import grpc
import pytest

from mesh.local.harness import LocalMesh
from mesh.local.operator import SECRET_FILE, Endpoint
from tests.e2e.crash.client import Clients
from tests.e2e.crash.load import Load
from tests.e2e.crash.world import TRADER
from trademesh.oms.v1 import order_pb2, order_service_pb2

ORDERS = 60
BROKEN = 6


class BreaksOff:
    """Accepts every order, and ends the first streams while commands are under way."""

    def __init__(self, code: grpc.StatusCode) -> None:
        self.streams = 0
        self._code = code

    async def enter(
        self, requests: AsyncIterator[order_service_pb2.EnterOrdersRequest], context: Any
    ) -> AsyncIterator[order_service_pb2.EnterOrdersResponse]:
        """Answer three commands of each stream that is broken off."""
        self.streams += 1
        left = 3 if self.streams <= BROKEN else ORDERS
        async for request in requests:
            if not left:
                await context.abort(self._code, "broken off")
            left -= 1
            order = order_pb2.Order(client_order_id=request.create.client_order_id)
            yield order_service_pb2.EnterOrdersResponse(correlation_id=request.correlation_id, order=order)


@pytest.mark.parametrize("code", [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.INTERNAL, grpc.StatusCode.FAILED_PRECONDITION])
async def test_what_a_stream_ends_with_is_no_answer_to_a_command(tmp_path: Path, code: grpc.StatusCode) -> None:
    endpoint = Endpoint("svc_oms-0", tmp_path / "grpc.sock")
    (tmp_path / SECRET_FILE).write_text("secret")
    source = random.Random(1)
    commands = Load(source, "stream").orders(ORDERS)
    server, service = grpc.aio.server(), BreaksOff(code)
    handler = grpc.stream_stream_rpc_method_handler(
        service.enter, order_service_pb2.EnterOrdersRequest.FromString, order_service_pb2.EnterOrdersResponse.SerializeToString
    )
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("trademesh.oms.v1.OrderService", {"EnterOrders": handler}),))
    server.add_insecure_port(endpoint.target)
    await server.start()
    mesh = cast("LocalMesh", SimpleNamespace(endpoints=lambda _service: [endpoint]))
    async with Clients(mesh, TRADER, source) as clients:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(source, "choice", lambda _ways: "stream")
            await clients.enter(commands)
    await server.stop(None)
    assert clients.ledger.refused == {}
    assert {key for _, key in clients.ledger.answers} == {command.key for command in commands}
    assert service.streams > BROKEN
