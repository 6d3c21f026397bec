"""What the order service makes of risk's refusals to answer."""

from __future__ import annotations

import pytest

from kernel.errors import Reason, ResourceExhaustedError, TrademeshError, UnavailableError
from svc_oms.clients import RiskClient
from trademesh.risk.v1 import pre_trade_service_pb2


async def asked(error: TrademeshError) -> TrademeshError:
    async def check_orders(request: pre_trade_service_pb2.CheckOrdersRequest) -> pre_trade_service_pb2.CheckOrdersResponse:
        raise error

    with pytest.raises(TrademeshError) as caught:
        await RiskClient(check_orders).check(pre_trade_service_pb2.CheckOrdersRequest())
    return caught.value


async def test_a_risk_that_is_overloaded_is_not_an_outage() -> None:
    found = await asked(ResourceExhaustedError(Reason.OVERLOADED, "busy", retry_after_seconds=0.7))
    assert isinstance(found, ResourceExhaustedError)
    assert (found.reason, found.retry_after_seconds) == (Reason.OVERLOADED, 0.7)


async def test_whatever_else_goes_wrong_is_no_approval() -> None:
    found = await asked(UnavailableError(Reason.DATABASE_UNAVAILABLE, "away"))
    assert isinstance(found, UnavailableError)
    assert found.reason is Reason.RISK_UNAVAILABLE
