"""A risk service by hand: the real RPC, and answers from a `FakeRisk`."""

from __future__ import annotations

from pathlib import Path

import grpc

from kernel.errors import UnavailableError
from tests.integration.oms.world import FakeRisk
from tests.wire.serving import PlainServer
from trademesh.risk.v1 import pre_trade_service_pb2
from trademesh.risk.v1.pre_trade_service_pb2_grpc import PreTradeServiceServicer, add_PreTradeServiceServicer_to_server


class FakeRiskServer(PlainServer, PreTradeServiceServicer):
    """Listens on a UNIX socket."""

    def __init__(self, path: Path, risk: FakeRisk) -> None:
        super().__init__(path, lambda server: add_PreTradeServiceServicer_to_server(self, server))
        self._risk = risk

    async def CheckOrders(  # type: ignore[override]  # noqa: N802 (the contract's name)
        self,
        request: pre_trade_service_pb2.CheckOrdersRequest,
        context: grpc.aio.ServicerContext[pre_trade_service_pb2.CheckOrdersRequest, pre_trade_service_pb2.CheckOrdersResponse],
    ) -> pre_trade_service_pb2.CheckOrdersResponse:
        """Answer, or fail as a service that cannot."""
        try:
            return pre_trade_service_pb2.CheckOrdersResponse(results=await self._risk.check(request))
        except UnavailableError:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "no")
            raise
