"""Trades on a real PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import date
from decimal import Decimal

import asyncpg
import pytest

from kernel.errors import Reason, UnavailableError
from kernel.postgres import Database
from mesh.local.provision import ServiceDatabase
from svc_marketdata.consumer.recorder import TradeRecorder
from svc_marketdata.domain import Aggressor, Bust, RecordedTrade, Venue
from svc_marketdata.itch.reading import snapshot_reader
from svc_marketdata.store.trades import MATCH_NUMBER_END, TradeKey, TradeStore
from tests.unit.marketdata.scripted import ScriptedVenue
from tests.wire.kernel_net.serving import until

END = TradeKey((1 << 63) - 1, MATCH_NUMBER_END)
DAY = date(2026, 1, 5)


def trade(match: int, name: str = "AAPL", day: date = DAY, time_ns: int | None = None, price: str = "100.25") -> RecordedTrade:
    time_ns = match * 10 if time_ns is None else time_ns
    return RecordedTrade(name, match, Decimal(price), Decimal("0.00000001"), Aggressor.SELL, day, time_ns, "s1", match, False)


async def page(store: TradeStore, name: str = "AAPL", limit: int = 100, before: TradeKey = END, start_ns: int = 0) -> list[int]:
    return [found.match_number for found in await store.page(name, before=before, start_ns=start_ns, limit=limit)]


async def test_what_is_written_is_read_newest_first_and_again_changes_nothing(database: Database) -> None:
    store = TradeStore(database, "XSIM")
    trades = [trade(1), trade((1 << 64) - 1, time_ns=5), trade(2), trade(3, name="BTC-USD")]
    for _ in range(2):
        assert await store.write(trades, ()) == []
    assert await page(store) == [2, 1, (1 << 64) - 1]
    assert (await store.page("AAPL", before=END, start_ns=0, limit=1)) == [trade(2)]
    assert await page(store, limit=1, before=TradeKey(20, 2)) == [1]
    assert await page(store, start_ns=20) == [2]
    assert await page(TradeStore(database, "OTHER")) == []


async def test_a_bust_marks_the_latest_trade_of_its_number_and_says_which(database: Database) -> None:
    store = TradeStore(database, "XSIM")
    await store.write([trade(7, day=date(2026, 1, 2), time_ns=1)._replace(session="s0"), trade(7), trade(8)], ())
    for _ in range(2):
        assert await store.write((), [Bust(7, "s1", 9), Bust(99, "s1", 10)]) == [trade(7)._replace(busted=True)]
    assert [(found.time_ns, found.busted) for found in await store.page("AAPL", before=END, start_ns=0, limit=9)] == [
        (80, False), (70, True), (1, False),
    ]  # fmt: skip


async def test_a_correction_stands_beside_what_it_corrects_and_pages_keep_them_apart(database: Database) -> None:
    store = TradeStore(database, "XSIM")
    corrected = trade(7, price="99")._replace(sequence=12)
    told, bust = [trade(6), trade(7), corrected], Bust(7, "s1", 11)
    for _ in range(2):
        await store.write(told, [bust])
    both = await store.page("AAPL", before=END, start_ns=0, limit=9)
    assert both == [corrected, trade(7)._replace(busted=True), trade(6)]
    key = TradeKey(corrected.time_ns, 7, corrected.session, corrected.sequence)
    assert await store.page("AAPL", before=key, start_ns=0, limit=9) == both[1:]


async def test_the_latest_day_of_each_instrument_is_read_back(database: Database) -> None:
    store = TradeStore(database, "XSIM")
    apples = [trade(3, price="101"), trade(4), trade(5, price="500")]
    older = trade(9, name="MSFT", day=date(2026, 1, 2))
    await store.write([trade(1, day=date(2026, 1, 2)), older, *reversed(apples)], [Bust(5, "s2", 1)])
    apple, microsoft = await store.latest_days()
    assert (apple.trade_date, apple.trades, microsoft.trades) == (DAY, tuple(apples[:2]), (older,))
    assert (apple.volume, apple.open, apple.high, apple.low) == (Decimal("0.00000002"), Decimal(101), Decimal(101), Decimal("100.25"))
    assert await TradeStore(database, "OTHER").latest_days() == []


async def test_a_day_of_more_trades_than_are_kept_goes_on_with_all_that_they_came_to(database: Database) -> None:
    store = TradeStore(database, "XSIM")
    prices = ["100", "250", "50", *["120"] * 7]
    await store.write([trade(match, name="BTC-USD", price=price) for match, price in enumerate(prices, 1)], ())
    script, venue = ScriptedVenue(), Venue(await store.latest_days(trades_max=4))
    script.open("BTC-USD")
    reader = snapshot_reader(script.session, 1)
    reader.load(script.messages)
    venue.adopt(reader.venue)
    market = venue.market("BTC-USD")
    assert market is not None
    day = market.day
    assert (day.volume, day.open, day.high, day.low) == (10, 10_000, 25_000, 5_000)
    assert day.last is not None
    assert day.last.match_number == 10
    market.forget(10)
    assert (day.volume, day.open, day.high, day.low, day.last.match_number) == (9, 10_000, 25_000, 5_000, 9)


async def test_two_replicas_write_the_same_trades_at_once(database: Database, market_database: ServiceDatabase) -> None:
    other = await Database.open(market_database.dsn)
    try:
        trades = [trade(match) for match in range(1, 401)]
        stores = TradeStore(database, "XSIM"), TradeStore(other, "XSIM")
        writes = [store.write(order, [Bust(5, "s2", 1)]) for store in stores for order in (trades, trades[::-1]) for _ in range(3)]
        await asyncio.gather(*writes)
        assert len(await page(stores[0], limit=500)) == 400
    finally:
        await other.close()


async def test_the_service_can_mark_a_trade_and_change_nothing_else_of_it(database: Database) -> None:
    await TradeStore(database, "XSIM").write([trade(1)], ())
    async with database.connection() as connection:
        for statement in ("UPDATE trade SET price = 1", "DELETE FROM trade", "TRUNCATE trade"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(statement)


class FailingStore:
    """A store that is away for some writes."""

    def __init__(self, failures: int) -> None:
        self.failures = failures
        self.written: list[int] = []
        self.busted: list[int] = []

    async def write(self, trades: Sequence[RecordedTrade], busts: Sequence[Bust]) -> list[RecordedTrade]:
        if self.failures:
            self.failures -= 1
            raise UnavailableError(Reason.DATABASE_UNAVAILABLE, "away")
        self.written += [found.match_number for found in trades]
        self.busted += [bust.match_number for bust in busts]
        return [trade(bust.match_number)._replace(busted=True) for bust in busts]


async def test_the_recorder_keeps_trades_while_the_disk_is_away_and_their_order() -> None:
    store = FailingStore(failures=2)
    recorder = TradeRecorder(store, gather_seconds=0.0, retry_seconds=0.0)
    found: list[RecordedTrade] = []
    recorder.found = found.extend
    running = asyncio.create_task(recorder.run())
    try:
        recorder.take([trade(1), trade(2), Bust(1, "s1", 3)])
        await until(lambda: recorder.recorded == 3)
        recorder.take([trade(3)])
        await until(lambda: recorder.recorded == 4)
    finally:
        running.cancel()
    assert store.written == [1, 2, 3]
    assert store.busted == [1]
    assert [broken.match_number for broken in found] == [1]
    assert recorder.failures == 2


async def test_a_recorder_that_is_stopped_writes_the_rest() -> None:
    store = FailingStore(failures=1)
    recorder = TradeRecorder(store, gather_seconds=0.0, retry_seconds=60.0)
    running = asyncio.create_task(recorder.run())
    recorder.take([trade(1), trade(2)])
    await until(lambda: recorder.failures == 1)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    recorder.take([trade(3)])
    await recorder.finish()
    assert store.written == [1, 2, 3]


async def test_the_recorder_gives_the_oldest_up_beyond_its_bound_and_counts_them() -> None:
    recorder = TradeRecorder(FailingStore(failures=0), waiting_trades_max=10)
    recorder.take([trade(match) for match in range(1, 13)])
    assert (recorder.waiting, recorder.given_up) == (10, 2)
