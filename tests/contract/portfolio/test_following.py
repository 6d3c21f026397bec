"""svc_oms's log folded round by round: what is stored is what a fold from the beginning gives, whatever repeats, dies or comes late."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Iterable, Sequence
from decimal import Decimal

import asyncpg
import pytest

from kernel.errors import LeaseLostError, UnavailableError
from kernel.ports import LogPosition, RecordedEvent
from kernel.postgres import Transaction
from kernel.projection_store import TRANSACTION_EVENTS_MAX
from mesh.local.provision import ServiceDatabase
from svc_portfolio.domain.executions import Execution, PositionKey, rooted
from svc_portfolio.domain.position import FLAT, fold
from svc_portfolio.store.reads import PortfolioReads, View
from svc_portfolio.store.reference import InstrumentRow
from tests.contract.portfolio.conftest import Pair
from tests.contract.portfolio.events import OrderLog, account, instrument
from tests.unit.portfolio.make import bust, correction, execution, facts
from trademesh.portfolio.v1 import events_pb2

ACCOUNT = "ACC-1"
INSTRUMENTS = ("AAPL", "MSFT", "SAP")
DAYS = ("2026-03-02", "2026-03-03", "2026-03-04")


def random_executions(seed: int, count: int, account_id: str = ACCOUNT) -> list[Execution]:
    """Return a history with late busts and corrections, over several instruments and days."""
    chance = random.Random(seed)
    executions: list[Execution] = []
    for number in range(1, count + 1):
        fills = [item for item in executions if item.is_fill]
        dice = chance.random()
        if fills and dice < 0.12:
            executions.append(_of(chance.choice(fills), bust, number))
        elif fills and dice < 0.25:
            amended = chance.choice(fills)
            quantity, price = str(chance.randint(1, 30)), f"{chance.randint(90, 110)}.5"
            executions.append(_of(amended, lambda n, f, q=quantity, p=price: correction(n, f, q, p), number))
        else:
            key = PositionKey(account_id, chance.choice(INSTRUMENTS))
            signed = str(chance.randint(1, 30) * chance.choice([1, -1]))
            day = chance.choice(DAYS)
            executions.append(
                execution(number, signed, str(chance.randint(90, 110)), position=key, trade_date=day, order_id=f"o-{key.instrument_id}")
            )
    return executions


def _of(amended: Execution, make: object, number: int) -> Execution:
    made: Execution = make(number, amended)  # type: ignore[operator]  # one of the two above
    key = made.key._replace(trade_date=amended.key.trade_date)
    return type(made)(
        made.log_position, key, key, amended.position, amended.order_id, made.type, made.exec_ref_id, made.side, made.quantity, made.price,
        made.transact_time,
    )  # fmt: skip


def by_position(executions: Iterable[Execution]) -> dict[str, list[Execution]]:
    """Return histories by instrument, amendments with what they amend."""
    found: dict[str, list[Execution]] = {}
    for item in executions:
        history = found.setdefault(item.position.instrument_id, [])
        history.append(rooted(item, {other.key: other for other in history}))
    return found


async def check(view: View, executions: list[Execution]) -> None:
    """Assert that a view shows exactly what these executions make."""
    holdings = {holding.instrument_id: holding.position for holding in await view.holdings(ACCOUNT, include_closed=True, limit=100)}
    histories = by_position(executions)
    assert holdings == {name: fold(history)[0] for name, history in histories.items()}
    rows = await view.lots(ACCOUNT, instrument_id="", include_closed=True, limit=10_000)
    shown = {name: [(row.lot, list(row.matches)) for row in rows if row.key.instrument_id == name] for name in histories}
    realised = await view.realised(ACCOUNT, instrument_id="", first="", last="")
    for name in INSTRUMENTS:
        only = await view.lots(ACCOUNT, instrument_id=name, include_closed=False, limit=10_000)
        assert [row.lot for row in only] == [row.lot for row in rows if row.key.instrument_id == name and row.lot.remaining]
        assert not any(row.matches for row in only)
        dates = await view.realised(ACCOUNT, instrument_id=name, first=DAYS[1], last=DAYS[1])
        profit = realised.get(name, {}).get(DAYS[1])
        assert dates == ({} if profit is None else {name: {DAYS[1]: profit}})
    for name, history in histories.items():
        _, folded = fold(history)
        lots = sorted(folded.touched.values(), key=lambda lot: lot.log_position)
        assert shown[name] == [(lot, [match for match in folded.matches if match.lot == lot.key]) for lot in lots]
        days = {day: sum((m.realised for m in folded.matches if m.trade_date == day), Decimal(0)) for day in DAYS}
        assert realised.get(name, {}) == {day: days[day] for day in DAYS if any(m.trade_date == day for m in folded.matches)}


@pytest.mark.parametrize("seed", range(4))
async def test_every_prefix_shows_as_of_what_a_fold_of_it_gives(pair: Pair, seed: int) -> None:
    executions = random_executions(seed, 80)
    log = OrderLog()
    events = [log.event(item) for item in executions]
    lease = await pair.one.lead()
    chance = random.Random(seed)
    rest = iter(events)
    while round_ := list(itertools.islice(rest, chance.randint(1, 25))):
        assert await pair.one.follow(lease, *round_) == len(round_)
        shown = executions[: events.index(round_[-1]) + 1]
        async with pair.other.stores.reads.view(minimum=round_[-1].position) as view:
            assert (view.position, view.latest) == (round_[-1].position, True)
            await check(view, shown)
    for upto in chance.sample(range(len(events)), 12):
        async with pair.other.stores.reads.view(as_of=events[upto].position) as view:
            assert view.position == events[upto].position
            await check(view, executions[: upto + 1])
    async with pair.one.stores.reads.view(as_of=LogPosition(0, 0)) as view:
        assert await view.holdings(ACCOUNT, include_closed=True, limit=10) == []
        assert await view.lots(ACCOUNT, instrument_id="", include_closed=True, limit=10) == []


async def test_pages_of_lots_are_the_same_now_and_later(pair: Pair) -> None:
    executions = random_executions(11, 60)
    log = OrderLog()
    events = [log.event(item) for item in executions]
    lease = await pair.one.lead()
    await pair.one.follow(lease, *events[:40])

    async def walk(as_of: LogPosition | None, include_closed: bool) -> list[object]:
        found: list[object] = []
        after = ("", 0, 0)
        while True:
            async with pair.one.stores.reads.view(as_of=as_of) as view:
                page = await view.lots(ACCOUNT, instrument_id="", include_closed=include_closed, after=after, limit=7)
            found += page
            if len(page) < 7:
                return found
            last = page[-1]
            after = (last.key.instrument_id, last.lot.log_position.tx, last.lot.log_position.position)

    def told(rows: list[object]) -> list[object]:
        return [(row.key, row.lot, list(row.matches)) for row in rows]  # type: ignore[attr-defined]  # lot rows

    before = [told(await walk(None, closed)) for closed in (False, True)]
    assert before[1]
    await pair.one.follow(lease, *events[40:])
    assert [told(await walk(events[39].position, closed)) for closed in (False, True)] == before


async def test_repetitions_and_a_second_replica_count_nothing_twice(pair: Pair) -> None:
    executions = random_executions(5, 30)
    log = OrderLog()
    events = [log.event(item) for item in executions]
    lease = await pair.one.lead()
    await pair.one.follow(lease, *events[:20])
    assert await pair.one.follow(lease, *events[10:20]) == 0
    await pair.one.stores.leases.release(lease)
    taken = await pair.other.lead()
    with pytest.raises(LeaseLostError):
        await pair.one.follow(lease, *events[20:])
    assert await pair.other.follow(taken, *events[15:]) == 10
    async with pair.one.stores.reads.view() as view:
        await check(view, executions)


async def test_a_fill_under_another_order_or_log_position_counts_once_by_its_key(pair: Pair) -> None:
    lease = await pair.one.lead()
    log = OrderLog()
    first = execution(1, "10", "5", exec_id="same")
    again = execution(2, "10", "5", exec_id="same", order_id="order-2")
    twice = execution(3, "10", "5", exec_id="same", order_id="order-3")
    assert await pair.one.follow(lease, log.event(first)) == 1
    assert await pair.one.follow(lease, log.event(again), log.event(twice)) == 2
    async with pair.one.stores.reads.view() as view:
        (holding,) = await view.holdings(ACCOUNT, include_closed=True, limit=10)
    assert facts(holding.position.quantity, holding.position.version) == (10, 1)
    assert pair.one.stores.positions.repeated_executions == 2


async def test_our_own_log_tells_every_change_in_order(pair: Pair) -> None:
    executions = random_executions(7, 50)
    log = OrderLog()
    lease = await pair.one.lead()
    await pair.one.follow(lease, *(log.event(item) for item in executions))
    events: list[RecordedEvent] = []
    while len(events) < 50:
        events = await pair.other.stores.log.read_after(LogPosition(0, 0), 1_000)
    changes = [events_pb2.PositionChanged.FromString(event.payload).change for event in events]
    assert [change.order_log_position.tx for change in changes] == [item.log_position.tx for item in executions]
    assert {event.type for event in events} == {"portfolio.v1.PositionChanged"}
    quantities: dict[str, str] = {}
    for event, change in zip(events, changes, strict=True):
        assert event.stream_id == f"position-{ACCOUNT}/{change.instrument_id}"
        assert event.version == change.version
        assert change.quantity_before == quantities.get(change.instrument_id, "0")
        quantities[change.instrument_id] = change.quantity
    async with pair.other.stores.reads.view() as view:
        newest = await view.changes(ACCOUNT, instrument_id="", before=LogPosition(2**62, 0), limit=100)
        assert newest == changes[::-1]
        only = await view.changes(ACCOUNT, instrument_id="SAP", before=LogPosition(30, 1), limit=100)
    assert only == [change for change in changes[::-1] if change.instrument_id == "SAP" and change.order_log_position.tx < 30]


async def test_an_unknown_place_in_the_log_is_not_shown(pair: Pair) -> None:
    reads = PortfolioReads(pair.one.stores.database, wait_seconds=0.05)
    for place in ({"minimum": LogPosition(9, 9)}, {"as_of": LogPosition(9, 9)}):
        with pytest.raises(UnavailableError):
            async with reads.view(**place):
                raise AssertionError("nothing is there yet")


async def test_executions_of_unknown_instruments_are_kept_until_they_are_known(pair: Pair) -> None:
    lease = await pair.one.lead()
    await pair.one.follow(lease, OrderLog().event(execution(1, "10", "5")))
    async with pair.one.stores.reads.view() as view:
        holding = await view.holding(ACCOUNT, "AAPL")
        assert holding is not None
        assert facts(holding.currency, holding.venue, holding.position.quantity) == ("", "", 10)
        assert await view.holding(ACCOUNT, "MSFT") is None
    await pair.other.refer(instrument(1, "AAPL"), instrument(2, "MSFT"), account(3, ACCOUNT))
    async with pair.one.stores.reads.view() as view:
        known, flat = await view.holding(ACCOUNT, "AAPL"), await view.holding(ACCOUNT, "MSFT")
    assert known is not None
    assert flat is not None
    assert (known.currency, known.venue, flat.position) == ("USD", "XSIM", FLAT)
    assert await pair.one.stores.reference.tenant(ACCOUNT) == "north"
    assert await pair.one.stores.reference.tenant("ACC-2") is None


async def test_the_latest_version_of_an_instrument_counts(pair: Pair) -> None:
    await pair.one.refer(instrument(1, "AAPL"), instrument(2, "AAPL", "EUR", version=2))
    assert await pair.other.refer(instrument(1, "AAPL"), instrument(3, "AAPL", "GBP", version=3)) == 1
    assert await pair.one.stores.reference.instruments(["AAPL", "MSFT"]) == {"AAPL": InstrumentRow("AAPL", "GBP", "XSIM", 3)}


async def test_history_is_never_changed(pair: Pair, portfolio_database: ServiceDatabase) -> None:
    lease = await pair.one.lead()
    await pair.one.follow(lease, OrderLog().event(execution(1, "10", "5")))
    owner = await asyncpg.connect(portfolio_database.owner_dsn.reveal())
    try:
        for table, statement in itertools.product(("execution", "position_change"), ("DELETE FROM {}", "TRUNCATE {}")):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await owner.execute(statement.format(table))
    finally:
        await owner.close()


async def test_a_round_of_several_transactions(pair: Pair) -> None:
    executions = random_executions(3, 450)
    log = OrderLog()
    lease = await pair.one.lead()
    assert await pair.one.follow(lease, *(log.event(item) for item in executions)) == 450
    async with pair.other.stores.reads.view() as view:
        await check(view, executions)


async def test_a_round_that_dies_in_the_middle_is_told_again_without_harm(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    executions = random_executions(13, TRANSACTION_EVENTS_MAX + 50)
    log = OrderLog()
    events = [log.event(item) for item in executions]
    positions, calls = pair.one.stores.positions, itertools.count()
    record = positions.record

    async def dying(transaction: Transaction, items: Sequence[Execution]) -> None:
        await record(transaction, items)
        if next(calls):
            raise ConnectionError("the process died before the commit")

    lease = await pair.one.lead()
    with monkeypatch.context() as patched:
        patched.setattr(positions, "record", dying)
        with pytest.raises(UnavailableError):
            await pair.one.follow(lease, *events)
    async with pair.other.stores.reads.view() as view:
        assert view.position == events[TRANSACTION_EVENTS_MAX - 1].position, "what is applied is shown and said, though the cursor stands"
        await check(view, executions[:TRANSACTION_EVENTS_MAX])
    assert await pair.one.follow(lease, *events) == 50
    async with pair.other.stores.reads.view() as view:
        await check(view, executions)
    told = await pair.one.stores.log.read_stream(f"position-{ACCOUNT}/SAP")
    assert [event.version for event in told] == list(range(1, len(by_position(executions)["SAP"]) + 1))


async def test_readers_see_whole_prefixes_while_rounds_are_folded(pair: Pair) -> None:
    executions = random_executions(17, 120)
    log = OrderLog()
    events = [log.event(item) for item in executions]
    lease = await pair.one.lead()
    done = asyncio.Event()

    async def write() -> None:
        for start in range(0, len(events), 6):
            await pair.one.follow(lease, *events[start : start + 6])
        done.set()

    async def read() -> int:
        views = 0
        while not done.is_set():
            async with pair.other.stores.reads.view() as view:
                await check(view, [item for item in executions if item.log_position <= view.position])
            views += 1
        return views

    _, views = await asyncio.gather(write(), read())
    assert views > 1
