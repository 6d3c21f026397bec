"""Requests about an order that exists: cancel, replace, cancel all."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime

from kernel.batcher import Batcher
from kernel.errors import FailedPreconditionError, NotFoundError, TrademeshError
from kernel.identity import User
from kernel.ports import LOG_START, Clock, LogPosition
from kernel.values import format_decimal
from svc_oms.clients import PreTrade
from svc_oms.codec.orders import risk_reject
from svc_oms.codec.requests import cancel_all_hash, cancel_hash, replace_check, replace_command, replace_hash, user_message
from svc_oms.codec.scalars import decimal_text, timestamp
from svc_oms.domain import Order, Reject, replaced_terms
from svc_oms.domain.commands import RequestReplace
from svc_oms.servicer.change_batches import OrderChanges
from svc_oms.servicer.changes import CancelAllAnswer, CancelChange, Change, Changed, client_cancel, require_order
from svc_oms.servicer.creates import foreign_account, refused_by_risk
from svc_oms.servicer.replaces import ReplaceChange, refusal_of
from svc_oms.store.orders import OrderStore
from svc_oms.store.reads import OPEN_ORDERS_MAX, OrderReads
from trademesh.oms.v1 import order_service_pb2

CONTROL_LANE = "control"
CANCELS_AT_ONCE = 128


class OrderRequests:
    """What the RPCs about existing orders do, for unary calls and the entry stream alike."""

    def __init__(
        self,
        lane: Batcher[Change, Changed],
        changes: OrderChanges,
        store: OrderStore,
        reads: OrderReads,
        risk: PreTrade,
        clock: Clock,
    ) -> None:
        self._lane = lane
        self._changes = changes
        self._store = store
        self._reads = reads
        self._risk = risk
        self._clock = clock

    def cancel_change(self, request: order_service_pb2.CancelOrderRequest, user: User) -> CancelChange:
        """Return the change that a CancelOrder asks for.

        Raises:
            PermissionDeniedError: the account is not one of the user's.
        """
        user.require_account(request.account_id)
        return client_cancel(user, request.account_id, request.order_id.lower(), request.request_id.lower(), cancel_hash(request))

    async def submit(self, change: Change, *, deadline: float | None = None) -> Changed:
        """Serve one change in the control lane."""
        return await self._lane.submit(CONTROL_LANE, change, deadline=deadline)

    async def submit_many(self, changes: Sequence[Change]) -> list[Changed | TrademeshError]:
        """Serve at most a batch of changes in the control lane."""
        return await self._lane.submit_many(CONTROL_LANE, changes)

    async def replace(self, request: order_service_pb2.ReplaceOrderRequest, user: User, *, deadline: float | None = None) -> Changed:
        """Check the order, ask risk, and record the request or the refusal.

        Raises:
            TrademeshError: as the contract of ReplaceOrder says; nothing was recorded, unless the order refused what risk had approved.
        """
        user.require_account(request.account_id)
        order_id, request_id = request.order_id.lower(), request.request_id.lower()
        command_hash, key = replace_hash(request), (request.account_id, request_id)
        order = require_order(await self._store.load(order_id), order_id, request.account_id, user.tenant)
        known = await self._changes.known(key, command_hash, order_service_pb2.ReplaceOrderResponse)
        if known is not None:
            return _told(known)
        now = self._clock.now()
        command = replace(replace_command(request, user, command_hash, now), request_id=request_id)
        reject = await self._ask(order, command, user, now)
        change = ReplaceChange(request.account_id, user.tenant, order_id, replace(command, reject=reject))
        return _told(await self.submit(change, deadline=deadline))

    async def _ask(self, order: Order, command: RequestReplace, user: User, now: datetime) -> Reject | None:
        quantity, limit_price = replaced_terms(order, command)
        question = replace_check(order, command, format_decimal(quantity), decimal_text(limit_price), user_message(user), timestamp(now))
        (result,) = await self._risk.check(question)
        outcome = result.WhichOneof("outcome")
        if outcome == "approval":
            return None
        if outcome == "refusal":
            return risk_reject(list(result.refusal.breaches))
        raise refused_by_risk(result)

    async def cancel_all(self, request: order_service_pb2.CancelAllOrdersRequest, user: User) -> Changed:
        """Ask for the cancel of every open order that the request selects, batch by batch; the answer is kept under its key at the end.

        A call that was cut short leaves some orders asked for; asking again with the same key takes the rest.
        """
        user.require_account(request.account_id)
        account_id, request_id, command_hash = request.account_id, request.request_id.lower(), cancel_all_hash(request)
        tenant = await self._reads.tenant_of(account_id)
        if tenant is not None and tenant != user.tenant:
            raise foreign_account(account_id)
        known = await self._changes.known((account_id, request_id), command_hash, order_service_pb2.CancelAllOrdersResponse)
        if known is not None:
            return known
        order_ids: list[str] = []
        position = LOG_START
        asked: frozenset[str] = frozenset()
        while True:
            found = await self._reads.open_of_account(account_id, user.tenant, instrument_id=request.instrument_id, side=request.side)
            fresh = [order_id for order_id in found if order_id not in asked]
            changes = [client_cancel(user, account_id, order_id, request_id, b"", keyed=False) for order_id in fresh]
            pending, reached = await self.cancel_each(changes)
            order_ids.extend(pending)
            position = max(position, reached)
            asked |= set(fresh)
            if len(found) < OPEN_ORDERS_MAX or not fresh:
                break
        answer = CancelAllAnswer(account_id, request_id, command_hash, tuple(order_ids), position)
        return await self.submit(answer)

    async def cancel_each(self, changes: Iterable[CancelChange]) -> tuple[list[str], LogPosition]:
        """Ask for many cancels in batches; return the orders for which one is now pending or done, and the position that shows it.

        Raises:
            TrademeshError: the infrastructure failed; some may have been asked for.
        """
        rest, order_ids, position = list(changes), list[str](), LOG_START
        while rest:
            batch, rest = rest[:CANCELS_AT_ONCE], rest[CANCELS_AT_ONCE:]
            for change, outcome in zip(batch, await self.submit_many(batch), strict=True):
                if isinstance(outcome, Changed):
                    assert isinstance(outcome.response, order_service_pb2.CancelOrderResponse)
                    shown = outcome.response.log_position
                    position = max(position, LogPosition(shown.tx, shown.position))
                    order_ids.append(change.order_id)
                elif isinstance(outcome, FailedPreconditionError):
                    # Ended meanwhile, or a cancel is pending already: what was wanted.
                    order_ids.append(change.order_id)
                elif not isinstance(outcome, NotFoundError):
                    raise outcome
        return order_ids, position


def _told(changed: Changed) -> Changed:
    refusal = refusal_of(changed.response)
    if refusal is not None:
        raise refusal
    return changed
