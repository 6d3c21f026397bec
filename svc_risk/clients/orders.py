"""The order service, as risk asks it."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import NamedTuple, Protocol

from kernel.errors import InternalError, Reason
from kernel.event_records import from_position
from kernel.ports import LogPosition
from svc_risk.codec.resources import write_switch_state
from svc_risk.domain.administration import KillSwitch
from svc_risk.domain.vocabulary import OrderState
from trademesh.oms.v1 import order_control_service_pb2

RESOLVE_MAX = 500
"""Orders in one ResolveOrder."""
SWITCHES_MAX = 100
"""Kill switches in one ApplyKillSwitch."""


class ResolvedOrder(NamedTuple):
    """What became of an order."""

    order_id: str
    state: OrderState


class ResolvedOrders(NamedTuple):
    """What became of orders, in the order in which they were named, as of a position of svc_oms's log."""

    orders: tuple[ResolvedOrder, ...]
    position: LogPosition


class OrderControl(Protocol):
    """What svc_oms does for risk."""

    async def resolve(self, orders: Sequence[tuple[str, str]]) -> ResolvedOrders:
        """Say what became of orders, given as (order id, account id), at most 500; one that does not exist is given up first.

        Raises:
            TrademeshError: svc_oms did not answer; nothing is known.
        """
        ...

    async def apply(self, switches: Sequence[KillSwitch]) -> None:
        """Tell svc_oms of kill switches, at most 100; once this returns, nothing that they cover is sent.

        Raises:
            TrademeshError: svc_oms did not confirm; it may or may not have them.
        """
        ...


class _Resolve(Protocol):
    def __call__(
        self, request: order_control_service_pb2.ResolveOrderRequest
    ) -> Awaitable[order_control_service_pb2.ResolveOrderResponse]: ...


class _Apply(Protocol):
    def __call__(
        self, request: order_control_service_pb2.ApplyKillSwitchRequest
    ) -> Awaitable[order_control_service_pb2.ApplyKillSwitchResponse]: ...


class OrderControlClient:
    """Asks svc_oms by gRPC, through the RPCs of a generated stub."""

    def __init__(self, resolve_order: _Resolve, apply_kill_switch: _Apply) -> None:
        self._resolve_order = resolve_order
        self._apply_kill_switch = apply_kill_switch

    async def resolve(self, orders: Sequence[tuple[str, str]]) -> ResolvedOrders:
        """See `OrderControl.resolve`."""
        references = [order_control_service_pb2.OrderReference(order_id=order, account_id=account) for order, account in orders]
        response = await self._resolve_order(order_control_service_pb2.ResolveOrderRequest(orders=references))
        if [order.order_id for order in response.orders] != [order for order, _ in orders]:
            raise InternalError(Reason.INTERNAL, "svc_oms answered another question")
        resolved = [ResolvedOrder(order.order_id, OrderState(order.state)) for order in response.orders]
        return ResolvedOrders(tuple(resolved), from_position(response.log_position))

    async def apply(self, switches: Sequence[KillSwitch]) -> None:
        """See `OrderControl.apply`."""
        states = [write_switch_state(switch) for switch in switches]
        response = await self._apply_kill_switch(order_control_service_pb2.ApplyKillSwitchRequest(switches=states))
        behind = [now for wanted, now in zip(states, response.switches, strict=False) if now.version < wanted.version]
        if behind or len(response.switches) != len(states):
            raise InternalError(Reason.INTERNAL, "svc_oms did not take every kill switch")
