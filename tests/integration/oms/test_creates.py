"""New orders against a real PostgreSQL: keys, verdicts of risk, races, and commits whose answer is lost."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Sequence

import pytest

from kernel.errors import (
    AbortedError,
    AlreadyExistsError,
    FailedPreconditionError,
    InvalidArgumentError,
    OutcomeUnknownError,
    PermissionDeniedError,
    Reason,
    UnavailableError,
)
from kernel.ids import order_id as derived_order_id
from kernel.ports import CommitOutcome
from svc_oms.codec.events import decode
from svc_oms.codec.requests import OrderCommand
from svc_oms.domain import fold
from svc_oms.servicer.creates import Created
from svc_oms.store.decisions import stream_of
from svc_oms.store.orders import Creation, FirstAnswer
from tests.integration.oms import world
from tests.integration.oms.world import FakeRisk, Replica
from trademesh.oms.v1 import order_control_service_pb2, order_pb2


async def refolded(replica: Replica, order_id: str) -> order_pb2.Order:
    from svc_oms.codec.orders import order_message

    order = fold(decode(event) for event in await replica.log.read_stream(stream_of(order_id)))
    assert order is not None
    return order_message(order)


async def test_an_accepted_order_is_durable_and_readable(replica: Replica) -> None:
    created = await replica.create(world.order(labels={"desk": "a"}))
    assert not created.replayed
    assert created.order.state == order_pb2.ORDER_STATE_PENDING_NEW
    assert created.position.tx > 0
    row = await replica.reads.order(created.order.order_id)
    assert row is not None
    assert order_pb2.Order.FromString(row.snapshot) == created.order == await refolded(replica, created.order.order_id)


@pytest.mark.parametrize("principal", ['o"brien', "back\\slash", "{a,b}", "NULL", "tr\u00e4der \u2603", " "])
async def test_any_principal_is_stored_as_it_is(replica: Replica, principal: str) -> None:
    """Ids travel to the database as one array literal, and a principal is what the token says."""
    commands = [OrderCommand(world.order_request(), dataclasses.replace(world.USER, principal=name)) for name in ("plain", principal)]
    outcomes = await replica.create_all(commands)
    assert all(isinstance(outcome, Created) for outcome in outcomes)
    rows = await replica.database.fetch("SELECT principal FROM orders ORDER BY sequence")
    assert [row["principal"] for row in rows] == ["plain", principal]


async def test_a_refused_order_is_kept_with_every_breach(replica: Replica, risk: FakeRisk) -> None:
    risk.answer = world.refusal
    created = await replica.create(world.order())
    assert created.order.state == order_pb2.ORDER_STATE_REJECTED
    assert [breach.text for breach in created.order.reject.breaches] == ["too many", "too much"]
    assert created.order.leaves_quantity == "0"
    assert await replica.database.fetchval("SELECT count(*) FROM venue_request") == 0


async def test_a_replay_gets_the_first_answer_and_leaves_nothing(replica: Replica, other: Replica) -> None:
    first = await replica.create(world.order(client_order_id="k", quantity="10.00"))
    await replica.cancel(first.order.order_id)
    events = await replica.database.fetchval("SELECT count(*) FROM event")
    again = await other.create(world.order(client_order_id="k", quantity="10"))
    assert again.replayed
    assert (again.order, again.position) == (first.order, first.position)
    assert await replica.database.fetchval("SELECT count(*) FROM event") == events


@pytest.mark.parametrize("trouble", ["down", "undecided", "invalid"])
async def test_a_replay_gets_the_first_answer_whatever_risk_says_today(
    replica: Replica, other: Replica, risk: FakeRisk, trouble: str
) -> None:
    first = await replica.create(world.order(client_order_id="k"))
    risk.down, risk.answer = trouble == "down", world.off_tick if trouble == "invalid" else world.undecided
    commands = [world.order(client_order_id="k"), world.order(client_order_id="k", quantity="11"), world.order(client_order_id="new")]
    again, changed, new = await other.create_all(commands)
    assert again == Created(first.snapshot, first.position, replayed=True)
    assert isinstance(changed, AlreadyExistsError)
    assert isinstance(new, InvalidArgumentError if trouble == "invalid" else UnavailableError)
    reused = await other.create_all([world.order(client_order_id="k", quantity="11")])
    assert [getattr(outcome, "reason", None) for outcome in reused] == [Reason.IDEMPOTENCY_KEY_REUSED]


@pytest.mark.parametrize("down", [False, True])
async def test_another_tenant_is_told_nothing_of_a_key(replica: Replica, risk: FakeRisk, *, down: bool) -> None:
    await replica.create(world.order(client_order_id="k"))
    risk.down = down
    for quantity in ("10", "11"):
        with pytest.raises(PermissionDeniedError) as refused:
            await replica.create(world.order(world.STRANGER, client_order_id="k", quantity=quantity))
        assert refused.value.reason is Reason.ACCOUNT_NOT_ALLOWED


async def test_doubles_of_two_tenants_in_one_batch(replica: Replica) -> None:
    own, foreign = world.order(client_order_id="k"), world.order(world.STRANGER, client_order_id="k")
    created, refused = await replica.create_all([own, foreign])
    assert isinstance(created, Created)
    assert isinstance(refused, PermissionDeniedError)
    own, foreign = world.order(client_order_id="l"), world.order(world.STRANGER, client_order_id="l")
    refused, beside = await replica.create_all([foreign, own])
    assert isinstance(refused, PermissionDeniedError)
    assert isinstance(beside, AbortedError), "the stranger's refusal is not the owner's"


async def test_a_key_serves_one_command(replica: Replica) -> None:
    await replica.create(world.order(client_order_id="k"))
    with pytest.raises(AlreadyExistsError) as caught:
        await replica.create(world.order(client_order_id="k", quantity="11"))
    assert caught.value.reason is Reason.IDEMPOTENCY_KEY_REUSED


async def test_doubles_in_one_batch(replica: Replica, risk: FakeRisk) -> None:
    outcomes = await replica.create_all(
        [world.order(client_order_id="k"), world.order(client_order_id="k"), world.order(client_order_id="k", side=2)]
    )
    assert [getattr(outcome, "replayed", None) for outcome in outcomes] == [False, True, None]
    assert isinstance(outcomes[2], AlreadyExistsError)
    assert len(risk.asked) == 1


async def test_what_risk_does_not_decide_is_not_persisted(replica: Replica, risk: FakeRisk) -> None:
    risk.answer = world.off_tick
    with pytest.raises(InvalidArgumentError) as invalid:
        await replica.create(world.order(client_order_id="k"))
    assert invalid.value.reason is Reason.PRICE_OFF_TICK
    assert invalid.value.field_violations[0].field == "limit_price"
    risk.answer = world.undecided
    with pytest.raises(UnavailableError) as stale:
        await replica.create(world.order(client_order_id="k"))
    assert stale.value.reason is Reason.REFERENCE_PRICE_STALE
    risk.down = True
    with pytest.raises(UnavailableError) as down:
        await replica.create(world.order(client_order_id="k"))
    assert down.value.reason is Reason.RISK_UNAVAILABLE
    risk.down, risk.answer = False, world.approval
    assert not (await replica.create(world.order(client_order_id="k", quantity="11"))).replayed


async def test_two_replicas_with_one_key_record_one_order(replica: Replica, other: Replica) -> None:
    commands = [world.order(client_order_id=f"race-{number}") for number in range(40)]
    sides = await asyncio.gather(replica.create_all(commands), other.create_all(list(reversed(commands))))
    mine, theirs = sides[0], list(reversed(sides[1]))
    for a, b in zip(mine, theirs, strict=True):
        assert isinstance(a, Created)
        assert isinstance(b, Created)
        assert (a.order, a.position) == (b.order, b.position)
    assert await replica.database.fetchval("SELECT count(*) FROM event") == 40


async def test_an_abandoned_key_takes_no_order(replica: Replica) -> None:
    command = world.order(client_order_id="k")
    order_id = derived_order_id("ACC-1", "k")
    request = order_control_service_pb2.ResolveOrderRequest(
        orders=[order_control_service_pb2.OrderReference(order_id=order_id, account_id="ACC-1")]
    )
    resolved = await replica.control.ResolveOrder(request, world.context(None))
    assert resolved.orders[0].state == order_pb2.ORDER_STATE_ABANDONED
    assert await replica.control.ResolveOrder(request, world.context(None)) is not None
    with pytest.raises(FailedPreconditionError) as caught:
        await replica.create(command)
    assert caught.value.reason is Reason.ORDER_ABANDONED


async def test_resolving_an_order_that_exists_returns_it(replica: Replica, other: Replica) -> None:
    created = await replica.create(world.order())
    request = order_control_service_pb2.ResolveOrderRequest(
        orders=[order_control_service_pb2.OrderReference(order_id=created.order.order_id, account_id="ACC-1")]
    )
    assert (await other.control.ResolveOrder(request, world.context(None))).orders[0] == created.order


async def test_a_late_accept_meets_the_abandonment(replica: Replica, other: Replica, risk: FakeRisk) -> None:
    """Risk gave the order up while our append was under way: the append must fail, and the caller must learn it."""
    command = world.order(client_order_id="late")

    async def abandon_first(creations: list[Creation]) -> list[CommitOutcome]:
        reference = order_control_service_pb2.OrderReference(order_id=derived_order_id("ACC-1", "late"), account_id="ACC-1")
        await other.control.ResolveOrder(order_control_service_pb2.ResolveOrderRequest(orders=[reference]), world.context(None))
        return await original(creations)

    original = replica.store.create
    replica.store.create = abandon_first  # type: ignore[assignment,method-assign]
    with pytest.raises(FailedPreconditionError) as caught:
        await replica.create(command)
    assert caught.value.reason is Reason.ORDER_ABANDONED


async def test_new_orders_beside_an_unreadable_replay_keep_their_answers(replica: Replica) -> None:
    """The batch is on disk when the replay's first answer is read: that read's failure must not say that nothing was persisted."""
    known = await replica.create(world.order(client_order_id="known"))

    async def fail(order_ids: Sequence[str]) -> dict[str, FirstAnswer]:
        raise UnavailableError(Reason.DATABASE_UNAVAILABLE, "away")

    replica.store.first_answers = fail  # type: ignore[method-assign]
    batch = [world.order(client_order_id="new-1"), world.order(client_order_id="known"), world.order(client_order_id="new-2")]
    one, again, two = await replica.create_all(batch)
    assert isinstance(again, OutcomeUnknownError)
    stored = await replica.database.fetch("SELECT order_id FROM orders ORDER BY sequence")
    assert [row["order_id"] for row in stored] == [known.order.order_id, *(outcome.order.order_id for outcome in (one, two))]  # type: ignore[union-attr]


async def test_a_replay_waits_for_nobody_and_writes_nothing(replica: Replica, other: Replica) -> None:
    """A stalled transaction over an order must not hold up a batch in which that order's key comes again."""
    known = await replica.create(world.order(client_order_id="known"))
    (head,) = await replica.database.fetch("SELECT xmin::text, * FROM event_stream")
    async with replica.store.unit() as unit:
        await unit.lock([known.order.order_id])
        async with asyncio.timeout(3):
            again, new = await other.create_all([world.order(client_order_id="known"), world.order(client_order_id="new")])
            (alone,) = await other.create_all([world.order(client_order_id="known")])
    assert again == alone == Created(known.snapshot, known.position, replayed=True)
    assert isinstance(new, Created)
    assert await replica.database.fetchrow("SELECT xmin::text, * FROM event_stream WHERE stream_id = $1", head["stream_id"]) == head


async def test_a_head_without_events_does_not_stand_in_the_way(replica: Replica) -> None:
    """Whoever looked for an order that was not there has left its head at version 0."""
    order_id = derived_order_id("ACC-1", "looked-for")
    async with replica.store.unit() as unit:
        assert await unit.lock([order_id]) == {order_id: None}
    first, second = await replica.create_all([world.order(client_order_id="looked-for"), world.order(client_order_id="beside")])
    assert isinstance(first, Created)
    assert isinstance(second, Created)
    assert not first.replayed
    heads = await replica.log.heads([stream_of(first.order.order_id), stream_of(second.order.order_id)])
    assert set(heads.values()) == {1}


async def test_the_key_s_own_command_is_answered_behind_another_one(replica: Replica) -> None:
    first = await replica.create(world.order(client_order_id="k"))
    other, again, third = await replica.create_all(
        [world.order(client_order_id="k", quantity="11"), world.order(client_order_id="k"), world.order(client_order_id="k", quantity="12")]
    )
    assert again == Created(first.snapshot, first.position, replayed=True)
    assert [getattr(outcome, "reason", None) for outcome in (other, third)] == [Reason.IDEMPOTENCY_KEY_REUSED] * 2


@pytest.mark.parametrize("recorded", [True, False])
async def test_a_lost_answer_is_read_back_by_key(replica: Replica, *, recorded: bool) -> None:
    original = replica.store.create

    async def lose_the_answer(creations: list[Creation]) -> list[CommitOutcome]:
        if recorded:
            await original(creations)
        raise OutcomeUnknownError(Reason.OUTCOME_UNKNOWN, "the answer was lost")

    replica.store.create = lose_the_answer  # type: ignore[assignment,method-assign]
    command = world.order()
    if recorded:
        created = await replica.create(command)
        assert not created.replayed
        assert await replica.reads.order(created.order.order_id) is not None
    else:
        with pytest.raises(OutcomeUnknownError):
            await replica.create(command)
