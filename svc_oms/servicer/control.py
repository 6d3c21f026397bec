"""What other services ask: the fate of orders, and kill switches."""

from __future__ import annotations

from collections.abc import Sequence

from kernel.errors import AbortedError, FieldViolation, InvalidArgumentError, Reason
from kernel.event_records import to_position
from kernel.ports import LOG_START, Clock, IdSource, LogPosition
from kernel.server_context import CallContext
from svc_oms.codec.events import encode
from svc_oms.codec.orders import abandoned_message, order_message
from svc_oms.domain import Order, OrderState, decide
from svc_oms.domain.commands import AbandonOrder
from svc_oms.domain.events import KillSwitchApplied
from svc_oms.servicer.changes import own_cancel
from svc_oms.servicer.requests import OrderRequests
from svc_oms.store.decisions import stream_of
from svc_oms.store.kill_switches import Scope, Switch, lock_and_read, write
from svc_oms.store.orders import OrderStore
from svc_oms.store.reads import OPEN_ORDERS_MAX, OrderReads
from trademesh.oms.v1 import order_control_service_pb2, order_pb2

ATTEMPTS = 3


class OrderControlServicer:
    """OrderControlService."""

    def __init__(self, store: OrderStore, reads: OrderReads, requests: OrderRequests, clock: Clock, ids: IdSource) -> None:
        self._store = store
        self._reads = reads
        self._requests = requests
        self._clock = clock
        self._ids = ids

    async def ResolveOrder(  # noqa: N802 (the contract's name)
        self, request: order_control_service_pb2.ResolveOrderRequest, context: CallContext
    ) -> order_control_service_pb2.ResolveOrderResponse:
        """Return what became of orders; give up those that do not exist, so that no late accept can follow."""
        accounts: dict[str, str] = {}
        for item in request.orders:
            if accounts.setdefault(item.order_id.lower(), item.account_id) != item.account_id:
                raise _named_twice(item.order_id)
        context.batch_size = len(accounts)
        found = await self._store.load_many(list(accounts))
        position = LOG_START
        missing = [order_id for order_id in accounts if order_id not in found]
        if missing:
            position = await self._abandon(missing, accounts)
            found = await self._store.load_many(list(accounts))
        if position == LOG_START:
            position = await self._newest(list(accounts))
        return order_control_service_pb2.ResolveOrderResponse(
            orders=[_resolved(found[item.order_id.lower()]) for item in request.orders], log_position=to_position(position)
        )

    async def _newest(self, order_ids: Sequence[str]) -> LogPosition:
        """The position of the orders' last event. Not the log's horizon, which no reader of events ever reaches while nothing happens."""
        streams = await self._store.log.read_streams([stream_of(order_id) for order_id in order_ids])
        return max((events[-1].position for events in streams.values()), default=LOG_START)

    async def _abandon(self, order_ids: Sequence[str], accounts: dict[str, str]) -> LogPosition:
        async with self._store.unit() as unit:
            await unit.lock(order_ids)
            now = self._clock.now()
            for order_id in order_ids:
                unit.record(order_id, decide(unit.order(order_id), AbandonOrder(order_id, accounts[order_id], now)))
            return await unit.flush() or LOG_START

    async def ApplyKillSwitch(  # noqa: N802 (the contract's name)
        self, request: order_control_service_pb2.ApplyKillSwitchRequest, context: CallContext
    ) -> order_control_service_pb2.ApplyKillSwitchResponse:
        """Set or release switches; a stale version leaves the switch alone. Open orders are canceled after the switches hold."""
        wanted = [Switch(Scope(item.scope), item.scope_id, item.active, item.version, item.cancel_open_orders) for item in request.switches]
        if len({(switch.scope, switch.scope_id) for switch in wanted}) != len(wanted):
            raise _named_twice("a switch")
        context.batch_size = len(wanted)
        standing, position = await self._apply(wanted)
        cancels = 0
        for switch in standing:
            # Also for a switch that stood already: whoever set it may have failed before its cancels.
            if switch.active and switch.cancel_open_orders:
                asked, reached = await self._cancel_covered(switch)
                cancels += asked
                position = max(position, reached)
        return order_control_service_pb2.ApplyKillSwitchResponse(
            switches=[_switch_message(switch) for switch in standing],
            cancels_requested=cancels,
            log_position=to_position(position),
        )

    async def _apply(self, wanted: Sequence[Switch]) -> tuple[list[Switch], LogPosition]:
        for attempt in range(ATTEMPTS):
            try:
                return await self._apply_once(wanted)
            except AbortedError:
                if attempt == ATTEMPTS - 1:
                    raise
        raise AssertionError("the last attempt returns or raises")

    async def _apply_once(self, wanted: Sequence[Switch]) -> tuple[list[Switch], LogPosition]:
        async with self._store.unit() as unit:
            await unit.lock((), other_streams=[switch.stream_id for switch in wanted])
            known = await lock_and_read(unit.transaction, wanted)
            now = self._clock.now()
            standing: list[Switch] = []
            changed: list[Switch] = []
            for switch in wanted:
                before = known.get((switch.scope.value, switch.scope_id))
                if before is not None and before.version >= switch.version:
                    standing.append(before)
                    continue
                standing.append(switch)
                changed.append(switch)
                event = KillSwitchApplied(switch.name, switch.active, switch.version, Reason.KILL_SWITCH_ACTIVE, now)
                unit.record_other(switch.stream_id, [encode(event, None)])
            position = await unit.flush()
            if changed:
                await write(unit.transaction, changed)
        return standing, position or await self._store.log.horizon()

    async def _cancel_covered(self, switch: Switch) -> tuple[int, LogPosition]:
        """Ask for the cancel of every open order that the switch covers; nothing it covers is sent any more, so the set only shrinks."""
        asked: set[str] = set()
        position = LOG_START
        while True:
            found = [order_id for order_id in await self._reads.open_covered(switch) if order_id not in asked]
            orders = await self._store.load_many(found)
            principal = f"kill-switch/{switch.name}"[:128]
            _, reached = await self._requests.cancel_each(own_cancel(order, principal, self._ids.new_id()) for order in orders.values())
            asked.update(found)
            position = max(position, reached)
            if len(found) < OPEN_ORDERS_MAX:
                return len(asked), position


def _resolved(order: Order) -> order_pb2.Order:
    return abandoned_message(order) if order.state is OrderState.ABANDONED else order_message(order)


def _switch_message(switch: Switch) -> order_control_service_pb2.KillSwitchState:
    return order_control_service_pb2.KillSwitchState(
        scope=switch.scope.value,  # type: ignore[arg-type]  # (the contract's numbers)
        scope_id=switch.scope_id,
        active=switch.active,
        version=switch.version,
        cancel_open_orders=switch.cancel_open_orders,
    )


def _named_twice(what: str) -> InvalidArgumentError:
    text = f"{what[:64]} is named twice"
    return InvalidArgumentError(Reason.FIELD_INVALID, text, field_violations=[FieldViolation("orders", "unique", text)])
