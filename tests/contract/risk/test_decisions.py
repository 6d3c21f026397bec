"""Checks, facts and orphans: what is decided, recorded and released. The same of PostgreSQL and of its double."""

from __future__ import annotations

import asyncio
from decimal import Decimal

import pytest

from kernel.errors import LeaseLostError
from kernel.ports import LogPosition
from svc_risk.consumer import orphans
from svc_risk.domain.check import OrderCheck
from svc_risk.domain.vocabulary import CheckKind, LimitScope, LimitType, OrderState
from tests.contract.risk.conftest import Pair, Replica
from tests.integration.risk.orders import accepted, canceled, event, filled
from tests.integration.risk.world import buy, sell
from trademesh.error.v1 import error_reason_pb2
from trademesh.oms.v1 import events_pb2
from trademesh.risk.v1 import pre_trade_service_pb2

ACCOUNT, TRADER = LimitScope.ACCOUNT, LimitScope.TRADER
FILLED, PARTIAL, CANCELED = OrderState.FILLED, OrderState.PARTIALLY_FILLED, OrderState.CANCELED
REPLACE_ID = "00000000-0000-7000-8000-000000000009"


def outcome(result: pre_trade_service_pb2.OrderCheckResult) -> str:
    kind = result.WhichOneof("outcome")
    if kind == "approval":
        return kind
    reasons = [breach.reason for breach in result.refusal.breaches] if kind == "refusal" else [getattr(result, str(kind)).reason]
    return ",".join(error_reason_pb2.ErrorReason.Name(reason).removeprefix("ERROR_REASON_") for reason in reasons)


async def decide(replica: Replica, *checks: OrderCheck) -> list[str]:
    return [outcome(answer.result) for answer in await replica.stores.checks.decide(checks)]


async def fold(replica: Replica, *events: object) -> None:
    async with replica.stores.database.transaction() as transaction:
        await replica.stores.facts.fold(transaction, events)  # type: ignore[arg-type]


async def held(replica: Replica, account_id: str = "ACC-1", instrument_id: str = "AAPL") -> tuple[str, str, str]:
    """Position, open buys and open sells in quantity."""
    found = {item.instrument_id: item for item in (await replica.state(account_id)).instruments}
    item = found[instrument_id]
    return item.position_quantity, item.open_buy_quantity, item.open_sell_quantity


async def test_an_approval_is_seen_by_the_other_replica_and_in_the_account_s_history(pair: Pair) -> None:
    answers = await pair.one.stores.checks.decide([buy("10"), sell("3", "101"), buy("1", account="ACC-9"), buy("5", account="ACC-2")])
    assert [outcome(answer.result) for answer in answers] == ["approval", "approval", "ACCOUNT_NOT_ALLOWED", "approval"]
    assert answers[0].result.approval.reserved_notional == "1000"
    state = await pair.other.state()
    assert (state.open_buy_notional, state.open_sell_notional, state.reservation_count) == ("1000", "303", 2)
    history = await pair.other.stores.reads.exposure_history("ACC-1", 2**31 - 1, 10)
    assert [(item.version, item.type) for item in history] == [(2, "risk.v1.ExposureReserved"), (1, "risk.v1.ExposureReserved")]


async def test_two_replicas_at_once_never_pass_a_limit(pair: Pair) -> None:
    await pair.one.limit(ACCOUNT, "ACC-1", LimitType.OPEN_EXPOSURE, "5000")
    # Accounts in opposite order: only sorted locks keep the batches from waiting for each other.
    names = ["ACC-1", "ACC-2"] * 6

    async def hammer(replica: Replica, accounts: list[str]) -> list[str]:
        return await decide(replica, *(buy(str(number + 1), account=account) for number, account in enumerate(accounts)))

    work = [hammer(replica, order) for replica in (pair.one, pair.other) for order in (names, names[::-1])]
    outcomes = [text for texts in await asyncio.gather(*work) for text in texts]
    assert set(outcomes) == {"approval", "OPEN_EXPOSURE_EXCEEDED"}
    state = await pair.one.state()
    assert Decimal(4_000) < Decimal(state.open_buy_notional) <= Decimal(5_000)


async def test_a_replay_gives_the_first_answer_and_reserves_once(pair: Pair) -> None:
    approved, refused = buy("10"), buy("10", "200")
    answers = await asyncio.gather(*(replica.stores.checks.decide([approved, refused]) for replica in (pair.one, pair.other) * 3))
    assert len({answer[0].result.SerializeToString() for answer in answers}) == 1
    assert len({answer[1].result.SerializeToString() for answer in answers}) == 1
    await pair.one.quote("150")
    assert await decide(pair.other, approved, approved._replace(payload_hash=b"x" * 32)) == ["approval", "IDEMPOTENCY_KEY_REUSED"]
    assert (await pair.one.state()).reservation_count == 1


async def test_the_same_order_twice_within_the_window_is_a_duplicate(pair: Pair) -> None:
    await pair.one.limit(ACCOUNT, "ACC-1", LimitType.DUPLICATE_WINDOW, "60")
    first = buy("7")
    assert await decide(pair.one, first) == ["approval"]
    assert await decide(pair.other, buy("7"), buy("8"), buy("7", account="ACC-2")) == ["DUPLICATE_ORDER", "approval", "approval"]


async def test_messages_are_counted_by_account_and_by_trader(pair: Pair) -> None:
    await pair.one.limit(ACCOUNT, "ACC-1", LimitType.MESSAGE_RATE, "2")
    await pair.one.limit(TRADER, "ada", LimitType.MESSAGE_RATE, "3")
    assert await decide(pair.one, buy("1"), buy("2"), buy("3")) == ["approval", "approval", "MESSAGE_RATE_EXCEEDED"]
    assert await decide(pair.other, buy("4", account="ACC-2"), buy("5", account="ACC-2")) == ["approval", "MESSAGE_RATE_EXCEEDED"]


async def test_a_policy_that_changed_binds_the_next_decision_of_every_replica(pair: Pair) -> None:
    assert await decide(pair.one, buy("10")) == await decide(pair.other, buy("10")) == ["approval"]
    await pair.one.limit(ACCOUNT, "*", LimitType.MAX_NOTIONAL, "999")
    assert await decide(pair.other, buy("10"), buy("9")) == ["MAX_NOTIONAL_EXCEEDED", "approval"]
    await pair.other.limit(ACCOUNT, "ACC-1", LimitType.MAX_NOTIONAL, "2000")
    assert await decide(pair.one, buy("10"), buy("10", account="ACC-2")) == ["approval", "MAX_NOTIONAL_EXCEEDED"]


async def test_orders_move_from_reserved_to_position_and_repetitions_do_not_count(pair: Pair) -> None:
    first, second, third = buy("10"), sell("4", "101"), buy("7", account="ACC-2")
    await decide(pair.one, first, second, third)
    await fold(pair.other, accepted(first), accepted(second), filled(first, 2, "6", PARTIAL), accepted(third))
    assert await held(pair.one) == ("6", "4", "4")
    await fold(pair.one, filled(first, 3, "10", FILLED), canceled(third, 2), filled(second, 2, "4", FILLED))
    assert await held(pair.other) == ("6", "0", "0")
    await fold(pair.other, filled(first, 4, "8", PARTIAL), filled(third, 3, "2", CANCELED))
    await fold(pair.one, filled(first, 4, "8", PARTIAL), accepted(first), filled(third, 3, "2", CANCELED))
    assert await held(pair.one) == ("4", "2", "0")
    assert await held(pair.one, "ACC-2") == ("2", "0", "0")


async def test_positions_are_valued_at_the_prices_of_the_moment(pair: Pair) -> None:
    order = buy("10")
    await decide(pair.one, order)
    await fold(pair.one, accepted(order), filled(order, 2, "10", FILLED))
    await pair.one.quote("130")
    state = await pair.other.state()
    assert (state.gross_exposure, state.instruments[0].position_notional) == ("1300", "1300")
    await pair.one.limit(ACCOUNT, "ACC-1", LimitType.GROSS_EXPOSURE, "1400")
    assert await decide(pair.other, buy("1", "130"), sell("9", "130")) == ["GROSS_EXPOSURE_EXCEEDED", "approval"]


async def test_an_orphan_is_released_once_svc_oms_gave_it_up_and_a_known_one_confirmed(pair: Pair) -> None:
    orphan, known = buy("10"), buy("5")
    await decide(pair.one, orphan, known)
    pair.orders.states[known.order_id] = OrderState.PENDING_NEW
    leases = pair.other.stores.leases
    lease = await leases.acquire(orphans.LEASE)
    assert lease is not None

    def sweeper(bound_seconds: float) -> orphans.OrphanSweeper:
        stores = pair.other.stores
        return orphans.OrphanSweeper(stores.database, leases, stores.facts, pair.orders, pair.orders.folded, bound_seconds=bound_seconds)

    assert await sweeper(60.0).sweep(lease) == 0
    assert await sweeper(0.0).sweep(lease) == 2
    assert await held(pair.one) == ("0", "5", "0")
    assert await sweeper(0.0).sweep(lease) == 0
    await leases.release(lease)
    await decide(pair.one, buy("1"))
    with pytest.raises(LeaseLostError):
        await sweeper(0.0).sweep(lease)


async def test_an_approved_replace_that_nobody_asked_for_is_dropped_once_all_is_folded(pair: Pair) -> None:
    order = buy("10")
    more = order._replace(kind=CheckKind.REPLACE, request_id=REPLACE_ID, quantity=Decimal(25), payload_hash=b"r" * 32)
    assert await decide(pair.one, order, more, more) == ["approval"] * 3
    await fold(pair.one, accepted(order))
    assert await held(pair.other) == ("0", "25", "0")
    pair.orders.states[order.order_id] = OrderState.NEW
    pair.orders.position = LogPosition(10**9, 1)
    stores = pair.other.stores
    sweeper = orphans.OrphanSweeper(stores.database, stores.leases, stores.facts, pair.orders, pair.orders.folded, bound_seconds=0.0)
    lease = await stores.leases.acquire(orphans.LEASE)
    assert lease is not None
    await sweeper.sweep(lease)
    assert await held(pair.other) == ("0", "25", "0")
    pair.orders.position = LogPosition(0, 0)
    await sweeper.sweep(lease)
    assert await held(pair.one) == ("0", "10", "0")


async def test_a_replace_that_was_asked_for_stays_reserved_until_it_is_answered(pair: Pair) -> None:
    order = buy("10")
    more = order._replace(kind=CheckKind.REPLACE, request_id=REPLACE_ID, quantity=Decimal(25), payload_hash=b"r" * 32)
    await decide(pair.one, order, more)
    asked = events_pb2.ReplaceRequested(request_id=REPLACE_ID, quantity="25", limit_price="100")
    await fold(pair.one, accepted(order), event(order.order_id, 2, asked))
    assert await held(pair.other) == ("0", "25", "0")
    await fold(pair.other, event(order.order_id, 3, events_pb2.OrderReplaced(quantity="25", limit_price="100")))
    assert await held(pair.one) == ("0", "25", "0")
    await fold(pair.one, filled(order, 4, "25", FILLED))
    assert await held(pair.one) == ("25", "0", "0")
