"""Cancels and replaces in two round trips, and what becomes of them when somebody else is faster: of PostgreSQL and of its double."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from kernel.errors import AlreadyExistsError, FailedPreconditionError, NotFoundError, OutcomeUnknownError, PermissionDeniedError
from kernel.ports import LogPosition
from svc_oms.domain import Action, OrderState, ReportKind
from svc_oms.servicer.changes import CancelAllAnswer, Change, Changed, client_cancel, own_cancel
from svc_oms.servicer.replaces import ReplaceChange
from svc_oms.store import orders
from svc_oms.store.decisions import stream_of
from svc_oms.store.keys import KnownAnswer, read_keys, write_keys
from tests.contract.oms.conftest import Pair
from tests.contract.oms.wiretap import Wiretap
from tests.integration.oms import world
from tests.integration.oms.world import Replica
from tests.unit.oms import make
from trademesh.oms.v1 import order_service_pb2

IN_SIGHT = [orders._LOOK, orders._CHANGE]


async def working(replica: Replica, **changes: Any) -> str:
    """Create an order, and let the venue acknowledge it."""
    created = await replica.create(world.order(**changes))
    await replica.venue(created.order.order_id, make.report(ReportKind.ACKNOWLEDGED))
    return created.order.order_id


def cancel(order_id: str, request_id: str, command_hash: bytes = b"c" * 32) -> Change:
    """Return a client's cancel."""
    return client_cancel(world.USER, "ACC-1", order_id, request_id, command_hash)


def replacement(replica: Replica, order_id: str, request_id: str) -> Change:
    """Return a client's replace that risk has just approved."""
    return ReplaceChange("ACC-1", world.TENANT, order_id, make.replacement("20", request_id=request_id, time=replica.clock.now()))


async def served(replica: Replica, *changes: Change) -> list[Any]:
    """Serve changes as one batch; of each, the answer's bytes and whether it is a replay, or the type of its error."""
    outcomes = await replica.lanes.requests.submit_many(changes)
    return [(o.response.SerializeToString(), o.replayed) if isinstance(o, Changed) else type(o) for o in outcomes]


async def versions(pair: Pair, *order_ids: str) -> list[int]:
    """Return how many events the orders have."""
    heads = await pair.one.log.heads([stream_of(order_id) for order_id in order_ids])
    return [heads[stream_of(order_id)] for order_id in order_ids]


async def test_a_cancel_takes_two_round_trips_and_its_replay_or_refusal_one(pair: Pair) -> None:
    order_id, request_id = await working(pair.one), pair.one.ids.new_id()
    for replica, request, sent in [
        (pair.one, request_id, IN_SIGHT),
        (pair.one, request_id, IN_SIGHT[:1]),
        (pair.other, request_id, IN_SIGHT[:1]),
    ]:
        tap = Wiretap(replica.database)
        answer = await replica.cancel(order_id, request_id=request)
        assert tap.sent == sent
        assert answer.order.pending_action == Action.CANCEL
    tap = Wiretap(pair.other.database)
    with pytest.raises(FailedPreconditionError):
        await pair.other.cancel(order_id)
    assert tap.sent == IN_SIGHT[:1]


async def test_a_batch_is_answered_with_the_position_of_its_last_event(pair: Pair) -> None:
    order_ids = [await working(pair.one) for _ in range(3)]
    keys = [pair.one.ids.new_id() for _ in order_ids]
    batch = [cancel(order_id, key) for order_id, key in zip(order_ids, keys, strict=True)]
    outcomes = await pair.one.lanes.requests.submit_many(batch)
    streams = await pair.one.log.read_streams([stream_of(order_id) for order_id in order_ids])
    last = max(events[-1].position for events in streams.values())
    for outcome in outcomes:
        assert isinstance(outcome, Changed)
        assert isinstance(outcome.response, order_service_pb2.CancelOrderResponse)
        assert (outcome.response.log_position.tx, outcome.response.log_position.position) == (last.tx, last.position)


@pytest.mark.parametrize("beaten", [False, True])
async def test_a_replay_is_the_first_answer_byte_for_byte(pair: Pair, beaten: bool) -> None:
    """Whichever way the first answer was recorded; the replay of a batch's twin as well."""
    one, two, gone = await working(pair.one), await working(pair.one), await working(pair.one)
    await pair.one.venue(gone, make.report(ReportKind.CANCELED))
    batch = [cancel(one, pair.one.ids.new_id()), replacement(pair.one, two, pair.one.ids.new_id())]
    if beaten:
        Wiretap(pair.one.database).before[orders._CHANGE] = lambda: pair.other.venue(one, make.fill("1"))
    first = await served(pair.one, *batch, batch[0])
    assert first[2] == (first[0][0], True)
    assert await served(pair.other, *batch) == [(answer, True) for answer, _ in first[:2]]
    # Nothing is recorded of a replace of what has ended; the refusal is its key's answer all the same.
    refused = replacement(pair.one, gone, pair.one.ids.new_id())
    if beaten:
        Wiretap(pair.one.database).before[orders._CHANGE] = lambda: pair.other.venue(gone, make.fill("1"))
    before = await versions(pair, gone)
    (answered,) = await served(pair.one, refused)
    assert await versions(pair, gone) == [before[0] + beaten]
    response = order_service_pb2.ReplaceOrderResponse.FromString(answered[0])
    assert (response.HasField("log_position"), response.log_position.position) == (True, 0)
    assert response.order.filled_quantity == ("1" if beaten else "0")
    assert await served(pair.other, refused) == [(answered[0], True)]


async def test_an_answer_from_before_the_position_had_columns_is_replayed_as_it_is(pair: Pair) -> None:
    order_id, request_id = await working(pair.one), pair.one.ids.new_id()
    change = cancel(order_id, request_id)
    first = order_service_pb2.CancelOrderResponse()
    first.order.order_id, first.log_position.tx, first.log_position.position = order_id, 700, 5
    async with pair.one.store.unit() as unit:
        await write_keys(unit.transaction, [(("ACC-1", request_id), KnownAnswer(change.command_hash, first.SerializeToString()))])
    assert await served(pair.other, change) == [(first.SerializeToString(), True)]


async def test_a_cancel_that_a_fill_overtakes_is_decided_again(pair: Pair) -> None:
    order_id, other_id = await working(pair.one), await working(pair.one)
    tap = Wiretap(pair.one.database)
    tap.before[orders._CHANGE] = lambda: pair.other.venue(order_id, make.fill("4"))
    answer = await pair.one.cancel(order_id)
    assert tap.sent[:2] == IN_SIGHT
    assert tap.sent[-1] == "COMMIT"
    assert (answer.order.filled_quantity, answer.order.pending_action) == ("4", Action.CANCEL)
    # One order of a batch has ended: the whole batch is decided again, and only that one is refused.
    tap = Wiretap(pair.one.database)
    done = await working(pair.one)
    tap.before[orders._CHANGE] = lambda: pair.other.venue(done, make.fill("10"))
    outcomes = await served(pair.one, cancel(done, pair.one.ids.new_id()), cancel(other_id, pair.one.ids.new_id()))
    assert outcomes[0] is FailedPreconditionError
    assert isinstance(outcomes[1], tuple)
    found = await pair.other.store.load_many([done, other_id])
    assert (found[done].state, found[other_id].pending_action) == (OrderState.FILLED, Action.CANCEL)
    assert len(found[other_id].requests) == 1


async def test_one_key_at_once_on_two_replicas_is_one_request_and_one_answer(pair: Pair) -> None:
    for _ in range(5):
        order_id, request_id = await working(pair.one), pair.one.ids.new_id()
        both = asyncio.Barrier(2)
        for replica in (pair.one, pair.other):
            Wiretap(replica.database).before[orders._CHANGE] = both.wait
        first, second = await asyncio.gather(*(served(replica, cancel(order_id, request_id)) for replica in (pair.one, pair.other)))
        assert first[0][0] == second[0][0]
        assert sorted((first[0][1], second[0][1])) == [False, True]
        # Created, sent, acknowledged, and once asked to be canceled.
        assert await versions(pair, order_id) == [4]


async def test_one_key_at_once_for_two_orders_serves_one_of_them(pair: Pair) -> None:
    one, two = await working(pair.one), await working(pair.one)
    request_id, both = pair.one.ids.new_id(), asyncio.Barrier(2)
    for replica in (pair.one, pair.other):
        Wiretap(replica.database).before[orders._CHANGE] = both.wait
    outcomes = await asyncio.gather(
        served(pair.one, cancel(one, request_id, b"1" * 32)), served(pair.other, cancel(two, request_id, b"2" * 32))
    )
    assert sum(outcome == [AlreadyExistsError] for outcome in outcomes) == 1
    assert sorted(await versions(pair, one, two)) == [3, 4]
    # And afterwards, one after the other.
    third = await working(pair.one)
    assert await served(pair.one, cancel(third, request_id, b"3" * 32)) == [AlreadyExistsError]
    assert await versions(pair, third) == [3]


async def test_what_the_caller_may_not_see_or_does_not_exist_is_refused_at_the_look(pair: Pair) -> None:
    order_id, request_id = await working(pair.one), pair.one.ids.new_id()
    await pair.one.cancel(order_id, request_id=request_id)
    unknown = make.terms(client_order_id="none").order_id
    for replica in (pair.one, pair.other):
        tap = Wiretap(replica.database)
        with pytest.raises(PermissionDeniedError):
            await replica.cancel(order_id, world.STRANGER, request_id=request_id)
        with pytest.raises(NotFoundError):
            await replica.cancel(order_id, account_id="ACC-2")
        with pytest.raises(NotFoundError):
            await replica.cancel(unknown)
        assert tap.sent == IN_SIGHT[:1] * 3
    assert await versions(pair, unknown) == [0]


async def test_an_answer_that_was_lost_is_read_back_by_key(pair: Pair) -> None:
    order_id, request_id = await working(pair.one), pair.one.ids.new_id()
    stranger = client_cancel(world.STRANGER, "ACC-1", order_id, request_id, b"c" * 32)
    tap = Wiretap(pair.one.database)
    tap.lost.add(orders._CHANGE)
    first, denied = await served(pair.one, cancel(order_id, request_id), stranger)
    assert denied is PermissionDeniedError
    assert await served(pair.other, cancel(order_id, request_id)) == [(first[0], True)]
    assert await versions(pair, order_id) == [4]


async def test_a_write_that_was_lost_is_unknown_and_asked_again(pair: Pair) -> None:
    order_id, request_id = await working(pair.one), pair.one.ids.new_id()
    Wiretap(pair.one.database).cut.add(orders._CHANGE)
    with pytest.raises(OutcomeUnknownError):
        await pair.one.cancel(order_id, request_id=request_id)
    assert await read_keys(pair.other.database, [("ACC-1", request_id)]) == {}
    assert (await pair.one.cancel(order_id, request_id=request_id)).order.pending_action == Action.CANCEL


async def test_what_has_no_key_or_no_order_is_served_under_locks(pair: Pair) -> None:
    order_id, other_id = await working(pair.one), await working(pair.one)
    order = await pair.one.store.load(order_id)
    assert order is not None
    tap = Wiretap(pair.one.database)
    (answered,) = await served(pair.one, own_cancel(order, "kill-switch/firm", pair.one.ids.new_id()))
    assert isinstance(answered, tuple)
    end = CancelAllAnswer("ACC-1", pair.one.ids.new_id(), b"a" * 32, (order_id,), LogPosition(700, 5))
    batch = [cancel(other_id, pair.one.ids.new_id()), end]
    first = await served(pair.one, *batch)
    assert not {orders._LOOK, orders._CHANGE} & set(tap.sent)
    all_answer = order_service_pb2.CancelAllOrdersResponse.FromString(first[1][0])
    assert (all_answer.log_position.tx, all_answer.log_position.position) == (700, 5)
    assert await served(pair.other, *batch) == [(answer, True) for answer, _ in first]
