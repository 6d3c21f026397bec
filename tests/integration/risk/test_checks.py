"""Checks on a real PostgreSQL: two replicas at once, replays, limits that change meanwhile, and what is refused for want of facts."""

from __future__ import annotations

import asyncio
import random
from decimal import Decimal
from pathlib import Path

import asyncpg
import pytest

from kernel.clock import SystemClock
from kernel.errors import TrademeshError, UnavailableError
from kernel.postgres import Database, migrate
from mesh.local.postgres import EmbeddedPostgres
from mesh.local.provision import ServiceDatabase
from svc_risk.domain.check import OrderCheck
from svc_risk.domain.vocabulary import CheckKind, LimitScope, LimitType
from svc_risk.main import Stores, open_stores
from svc_risk.store import MIGRATIONS
from tests.integration.risk.audit import audit
from tests.integration.risk.world import DEFAULT_LIMITS, VENUE, buy, populate, quote, sell, set_limit
from trademesh.error.v1 import error_reason_pb2
from trademesh.risk.v1 import pre_trade_service_pb2


def outcome(result: pre_trade_service_pb2.OrderCheckResult) -> str:
    """Return `approval`, or the reasons of whatever else it is."""
    kind = result.WhichOneof("outcome")
    assert kind is not None
    if kind == "refusal":
        return ",".join(
            error_reason_pb2.ErrorReason.Name(breach.reason).removeprefix("ERROR_REASON_") for breach in result.refusal.breaches
        )
    if kind == "approval":
        return kind
    return error_reason_pb2.ErrorReason.Name(getattr(result, kind).reason).removeprefix("ERROR_REASON_")


async def decide(stores: Stores, *checks: OrderCheck) -> list[str]:
    return [outcome(answer.result) for answer in await stores.checks.decide(checks)]


async def test_an_approval_is_durable_and_audited(
    stores: Stores, risk_database: ServiceDatabase, sql: asyncpg.Connection[asyncpg.Record]
) -> None:
    await populate(risk_database.owner_dsn)
    answers = await stores.checks.decide([buy("10"), sell("3", "101"), buy("1", account="ACC-9"), buy("5", account="ACC-2")])
    assert [outcome(answer.result) for answer in answers] == ["approval", "approval", "ACCOUNT_NOT_ALLOWED", "approval"]
    assert answers[0].result.approval.reserved_notional == "1000"
    assert answers[0].result.approval.reference_price == "100"
    assert (answers[0].result.approval.venue, answers[0].result.approval.tenant) == (VENUE, "north")
    assert answers[0].position is not None
    assert await audit(sql) == {"ACC-1": (Decimal(1303), Decimal(1000)), "ACC-2": (Decimal(500), Decimal(500))}


async def test_two_replicas_at_once_never_pass_a_limit(
    stores: Stores, other: Stores, risk_database: ServiceDatabase, sql: asyncpg.Connection[asyncpg.Record]
) -> None:
    accounts = [f"ACC-{number}" for number in range(1, 9)]
    limits = DEFAULT_LIMITS | {
        (LimitScope.ACCOUNT, LimitType.OPEN_EXPOSURE): "20000",
        (LimitScope.TRADER, LimitType.MESSAGE_RATE): "1000000",
    }
    await populate(risk_database.owner_dsn, accounts=accounts, limits=limits)
    chance = random.Random(7)

    def batch() -> list[OrderCheck]:
        # Accounts in an order of its own in each batch: only sorted locks keep two of them from waiting for each other.
        return [
            (buy if chance.random() < 0.5 else sell)(
                str(chance.randint(1, 9)),
                f"{chance.randint(9800, 10200) / 100:.2f}",
                account=chance.choice(accounts),
                principal=chance.choice("abc"),
            )
            for _ in range(40)
        ]

    async def hammer(replica: Stores) -> list[str]:
        return [text for _ in range(10) for text in await decide(replica, *batch())]

    outcomes = [text for texts in await asyncio.gather(*(hammer(replica) for replica in (stores, other) * 3)) for text in texts]
    assert set(outcomes) == {"approval", "OPEN_EXPOSURE_EXCEEDED"}
    found = await audit(sql)
    assert all(open_notional <= 20_000 for open_notional, _ in found.values())
    assert sum(open_notional for open_notional, _ in found.values()) > 8 * 18_000
    assert await sql.fetchval("SELECT count(*) FROM reservation WHERE status = 1") == outcomes.count("approval")


async def test_a_replay_gives_the_first_answer_and_reserves_once(
    stores: Stores, other: Stores, risk_database: ServiceDatabase, sql: asyncpg.Connection[asyncpg.Record]
) -> None:
    await populate(risk_database.owner_dsn)
    approved, refused = buy("10"), buy("10", "200")
    answers = await asyncio.gather(*(replica.checks.decide([approved, refused]) for replica in (stores, other) * 4))
    assert len({answer[0].result.SerializeToString() for answer in answers}) == 1
    assert len({answer[1].result.SerializeToString() for answer in answers}) == 1
    # The same in one batch, after the market moved, and under another command.
    await quote(sql, ["AAPL"], "150")
    again = await stores.checks.decide([approved, approved, refused, approved._replace(payload_hash=b"x" * 32)])
    assert [answer.result for answer in again[:3]] == [answers[0][0].result, answers[0][0].result, answers[0][1].result]
    assert outcome(again[3].result) == "IDEMPOTENCY_KEY_REUSED"
    assert (await audit(sql))["ACC-1"][0] == 1000
    assert await sql.fetchval("SELECT count(*) FROM event WHERE stream_id = 'exposure-ACC-1'") == 2


async def test_one_request_under_two_accounts_at_once_is_decided_once(
    stores: Stores, other: Stores, risk_database: ServiceDatabase, sql: asyncpg.Connection[asyncpg.Record]
) -> None:
    await populate(risk_database.owner_dsn)
    one = buy("10")
    two = one._replace(account_id="ACC-2", payload_hash=b"y" * 32)
    for _ in range(5):
        texts = await asyncio.gather(decide(stores, one), decide(other, two))
        assert sorted(text for answer in texts for text in answer) == ["IDEMPOTENCY_KEY_REUSED", "approval"]
        one = buy("10")
        two = one._replace(account_id="ACC-2", payload_hash=b"y" * 32)
    await audit(sql)


async def test_a_limit_binds_every_approval_that_commits_after_its_answer(
    stores: Stores, other: Stores, risk_database: ServiceDatabase, sql: asyncpg.Connection[asyncpg.Record]
) -> None:
    await populate(risk_database.owner_dsn)
    lowered = asyncio.Event()
    late: list[str] = []

    async def trade(replica: Stores) -> None:
        for _ in range(25):
            before = lowered.is_set()
            texts = await decide(replica, *[buy("60", price=None) for _ in range(5)])
            if before:
                late.extend(texts)

    async def lower() -> None:
        while await sql.fetchval("SELECT count(*) FROM reservation") < 20:
            await asyncio.sleep(0)
        connection = await asyncpg.connect(risk_database.dsn.reveal())
        await set_limit(connection, LimitScope.ACCOUNT, "ACC-1", LimitType.MAX_NOTIONAL, "5000")
        lowered.set()
        await connection.close()

    await asyncio.gather(trade(stores), trade(other), lower())
    assert set(late) == {"MAX_NOTIONAL_EXCEEDED"}


async def test_policy_is_read_again_whoever_changes_it(
    stores: Stores, risk_database: ServiceDatabase, sql: asyncpg.Connection[asyncpg.Record]
) -> None:
    await populate(risk_database.owner_dsn)
    assert await decide(stores, buy("1")) == ["approval"]
    for change, reasons in [
        ("INSERT INTO kill_switch VALUES (5, 'north', 1, 1, 'me', 'why', false, now())", "KILL_SWITCH_ACTIVE"),
        ("UPDATE kill_switch SET status = 3", "KILL_SWITCH_ACTIVE"),
        ("UPDATE kill_switch SET status = 4", "approval"),
        ("UPDATE account SET status = 2 WHERE account_id = 'ACC-1'", "ACCOUNT_NOT_ACTIVE"),
        ("UPDATE account SET status = 1", "approval"),
        ("UPDATE instrument SET status = 2 WHERE instrument_id = 'AAPL'", "INSTRUMENT_NOT_ACTIVE"),
        (
            "UPDATE instrument SET status = 1, open_time = '00:00', close_time = '00:01', holidays = ARRAY[current_date::text]",
            "MARKET_CLOSED",
        ),
        ("UPDATE instrument SET open_time = '', close_time = '', holidays = '{}'", "approval"),
        ("DELETE FROM risk_limit WHERE type = 6", "LIMIT_NOT_SET"),
        ("DELETE FROM instrument WHERE instrument_id = 'AAPL'", "INSTRUMENT_NOT_FOUND"),
    ]:
        await sql.execute(change)
        assert await decide(stores, buy("1")) == [reasons], change


async def test_messages_and_duplicates_are_counted_across_replicas(stores: Stores, other: Stores, risk_database: ServiceDatabase) -> None:
    limits = DEFAULT_LIMITS | {
        (LimitScope.ACCOUNT, LimitType.DUPLICATE_WINDOW): "600",
        (LimitScope.TRADER, LimitType.MESSAGE_RATE): "6",
    }
    await populate(risk_database.owner_dsn, limits=limits)
    assert await decide(stores, buy("1"), buy("1", "100.00"), buy("2")) == ["approval", "DUPLICATE_ORDER", "approval"]
    assert await decide(other, buy("1.0"), sell("1"), buy("1", account="ACC-2")) == ["DUPLICATE_ORDER", "approval", "approval"]
    # Refusals are no messages; four were approved within the second, whatever their account.
    texts = await decide(stores, *[buy(str(number)) for number in range(10, 15)])
    assert texts in (["approval"] * 2 + ["MESSAGE_RATE_EXCEEDED"] * 3, ["approval"] * 5), "five only if a second has passed meanwhile"


async def test_without_a_live_feed_of_the_right_venue_nothing_is_decided(
    stores: Stores, risk_database: ServiceDatabase, sql: asyncpg.Connection[asyncpg.Record]
) -> None:
    await populate(risk_database.owner_dsn)
    for change, reason in [
        ("UPDATE price_feed SET heartbeat_at = now() - interval '2.1 seconds'", "REFERENCE_PRICE_STALE"),
        ("UPDATE price_feed SET heartbeat_at = now() + interval '1 hour'", "approval"),
        ("UPDATE reference_price SET stale = true", "REFERENCE_PRICE_STALE"),
        ("UPDATE reference_price SET stale = false, bid = NULL, last_trade = NULL", "approval"),
        ("UPDATE reference_price SET prior_close_date = current_date - 8", "REFERENCE_PRICE_STALE"),
        ("UPDATE reference_price SET last_trade = 100, feed = 'XNYS'", "REFERENCE_PRICE_STALE"),
        ("DELETE FROM reference_price", "REFERENCE_PRICE_STALE"),
    ]:
        await sql.execute(change)
        assert await decide(stores, buy("1")) == [reason], change
    assert await sql.fetchval("SELECT count(*) FROM reservation") == 2, "nothing is recorded where nothing was decided"


async def test_a_price_move_is_seen_by_the_next_decision(
    stores: Stores, risk_database: ServiceDatabase, sql: asyncpg.Connection[asyncpg.Record]
) -> None:
    await populate(risk_database.owner_dsn)
    await sql.execute("INSERT INTO position_exposure VALUES ('ACC-1', 'MSFT', 50000, 100, 0, 0, 0, 0)")
    await sql.execute("UPDATE account_exposure SET gross = 5000000, marked_at = now() - interval '2 seconds' WHERE account_id = 'ACC-1'")
    await quote(sql, ["MSFT"], "250")
    # The order is for another instrument; the position that moved counts all the same.
    assert await decide(stores, buy("1")) == ["GROSS_EXPOSURE_EXCEEDED"]
    assert await sql.fetchval("SELECT gross FROM account_exposure WHERE account_id = 'ACC-1'") == 12_500_000


async def test_a_replace_is_reserved_and_replayed(
    stores: Stores, risk_database: ServiceDatabase, sql: asyncpg.Connection[asyncpg.Record]
) -> None:
    await populate(risk_database.owner_dsn)
    first = buy("10")
    more = first._replace(
        kind=CheckKind.REPLACE, request_id="00000000-0000-7000-8000-000000000001", quantity=Decimal(15), payload_hash=b"r" * 32
    )
    far = more._replace(request_id="00000000-0000-7000-8000-000000000002", limit_price=Decimal(200))
    lost = buy("1")._replace(kind=CheckKind.REPLACE, request_id="00000000-0000-7000-8000-000000000003")
    assert await decide(stores, first, more, far, lost) == ["approval", "approval", "PRICE_COLLAR_BREACHED", "ORDER_NOT_FOUND"]
    assert (await audit(sql))["ACC-1"] == (1500, 1500)
    assert await decide(stores, more, far, more._replace(payload_hash=b"z" * 32)) == [
        "approval",
        "PRICE_COLLAR_BREACHED",
        "IDEMPOTENCY_KEY_REUSED",
    ]
    assert (await audit(sql))["ACC-1"] == (1500, 1500)


async def test_without_a_database_nothing_is_decided(scratch: Path) -> None:
    with EmbeddedPostgres(scratch / "gone") as server:
        service = server.provision("svc_gone")
        await migrate(service.owner_dsn, service.role, MIGRATIONS)
        await populate(service.owner_dsn)
        database = await Database.open(service.dsn)
        stores = open_stores(database, SystemClock(), "one")
        assert await decide(stores, buy("1")) == ["approval"]
    with pytest.raises(TrademeshError) as caught:
        await decide(stores, buy("1"))
    assert isinstance(caught.value, UnavailableError)
    await stores.log.close()
    await database.close()
