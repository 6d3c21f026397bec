"""Outbound calls of the order service, each behind a Protocol."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import Protocol

from kernel.errors import Reason, ResourceExhaustedError, TrademeshError, UnavailableError
from trademesh.risk.v1 import pre_trade_service_pb2

CHECKS_MAX = 1_000
"""Orders in one CheckOrders."""

RETRY_SECONDS = 0.25


class PreTrade(Protocol):
    """Risk, as the order service asks it."""

    async def check(self, request: pre_trade_service_pb2.CheckOrdersRequest) -> Sequence[pre_trade_service_pb2.OrderCheckResult]:
        """Return one answer per order of the request, in order. At most 1,000 orders.

        Raises:
            UnavailableError: RISK_UNAVAILABLE; risk may have reserved, and settles that by asking us (`ResolveOrder`).
            ResourceExhaustedError: OVERLOADED; risk has looked at nothing.
        """
        ...


class _CheckOrders(Protocol):
    """The RPC, as a client factory's stub offers it."""

    def __call__(self, request: pre_trade_service_pb2.CheckOrdersRequest) -> Awaitable[pre_trade_service_pb2.CheckOrdersResponse]: ...


class RiskClient:
    """Asks svc_risk by gRPC. Whatever goes wrong, the order is refused: no answer is never an approval."""

    def __init__(self, check_orders: _CheckOrders) -> None:
        self._check_orders = check_orders

    async def check(self, request: pre_trade_service_pb2.CheckOrdersRequest) -> Sequence[pre_trade_service_pb2.OrderCheckResult]:
        """See `PreTrade.check`."""
        try:
            response = await self._check_orders(request)
        except ResourceExhaustedError as error:
            # Not an outage: a caller who hears UNAVAILABLE counts it against this replica, and three of them take it out of its pool.
            raise ResourceExhaustedError(
                Reason.OVERLOADED, "risk has as many orders as it takes", retry_after_seconds=error.retry_after_seconds or RETRY_SECONDS
            ) from error
        except TrademeshError as error:
            raise risk_unavailable(f"risk cannot be asked ({error.reason})") from error
        results, orders = list(response.results), request.orders
        if len(results) != len(orders) or any(a.request_id != b.request_id for a, b in zip(results, orders, strict=True)):
            raise risk_unavailable("risk answered another question")
        return results


def risk_unavailable(message: str) -> UnavailableError:
    """Return the refusal for want of an answer from risk."""
    return UnavailableError(Reason.RISK_UNAVAILABLE, message, retry_after_seconds=RETRY_SECONDS)
