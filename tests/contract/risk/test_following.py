"""svc_oms's log folded round by round: every event counts once, whatever repeats, dies or happens beside it. PostgreSQL and its double."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from decimal import Decimal
from typing import Any

import pytest

from kernel.errors import LeaseLostError
from kernel.ports import LOG_START, HeldLease, LogPosition, RecordedEvent
from kernel.projection_store import TRANSACTION_EVENTS_MAX, VersionGapError
from svc_risk.consumer.orders import NAME, SOURCE, Reservations
from svc_risk.domain.check import OrderCheck
from svc_risk.domain.vocabulary import CheckKind, OrderState
from svc_risk.store.facts import Resolution
from svc_risk.store.ledger import Ledger, Wanted
from tests.contract.risk.conftest import Pair, Replica
from tests.contract.risk.test_decisions import REPLACE_ID, decide, held
from tests.integration.risk.orders import NOW, accepted, canceled, event, filled
from tests.integration.risk.world import buy, sell
from trademesh.oms.v1 import events_pb2

FILLED, PARTIAL = OrderState.FILLED, OrderState.PARTIALLY_FILLED
ROUTED, ACKNOWLEDGED = events_pb2.OrderRouted(), events_pb2.OrderAcknowledged()


async def lead(replica: Replica) -> HeldLease:
    lease = await replica.stores.leases.acquire(f"projection:{NAME}:{SOURCE}")
    assert lease is not None
    return lease


async def follow(
    replica: Replica, lease: HeldLease, *events: RecordedEvent, model: Reservations | None = None, through: LogPosition | None = None
) -> int:
    """Apply a round."""
    model = model or Reservations(replica.stores.facts)
    return await replica.stores.projections.apply(lease, NAME, SOURCE, through or events[-1].position, events, model)


async def cursor(replica: Replica) -> LogPosition:
    return await replica.stores.projections.load(NAME, SOURCE)


async def folded(replica: Replica, *orders: OrderCheck) -> list[int]:
    """Up to which version each order's reservation has its events; 0 for none."""
    async with replica.stores.database.transaction() as transaction:
        found = dict(await replica.stores.facts.versions(transaction, [order.order_id for order in orders]))
    return [found.get(order.order_id, 0) for order in orders]


async def unconfirmed(replica: Replica) -> set[str]:
    return {orphan.order_id for orphan in await replica.stores.facts.orphans(0.0)}


async def test_acceptances_confirm_what_was_reserved_and_their_repetition_counts_nothing(pair: Pair) -> None:
    first, second, third = buy("10"), sell("4"), buy("7", account="ACC-2")
    await decide(pair.one, first, second, third)
    assert await unconfirmed(pair.one) == {first.order_id, second.order_id, third.order_id}
    lease = await lead(pair.one)
    told = [accepted(first), accepted(second)]
    assert await follow(pair.one, lease, *told) == 2
    assert await unconfirmed(pair.one) == {third.order_id}
    assert await cursor(pair.one) == told[-1].position
    assert await follow(pair.one, lease, *told, accepted(third)) == 1
    assert await follow(pair.one, lease, *told) == 0
    assert await folded(pair.one, first, second, third) == [1, 1, 1]
    assert len(await pair.one.stores.reads.exposure_history("ACC-1", 2**31 - 1, 10)) == 2, "no exposure has moved since the checks"
    assert await held(pair.one) == ("0", "10", "4")


async def test_events_that_move_nothing_raise_the_version_alone(pair: Pair) -> None:
    order = buy("10")
    await decide(pair.one, order)
    lease = await lead(pair.one)
    routed, acknowledged = event(order.order_id, 2, ROUTED), event(order.order_id, 3, ACKNOWLEDGED)
    assert await follow(pair.one, lease, accepted(order), routed) == 2
    assert await follow(pair.one, lease, routed, acknowledged) == 1, "a part of a repetition"
    assert await folded(pair.one, order) == [3]
    assert await follow(pair.one, lease, filled(order, 4, "4", PARTIAL), event(order.order_id, 5, events_pb2.CancelRequested())) == 2
    assert await follow(pair.one, lease, filled(order, 4, "4", PARTIAL), canceled(order, 6)) == 1
    assert await folded(pair.one, order) == [6]
    assert await held(pair.one) == ("4", "0", "0")


async def test_an_order_that_is_accepted_and_filled_in_one_round(pair: Pair) -> None:
    plain, moving, other = buy("10"), buy("6"), sell("5")
    await decide(pair.one, plain, moving, other)
    lease = await lead(pair.one)
    told = [
        accepted(moving), accepted(plain), event(moving.order_id, 2, ROUTED), filled(moving, 3, "6", FILLED), accepted(other),
        event(moving.order_id, 4, ROUTED),
    ]  # fmt: skip
    for applied in (6, 0):
        assert await follow(pair.one, lease, *told) == applied
        assert await folded(pair.one, plain, moving, other) == [1, 4, 1]
        assert await held(pair.one) == ("6", "10", "5")
        assert await unconfirmed(pair.one) == set()


async def test_a_missing_event_is_found_and_what_came_with_it_is_told_again_without_harm(pair: Pair) -> None:
    order, other = buy("10"), buy("1")
    await decide(pair.one, order, other)
    lease = await lead(pair.one)
    await follow(pair.one, lease, accepted(order))
    at = await cursor(pair.one)
    for late in (event(order.order_id, 3, ACKNOWLEDGED), filled(order, 3, "1", PARTIAL)):
        with pytest.raises(VersionGapError, match="after version 1"):
            await follow(pair.one, lease, late, accepted(other))
        assert (await cursor(pair.one), await folded(pair.one, order)) == (at, [1])
    with pytest.raises(VersionGapError, match="after version 2"):
        await follow(pair.one, lease, event(order.order_id, 2, ROUTED), filled(order, 4, "1", PARTIAL))
    assert await folded(pair.one, order) == [1]
    assert await follow(pair.one, lease, event(order.order_id, 2, ROUTED), filled(order, 3, "1", PARTIAL), accepted(other)) in (2, 3)
    assert await folded(pair.one, order, other) == [3, 1]
    assert await held(pair.one) == ("1", "10", "0")


async def test_an_acceptance_confirms_what_was_reserved_whatever_its_terms_say(pair: Pair) -> None:
    # The order's id and its reservation's hash bind the terms, so they cannot differ; what risk has decided would stand.
    order = buy("10")
    await decide(pair.one, order)
    lease = await lead(pair.one)
    assert await follow(pair.one, lease, accepted(order._replace(quantity=Decimal(11)))) == 1
    assert (await folded(pair.one, order), await held(pair.one)) == ([1], ("0", "10", "0"))


async def test_streams_without_a_reservation_are_remembered_in_the_inbox(pair: Pair) -> None:
    stranger, unreserved, ended = buy("1"), buy("9"), buy("3")
    lease = await lead(pair.one)
    told = [
        event(stranger.order_id, 1, events_pb2.OrderAbandoned(account_id="ACC-1")),
        RecordedEvent(LogPosition(10**6, 1), "kill-firm-*", 1, "oms.v1.KillSwitchApplied", b"", b"", NOW),
        accepted(unreserved),
        event(ended.order_id, 1, events_pb2.OrderRejected()),
    ]
    for applied in (4, 0):
        assert await follow(pair.one, lease, *told) == applied
        assert await folded(pair.one, stranger, unreserved, ended) == [0, 1, 0]
        assert await held(pair.one) == ("0", "9", "0")
    assert await follow(pair.one, lease, event(stranger.order_id, 2, ROUTED)) == 1
    with pytest.raises(VersionGapError, match="after version 2"):
        await follow(pair.one, lease, event(stranger.order_id, 4, ROUTED))
    # The check comes after all, and its reservation knows nothing of what the inbox has; the sweep then gives it up.
    await decide(pair.one, stranger)
    assert await follow(pair.one, lease, told[0], event(stranger.order_id, 2, ROUTED), event(stranger.order_id, 3, ROUTED)) == 1
    assert await follow(pair.one, lease, event(stranger.order_id, 4, ROUTED)) == 1


async def test_a_refused_order_ends_where_it_began(pair: Pair) -> None:
    refused, unreserved = buy("10", "200"), buy("3")
    assert await decide(pair.one, refused, unreserved) != ["approval", "approval"]
    lease = await lead(pair.one)
    told = [event(refused.order_id, 1, events_pb2.OrderRejected()), event(unreserved.order_id, 1, events_pb2.OrderRejected())]
    for applied in (2, 0):
        assert await follow(pair.one, lease, *told) == applied
        assert await folded(pair.one, refused, unreserved) == [1, 1]
        assert (await pair.one.state()).reservation_count == 0, "what was reserved for a rejected order is released"


async def test_what_the_sweep_has_settled_the_log_only_confirms(pair: Pair) -> None:
    known, given_up = buy("10"), buy("5")
    await decide(pair.one, known, given_up)
    pair.orders.states[known.order_id] = OrderState.NEW
    found = await pair.one.stores.facts.orphans(0.0)
    answer = await pair.orders.resolve([(orphan.order_id, orphan.account_id) for orphan in found])
    states = {order.order_id: order.state for order in answer.orders}
    async with pair.one.stores.database.transaction() as transaction:
        resolutions = [Resolution(orphan, states[orphan.order_id]) for orphan in found]
        await pair.one.stores.facts.settle(transaction, resolutions, folded=True, bound_seconds=0.0)
    assert await held(pair.one) == ("0", "10", "0")
    lease = await lead(pair.one)
    assert await follow(pair.one, lease, accepted(known), event(given_up.order_id, 1, events_pb2.OrderAbandoned(account_id="ACC-1"))) == 1
    assert await folded(pair.one, known, given_up) == [1, 1]
    assert await held(pair.one) == ("0", "10", "0")


async def test_a_replica_that_takes_over_repeats_the_round_and_the_old_one_writes_nothing(pair: Pair) -> None:
    orders = [buy(str(number)) for number in range(1, 9)]
    await decide(pair.one, *orders)
    old = await lead(pair.one)
    told = [accepted(order) for order in orders]
    assert await follow(pair.one, old, *told[:4]) == 4
    await pair.one.stores.leases.release(old)
    new = await lead(pair.other)
    with pytest.raises(LeaseLostError):
        await follow(pair.one, old, *told[4:])
    assert await folded(pair.one, *orders) == [1] * 4 + [0] * 4
    assert await cursor(pair.other) == told[3].position
    # From before the old one's cursor: only what it had not done is new.
    assert await follow(pair.other, new, *told) == 4
    assert await folded(pair.one, *orders) == [1] * 8


class Dying(Reservations):
    """Dies after the plain streams were settled, before the rest."""

    async def apply(self, transaction: Any, events: Sequence[RecordedEvent]) -> Collection[str]:
        raise RuntimeError("gone")


async def test_a_replica_that_dies_between_both_transactions_of_a_round_is_repeated(pair: Pair) -> None:
    plain, moving = buy("10"), buy("6")
    await decide(pair.one, plain, moving)
    lease = await lead(pair.one)
    told = [accepted(plain), accepted(moving), filled(moving, 2, "6", FILLED)]
    with pytest.raises(RuntimeError, match="gone"):
        await follow(pair.one, lease, *told, model=Dying(pair.one.stores.facts))
    assert (await cursor(pair.one), await folded(pair.one, plain, moving)) == (LOG_START, [1, 0])
    assert await follow(pair.one, lease, *told) == 2
    assert await cursor(pair.one) == told[-1].position
    assert await held(pair.one) == ("6", "10", "0")


async def test_a_round_of_many_moves_is_several_transactions_and_one_cursor(pair: Pair) -> None:
    count = TRANSACTION_EVENTS_MAX + 10
    orders = [buy("1") for _ in range(count)]
    await decide(pair.one, *orders)
    lease = await lead(pair.one)
    told = [said for order in orders for said in (accepted(order), filled(order, 2, "1", FILLED, exec_id=order.order_id))]
    # Without its predecessor the last event of all is refused, with its own transaction and not with those before it.
    gap = filled(orders[0], 4, "1", FILLED)
    with pytest.raises(VersionGapError):
        await follow(pair.one, lease, *told, gap)
    assert await cursor(pair.one) == LOG_START
    assert (await folded(pair.one, *orders)).count(2) == TRANSACTION_EVENTS_MAX
    assert await follow(pair.one, lease, *told) == 2 * count - 2 * TRANSACTION_EVENTS_MAX
    assert await cursor(pair.one) == told[-1].position
    assert await held(pair.one) == (str(count), "0", "0")


def replace(order: OrderCheck) -> OrderCheck:
    return order._replace(kind=CheckKind.REPLACE, request_id=REPLACE_ID, quantity=Decimal(25), payload_hash=b"r" * 32)


@pytest.mark.parametrize("after", [accepted, lambda order: event(order.order_id, 2, ROUTED)], ids=["confirmed", "noted"])
async def test_a_replace_under_way_neither_waits_for_a_confirmation_nor_undoes_it(pair: Pair, after: Any) -> None:
    order = buy("10")
    await decide(pair.one, order)
    lease = await lead(pair.other)
    said = after(order)
    if said.version == 2:
        await follow(pair.other, lease, accepted(order))
    ledger, more = Ledger(pair.one.stores.log), replace(order)
    wanted = Wanted(
        accounts={"ACC-1"}, traders={"ada"}, positions={("ACC-1", "AAPL")}, orders={order.order_id}, replaces=[REPLACE_ID],
        instruments={"AAPL"},
    )  # fmt: skip
    async with pair.one.stores.database.transaction() as transaction:
        book = await ledger.open(transaction, wanted)
        book.check(more)
        async with asyncio.timeout(2):
            assert await follow(pair.other, lease, said) == 1, "though the account is locked"
        await ledger.write(transaction, book, [b"an answer"])
    assert await folded(pair.one, order) == [said.version]
    assert await unconfirmed(pair.one) == {order.order_id}, "of its replace, nobody has told yet"
    assert await held(pair.one) == ("0", "25", "0")
    asked = events_pb2.ReplaceRequested(request_id=REPLACE_ID, quantity="25", limit_price="100")
    await follow(pair.other, lease, event(order.order_id, said.version + 1, asked))
    assert await unconfirmed(pair.one) == set()


async def test_replaces_and_confirmations_in_any_order_end_alike(pair: Pair) -> None:
    orders = [buy(str(number)) for number in range(1, 13)]
    await decide(pair.one, *orders)
    lease = await lead(pair.other)
    checks = [
        replace(order)._replace(request_id=f"00000000-0000-7000-8000-{number:012d}", quantity=order.quantity + 1)
        for number, order in enumerate(orders)
    ]

    async def ask() -> None:
        for start in (6, 0):
            assert await decide(pair.one, *checks[start : start + 6]) == ["approval"] * 6

    async def tell() -> None:
        for start in range(0, 12, 4):
            await follow(pair.other, lease, *(accepted(order) for order in reversed(orders[start : start + 4])))

    await asyncio.gather(ask(), tell())
    assert await folded(pair.one, *orders) == [1] * 12
    assert await held(pair.one) == ("0", str(sum(range(1, 13)) + 12), "0")


async def test_replaces_that_were_approved_at_once_are_settled_each_by_its_own_evidence(pair: Pair) -> None:
    order = buy("10")
    await decide(pair.one, order)
    lease = await lead(pair.other)
    await follow(pair.other, lease, accepted(order))
    checks = {
        quantity: replace(order)._replace(request_id=f"00000000-0000-7000-8000-{quantity:012d}", quantity=Decimal(quantity))
        for quantity in (25, 40, 30)
    }
    # Alone and together with others, by both replicas.
    assert await decide(pair.one, checks[25]) == ["approval"]
    assert await decide(pair.other, checks[40], checks[30]) == ["approval"] * 2
    assert await held(pair.one) == ("0", "40", "0")

    def asked(version: int, quantity: int) -> RecordedEvent:
        message = events_pb2.ReplaceRequested(request_id=checks[quantity].request_id, quantity=str(quantity), limit_price="100")
        return event(order.order_id, version, message)

    assert await follow(pair.other, lease, asked(2, 25)) == 1
    assert len(await pair.one.stores.facts.orphans(0.0)) == 2
    rejected = event(order.order_id, 3, events_pb2.ReplaceRejected(request_id=checks[40].request_id))
    for applied in (1, 0):
        assert await follow(pair.other, lease, rejected) == applied
        assert await held(pair.one) == ("0", "30", "0"), "at once"
    assert await follow(pair.other, lease, event(order.order_id, 4, events_pb2.OrderReplaced(quantity="25", limit_price="100"))) == 1
    assert await held(pair.one) == ("0", "30", "0"), "the third may still be recorded"
    (orphan,) = await pair.one.stores.facts.orphans(0.0)
    assert orphan.request_id == checks[30].request_id
    async with pair.one.stores.database.transaction() as transaction:
        await pair.one.stores.facts.settle(transaction, [Resolution(orphan, OrderState.NEW)], folded=True, bound_seconds=0.0)
    assert await held(pair.one) == ("0", "25", "0")
    assert await unconfirmed(pair.one) == set()


async def test_a_cancel_releases_every_replace_under_way_and_what_is_said_of_them_later_counts_nothing(pair: Pair) -> None:
    order = buy("10")
    await decide(pair.one, order)
    lease = await lead(pair.other)
    more, most = (
        replace(order)._replace(request_id=f"00000000-0000-7000-8000-{quantity:012d}", quantity=Decimal(quantity)) for quantity in (25, 40)
    )
    assert await decide(pair.one, more, most) == ["approval"] * 2
    assert await follow(pair.other, lease, accepted(order), canceled(order, 2)) == 2
    assert await held(pair.one) == ("0", "0", "0")
    assert (await pair.one.state()).reservation_count == 0
    assert await unconfirmed(pair.one) == set()
    assert await follow(pair.other, lease, event(order.order_id, 3, events_pb2.ReplaceRejected(request_id=more.request_id))) == 1
    assert await held(pair.one) == ("0", "0", "0")


async def test_an_approval_that_was_given_up_is_decided_anew_and_one_that_is_asked_for_again_is_not_given_up(pair: Pair) -> None:
    order = buy("10")
    await decide(pair.one, order)
    lease = await lead(pair.other)
    await follow(pair.other, lease, accepted(order))
    more = replace(order)
    assert await decide(pair.one, more) == ["approval"]
    (orphan,) = await pair.one.stores.facts.orphans(0.0)

    async def settle(bound_seconds: float) -> None:
        async with pair.one.stores.database.transaction() as transaction:
            await pair.one.stores.facts.settle(transaction, [Resolution(orphan, OrderState.NEW)], folded=True, bound_seconds=bound_seconds)

    assert await decide(pair.other, more) == ["approval"]
    await settle(30.0)
    assert await held(pair.one) == ("0", "25", "0"), "as young as the last question"
    await settle(0.0)
    assert await held(pair.one) == ("0", "10", "0")
    assert await decide(pair.one, more) == ["approval"]
    assert await held(pair.one) == ("0", "25", "0")
