"""Cancels, replaces and kill switches against a real PostgreSQL."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from kernel.errors import (
    AbortedError,
    AlreadyExistsError,
    FailedPreconditionError,
    NotFoundError,
    PermissionDeniedError,
    Reason,
    UnavailableError,
)
from kernel.ports import LogPosition
from svc_oms.codec.scalars import reason_number
from svc_oms.domain import Action, OrderState, ReportKind
from svc_oms.domain.events import OrderMarkedUnknown
from svc_oms.servicer.changes import CancelChange, Changed, client_cancel
from svc_oms.servicer.replaces import APPROVAL_AGE_MAX, ReplaceChange
from svc_oms.store.kill_switches import lock_active
from svc_oms.store.orders import OrderUnit
from tests.integration.oms import world
from tests.integration.oms.world import FakeRisk, Replica
from tests.unit.oms import make
from trademesh.oms.v1 import events_pb2, order_control_service_pb2, order_pb2, order_service_pb2


async def working(replica: Replica, **changes: Any) -> str:
    """Create an order, and let the venue acknowledge it."""
    created = await replica.create(world.order(**changes))
    await replica.venue(created.order.order_id, make.report(ReportKind.ACKNOWLEDGED))
    return created.order.order_id


async def test_a_cancel_of_an_unsent_order_ends_it_and_its_replay_gets_the_first_answer(replica: Replica, other: Replica) -> None:
    created = await replica.create(world.order())
    request_id = replica.ids.new_id()
    first = await replica.cancel(created.order.order_id, request_id=request_id)
    assert first.order.state == OrderState.CANCELED
    assert await other.cancel(created.order.order_id, request_id=request_id) == first
    with pytest.raises(FailedPreconditionError) as caught:
        await other.cancel(created.order.order_id)
    assert caught.value.reason is Reason.ORDER_TERMINAL
    assert await replica.database.fetchval("SELECT count(*) FROM venue_request") == 0


async def test_a_stranger_in_the_same_batch_hears_nothing_of_a_key(replica: Replica) -> None:
    order_id, request_id = await working(replica), replica.ids.new_id()
    own = client_cancel(world.USER, "ACC-1", order_id, request_id, b"s" * 32)
    foreign = client_cancel(world.STRANGER, "ACC-1", order_id, request_id, b"s" * 32)
    answered, refused = await replica.lanes.requests.submit_many([own, foreign])
    assert isinstance(answered, Changed)
    assert isinstance(refused, PermissionDeniedError)


async def test_a_cancel_key_serves_one_command(replica: Replica) -> None:
    one, two = await working(replica), await working(replica)
    request_id = replica.ids.new_id()
    await replica.cancel(one, request_id=request_id)
    with pytest.raises(AlreadyExistsError):
        await replica.cancel(two, request_id=request_id)


async def test_foreign_orders_and_accounts_are_not_told_apart_from_unknown_ones(replica: Replica) -> None:
    order_id = await working(replica)
    for user, account_id, error in [
        (world.STRANGER, "ACC-2", PermissionDeniedError),
        (world.STRANGER, "ACC-1", PermissionDeniedError),
        (world.STRANGER, "ACC-9", NotFoundError),
        (world.USER, "ACC-2", NotFoundError),
    ]:
        with pytest.raises(error):
            await replica.cancel(order_id, user, account_id=account_id)
    with pytest.raises(NotFoundError):
        await replica.cancel("9b2f6f1e-0000-5000-8000-000000000000")


async def test_cancels_of_one_order_at_once_ask_once(replica: Replica, other: Replica) -> None:
    order_id = await working(replica)
    outcomes = await asyncio.gather(*(side.cancel(order_id) for side in (replica, other) * 4), return_exceptions=True)
    asked = [outcome for outcome in outcomes if not isinstance(outcome, BaseException)]
    assert len(asked) == 1
    assert all(isinstance(outcome, FailedPreconditionError) for outcome in outcomes if isinstance(outcome, BaseException))


async def test_one_cancel_sent_twice_at_once_is_answered_twice_alike(replica: Replica, other: Replica) -> None:
    order_id = await working(replica)
    request_id = replica.ids.new_id()
    answers = await asyncio.gather(*(side.cancel(order_id, request_id=request_id) for side in (replica, other) * 4))
    assert all(answer == answers[0] for answer in answers)


async def test_a_replace_goes_to_risk_first(replica: Replica, risk: FakeRisk) -> None:
    order_id = await working(replica)

    async def replaced(quantity: str, request_id: str | None = None) -> order_service_pb2.ReplaceOrderResponse:
        request = order_service_pb2.ReplaceOrderRequest(
            account_id="ACC-1", order_id=order_id, request_id=request_id or replica.ids.new_id(), quantity=quantity
        )
        response = (await replica.lanes.requests.replace(request, world.USER)).response
        assert isinstance(response, order_service_pb2.ReplaceOrderResponse)
        return response

    risk.answer = world.refusal
    refused = await replaced("20")
    assert refused.reject.text == "too many"
    assert refused.order.pending_action == 0
    risk.down = True
    with pytest.raises(UnavailableError):
        await replaced("20")
    risk.down, risk.answer = False, world.approval
    key = replica.ids.new_id()
    accepted = await replaced("20", key)
    assert accepted.order.pending_action == order_pb2.PENDING_ACTION_REPLACE
    assert risk.asked[-1].quantity == "20"
    assert (risk.asked[-1].order_id, risk.asked[-1].request_id) == (order_id, key)
    assert await replaced("20.0", key) == accepted
    with pytest.raises(FailedPreconditionError) as caught:
        await replaced("30")
    assert caught.value.reason is Reason.ORDER_REQUEST_PENDING


def replacement(replica: Replica, order_id: str, quantity: str, **changes: Any) -> order_service_pb2.ReplaceOrderRequest:
    given = {"account_id": "ACC-1", "order_id": order_id, "request_id": replica.ids.new_id(), "quantity": quantity}
    return order_service_pb2.ReplaceOrderRequest(**(given | changes))


async def rejections(replica: Replica, order_id: str) -> list[tuple[str, int]]:
    """Of each replace that was recorded as refused, the key and the reason."""
    events = await replica.log.read_stream(f"order-{order_id}")
    payloads = [events_pb2.ReplaceRejected.FromString(event.payload) for event in events if event.type == "oms.v1.ReplaceRejected"]
    return [(payload.request_id, payload.reject.reason) for payload in payloads]


@pytest.mark.parametrize("what", ["replaced", "canceling", "filled", "canceled", "unknown", "changed"])
async def test_what_an_order_refuses_after_risk_approved_it_is_recorded_and_used_up(
    replica: Replica, other: Replica, risk: FakeRisk, what: str
) -> None:
    """Risk holds an approved replace until it reads what became of it."""
    order_id = await working(replica)
    request = replacement(replica, order_id, "20", etag="3" if what == "changed" else "")

    async def meanwhile() -> None:
        match what:
            case "replaced" | "changed":
                await other.lanes.requests.replace(replacement(other, order_id, "30"), world.USER)
            case "canceling":
                await other.cancel(order_id)
            case "filled":
                await other.venue(order_id, make.fill("10"))
            case "canceled":
                await other.venue(order_id, make.report(ReportKind.CANCELED))
            case _:
                async with other.store.unit() as unit:
                    await unit.lock([order_id])
                    unit.record(order_id, (OrderMarkedUnknown(order_id, other.clock.now()),))
                    await unit.flush()

    risk.meanwhile = meanwhile
    reasons = {"replaced": Reason.ORDER_REQUEST_PENDING, "canceling": Reason.ORDER_REQUEST_PENDING}
    reasons |= {"unknown": Reason.ORDER_STATE_UNKNOWN, "changed": Reason.VERSION_STALE}
    reason = reasons.get(what, Reason.ORDER_TERMINAL)
    told: list[Any] = []
    for side in (replica, replica, other):
        with pytest.raises(AbortedError if what == "changed" else FailedPreconditionError) as caught:
            await side.lanes.requests.replace(request, world.USER)
        told.append((caught.value.reason, caught.value.message, caught.value.metadata))
        # An end releases whatever is held for an order; one that is filled may still be reopened.
        assert await rejections(replica, order_id) == ([] if what == "canceled" else [(request.request_id, reason_number(reason))])
    assert told[0][0] is reason
    assert told[0][2]["resource_name"] == order_id
    assert told == [told[0]] * 3
    assert [check.request_id for check in risk.asked].count(request.request_id) == 1
    order = (await replica.store.load_many([order_id]))[order_id]
    assert order.quantity == 10
    assert order.terminal == (what in ("filled", "canceled"))


async def test_a_refusal_before_risk_was_asked_leaves_the_key_free(replica: Replica, risk: FakeRisk) -> None:
    order_id = await working(replica)
    request = replacement(replica, order_id, "10")
    with pytest.raises(FailedPreconditionError):
        await replica.lanes.requests.replace(request, world.USER)
    assert await rejections(replica, order_id) == []
    request.quantity = "11"
    await replica.lanes.requests.replace(request, world.USER)
    assert len(risk.asked) == 2


async def test_what_neither_risk_nor_the_order_allows_is_not_recorded(replica: Replica, risk: FakeRisk) -> None:
    order_id = await working(replica)
    risk.answer, risk.meanwhile = world.refusal, lambda: replica.cancel(order_id)
    with pytest.raises(FailedPreconditionError):
        await replica.lanes.requests.replace(replacement(replica, order_id, "20"), world.USER)
    assert await rejections(replica, order_id) == []


async def test_a_replace_whose_key_was_used_meanwhile_comes_to_nothing(replica: Replica, other: Replica, risk: FakeRisk) -> None:
    order_id, second = await working(replica), await working(replica)
    request = replacement(replica, order_id, "20")
    risk.meanwhile = lambda: other.cancel(second, request_id=request.request_id)
    for _ in range(2):
        with pytest.raises(AlreadyExistsError):
            await replica.lanes.requests.replace(request, world.USER)
    reused = reason_number(Reason.IDEMPOTENCY_KEY_REUSED)
    assert await rejections(replica, order_id) == [(request.request_id, reused)]
    # The same in one batch.
    request_id = replica.ids.new_id()
    cancel = CancelChange("ACC-1", world.TENANT, "trader-1", second, request_id, b"c" * 32)
    approved = ReplaceChange("ACC-1", world.TENANT, order_id, make.replacement("20", request_id=request_id, time=replica.clock.now()))
    risk.meanwhile = None
    created = await working(replica)
    outcomes = await replica.lanes.requests.submit_many([replace(cancel, order_id=created), approved])
    assert [type(outcome) for outcome in outcomes] == [Changed, AlreadyExistsError]
    assert await rejections(replica, order_id) == [(request.request_id, reused), (request_id, reused)]


async def test_an_approval_that_risk_may_have_given_up_is_not_recorded(replica: Replica, risk: FakeRisk) -> None:
    order_id = await working(replica)
    asked_at = replica.clock.now() - APPROVAL_AGE_MAX - timedelta(seconds=1)
    late = ReplaceChange("ACC-1", world.TENANT, order_id, make.replacement("20", request_id=replica.ids.new_id(), time=asked_at))
    with pytest.raises(UnavailableError):
        await replica.lanes.requests.submit(late)
    assert await rejections(replica, order_id) == []
    request = replacement(replica, order_id, "20", request_id=late.command.request_id)
    assert not (await replica.lanes.requests.replace(request, world.USER)).replayed


async def test_cancels_pass_while_risk_is_down(replica: Replica, risk: FakeRisk) -> None:
    order_ids = [await working(replica) for _ in range(5)]
    risk.down = True
    with pytest.raises(UnavailableError):
        await replica.create(world.order())
    for order_id in order_ids:
        assert (await replica.cancel(order_id)).order.pending_action == Action.CANCEL


async def test_cancel_all_takes_what_it_selects_and_repeats_its_answer(replica: Replica, other: Replica) -> None:
    wanted = [await working(replica) for _ in range(3)]
    await working(replica, instrument_id="MSFT")
    await working(replica, account_id="ACC-2")
    request = order_service_pb2.CancelAllOrdersRequest(account_id="ACC-1", instrument_id="AAPL", request_id=replica.ids.new_id())
    first = await replica.lanes.requests.cancel_all(request, world.USER)
    assert isinstance(first.response, order_service_pb2.CancelAllOrdersResponse)
    assert list(first.response.order_ids) == wanted
    again = await other.lanes.requests.cancel_all(request, world.USER)
    assert again.replayed
    assert again.response == first.response
    with pytest.raises(PermissionDeniedError):
        await replica.lanes.requests.cancel_all(request, world.STRANGER)


def switch(
    scope: int, scope_id: str, version: int, *, active: bool = True, cancel: bool = False
) -> order_control_service_pb2.ApplyKillSwitchRequest:
    state = order_control_service_pb2.KillSwitchState(
        scope=scope,  # type: ignore[arg-type]
        scope_id=scope_id,
        active=active,
        version=version,
        cancel_open_orders=cancel,
    )
    return order_control_service_pb2.ApplyKillSwitchRequest(switches=[state])


async def test_a_kill_switch_covers_and_cancels(replica: Replica, other: Replica) -> None:
    covered, free = await working(replica), await working(replica, account_id="ACC-2")
    answer = await replica.control.ApplyKillSwitch(switch(2, "ACC-1", 1, cancel=True), world.context(None))
    assert answer.cancels_requested == 1
    orders = await other.store.load_many([covered, free])
    assert orders[covered].pending_action is Action.CANCEL
    assert orders[free].pending_action is None
    async with other.store.unit() as unit:
        active = await lock_active(unit.transaction)
    assert active.cover(orders[covered])
    assert not active.cover(orders[free])


async def test_an_older_version_of_a_switch_is_left_alone(replica: Replica) -> None:
    await replica.control.ApplyKillSwitch(switch(1, "*", 3), world.context(None))
    stale = await replica.control.ApplyKillSwitch(switch(1, "*", 2, active=False), world.context(None))
    assert (stale.switches[0].active, stale.switches[0].version) == (True, 3)
    released = await replica.control.ApplyKillSwitch(switch(1, "*", 4, active=False), world.context(None))
    assert not released.switches[0].active
    assert len(await replica.log.read_stream("kill-firm-*")) == 2


async def test_a_kill_switch_waits_for_senders_that_did_not_see_it(replica: Replica, other: Replica) -> None:
    entered, leave = asyncio.Event(), asyncio.Event()

    async def sender() -> None:
        async with other.store.unit() as unit:
            await lock_active(unit.transaction)
            entered.set()
            await leave.wait()

    sending = asyncio.create_task(sender())
    await entered.wait()
    applying = asyncio.create_task(replica.control.ApplyKillSwitch(switch(4, "AAPL", 1), world.context(None)))
    done, _ = await asyncio.wait([applying], timeout=0.2)
    assert not done
    leave.set()
    await asyncio.gather(sending, applying)


async def test_a_batch_whose_commit_answer_was_lost_is_read_back_by_key(replica: Replica, monkeypatch: pytest.MonkeyPatch) -> None:
    order_id = await working(replica)
    original = OrderUnit.flush

    async def beaten(*_: object) -> LogPosition:
        raise AbortedError(Reason.VERSION_STALE, "somebody else was faster")

    async def cut(self: OrderUnit) -> object:
        position = await original(self)
        # The server commits, and the answer never comes: `Database.transaction` asks for the fate of this transaction's id.
        self.transaction.own_tx = None
        await cut_after_commit(self)
        return position

    async def cut_after_commit(unit: OrderUnit) -> None:
        connection = unit.transaction.connection
        execute = connection.execute

        async def lost(sql: str, *arguments: object) -> str:
            tag: str = await execute(sql, *arguments)
            if sql == "COMMIT":
                raise ConnectionResetError("the answer was lost")
            return tag

        unit.transaction.connection = _Wrapped(connection, lost)  # type: ignore[assignment]

    monkeypatch.setattr(replica.store, "change", beaten)
    monkeypatch.setattr(OrderUnit, "flush", cut)
    answer = await replica.cancel(order_id)
    assert answer.order.pending_action == Action.CANCEL


class _Wrapped:
    """A connection whose `execute` is another one."""

    def __init__(self, connection: object, execute: object) -> None:
        self._connection = connection
        self.execute = execute

    def __getattr__(self, name: str) -> object:
        return getattr(self._connection, name)
