"""A risk service by hand: the real RPC, and answers from a `FakeRisk`."""

from __future__ import annotations

from pathlib import Path

import grpc

from kernel.errors import UnavailableError
from tests.integration.oms.world import FakeRisk
from trademesh.risk.v1 import pre_trade_service_pb2
from trademesh.risk.v1.pre_trade_service_pb2_grpc import PreTradeServiceServicer, add_PreTradeServiceServicer_to_server


class FakeRiskServer(PreTradeServiceServicer):
    """Listens on a UNIX socket; `stop` makes it as dead as a killed process."""

    def __init__(self, path: Path, risk: FakeRisk) -> None:
        self.target = f"unix:{path}"
        self._risk = risk
        self._server: grpc.aio.Server | None = None

    async def start(self) -> None:
        """Listen."""
        server = grpc.aio.server()
        add_PreTradeServiceServicer_to_server(self, server)
        server.add_insecure_port(self.target)
        await server.start()
        self._server = server

    async def stop(self) -> None:
        """Close every connection and listen no more."""
        if self._server is not None:
            await self._server.stop(None)
            self._server = None

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
