"""What a client of the stream is told, message by message, however slow it is: the source over PostgreSQL, with marks by hand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import NamedTuple

import pytest

from kernel.clock import SystemClock
from kernel.errors import InternalError
from kernel.ports import HeldLease, LogPosition
from kernel.postgres import Database
from kernel.streams import Item, Mailbox, PositionExpiredError
from svc_portfolio.clients.marks import MarkBook
from svc_portfolio.domain.executions import Execution, PositionKey
from svc_portfolio.domain.valuation import Quote
from svc_portfolio.servicer.feed import PortfolioFeed
from svc_portfolio.servicer.marking import Marker
from svc_portfolio.servicer.source import PortfolioSource
from svc_portfolio.store.reference import InstrumentRow, ReferenceStore
from tests.contract.portfolio.conftest import Pair, Replica
from tests.contract.portfolio.events import VENUE, OrderLog, instrument
from tests.unit.portfolio.make import execution
from trademesh.portfolio.v1 import portfolio_service_pb2 as pb
from trademesh.type.v1 import stream_pb2

NEVER_SECONDS = 3_600.0


class Desk(NamedTuple):
    """A replica with marks that a test makes, and whatever tells it executions."""

    replica: Replica
    feed: PortfolioFeed
    marks: MarkBook
    orders: OrderLog
    lease: HeldLease

    def source(self, instrument_id: str = "") -> PortfolioSource:
        """Return a client's selection."""
        return PortfolioSource(self.feed, self.replica.stores.reads, Marker(self.marks, SystemClock()), "ACC-1", instrument_id)

    async def execute(self, *executions: Execution) -> None:
        """Fold executions."""
        await self.replica.follow(self.lease, *(self.orders.event(item) for item in executions))

    def mark(self, instrument_id: str, price: str) -> None:
        """Let the venue name a price."""
        quote = Quote(None, None, Decimal(price), None, None, stale=False)
        self.marks.take(VENUE, {instrument_id: quote}, live=True, now=SystemClock().monotonic())


@pytest.fixture
async def desk(pair: Pair) -> AsyncIterator[Desk]:
    """Return a desk that knows two instruments and looks at marks only when a test does."""
    await pair.one.refer(instrument(1, "AAPL"), instrument(2, "MSFT"))
    stores = pair.one.stores
    feed = PortfolioFeed(stores.log, stores.reference, mark_seconds=NEVER_SECONDS)
    yield Desk(pair.one, feed, MarkBook(), OrderLog(), await pair.one.lead())
    await feed.close()


@asynccontextmanager
async def following(desk: Desk, mailbox: Mailbox[pb.StreamPortfolioResponse]) -> AsyncIterator[PortfolioSource]:
    """Run a source from its snapshot on."""
    source = desk.source()
    assert [item.message.WhichOneof("payload") async for item in source.snapshot(mailbox)] == ["snapshot"]
    yield source
    await source.close()


async def taken(mailbox: Mailbox[pb.StreamPortfolioResponse]) -> pb.StreamPortfolioResponse:
    """Return the next message, sent."""
    item: Item[pb.StreamPortfolioResponse] | None = await mailbox.take(10.0)
    assert item is not None
    item.message.sequence = 1
    return item.message


async def test_marks_that_wait_are_brought_up_to_date_and_changes_are_kept(desk: Desk) -> None:
    await desk.execute(execution(1, "10", "5"), execution(2, "4", "2", position=PositionKey("ACC-1", "MSFT"), order_id="o2"))
    mailbox: Mailbox[pb.StreamPortfolioResponse] = Mailbox()
    async with following(desk, mailbox) as source:
        for price in ("6", "7", "8"):
            desk.mark("AAPL", price)
            source.look()
        desk.mark("MSFT", "3")
        source.look()
        source.look()
        marks = (await taken(mailbox)).event.marks
        assert [(item.instrument_id, item.mark.price, item.unrealised_pnl) for item in marks.valuations] == [
            ("AAPL", "8", "30"),
            ("MSFT", "3", "4"),
        ]
        desk.mark("AAPL", "9")
        source.look()
        await desk.execute(execution(3, "-10", "9"))
        before, change = await taken(mailbox), await taken(mailbox)
        assert before.event.marks.valuations[0].version == 1
        assert (change.event.position.position.quantity, change.event.position.position.realised_pnl) == ("0", "40")
        desk.mark("AAPL", "11")
        desk.mark("MSFT", "4")
        source.look()
        assert [item.instrument_id for item in (await taken(mailbox)).event.marks.valuations] == ["MSFT"], "nothing is held of the other"


async def test_marks_after_a_change_do_not_overtake_it(desk: Desk) -> None:
    await desk.execute(execution(1, "10", "5"))
    mailbox: Mailbox[pb.StreamPortfolioResponse] = Mailbox()
    async with following(desk, mailbox) as source:
        desk.mark("AAPL", "6")
        source.look()
        await desk.execute(execution(2, "10", "7"))
        first = await taken(mailbox)
        assert (await taken(mailbox)).event.position.position.market_value == "120"
        desk.mark("AAPL", "8")
        source.look()
        second = await taken(mailbox)
        assert [message.event.marks.valuations[0].version for message in (first, second)] == [1, 2]
        assert second.event.marks.valuations[0].unrealised_pnl == "40"


async def test_a_client_that_is_too_slow_gets_a_snapshot_of_everything(desk: Desk) -> None:
    mailbox: Mailbox[pb.StreamPortfolioResponse] = Mailbox(limit=3)
    async with following(desk, mailbox) as source:
        await desk.execute(*(execution(number, "1", "5") for number in range(1, 6)))
        async with asyncio.timeout(10):
            while mailbox.resync_reason is None:
                await asyncio.sleep(0.01)
        assert mailbox.resync_reason == stream_pb2.STREAM_RESYNC_REASON_SLOW_CONSUMER
        mailbox.begin_anew()
        (item,) = [item async for item in source.snapshot(mailbox)]
        assert [position.quantity for position in item.message.snapshot.positions] == ["5"]
        await desk.execute(execution(6, "1", "5"))
        assert (await taken(mailbox)).event.position.change.version == 6, "and nothing twice"


async def test_a_place_too_far_back_asks_for_a_snapshot(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("svc_portfolio.servicer.source.CATCH_UP_EVENTS_MAX", 2)
    await desk.execute(*(execution(number, "1", "5") for number in range(1, 5)))
    async with asyncio.timeout(10):
        while len(await desk.replica.stores.log.read_after(LogPosition(0, 0), 10)) < 4:
            await asyncio.sleep(0.01)
    source = desk.source()
    for place in (str(LogPosition(0, 0)), "snapshot"):
        with pytest.raises(PositionExpiredError):
            await source.resume(place, Mailbox())
    await source.close()


async def test_one_instrument_alone(desk: Desk) -> None:
    await desk.execute(execution(1, "10", "5"), execution(2, "4", "2", position=PositionKey("ACC-1", "MSFT"), order_id="o2"))
    mailbox: Mailbox[pb.StreamPortfolioResponse] = Mailbox()
    source = desk.source("MSFT")
    (item,) = [item async for item in source.snapshot(mailbox)]
    assert [position.instrument_id for position in item.message.snapshot.positions] == ["MSFT"]
    await desk.execute(execution(3, "1", "5"), execution(4, "1", "5", position=PositionKey("ACC-1", "MSFT"), order_id="o2"))
    assert (await taken(mailbox)).event.position.change.instrument_id == "MSFT"
    await source.close()


class SlowReference(ReferenceStore):
    """Reference data whose first answer is held back."""

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self.asked, self.answers = asyncio.Event(), asyncio.Event()

    async def instruments(self, instrument_ids: Collection[str]) -> dict[str, InstrumentRow]:
        """See `ReferenceStore.instruments`."""
        if not self.asked.is_set():
            self.asked.set()
            await self.answers.wait()
        return await super().instruments(instrument_ids)


async def test_who_resumes_while_a_batch_is_read_misses_nothing_of_it(desk: Desk) -> None:
    stores = desk.replica.stores
    reference = SlowReference(stores.database)
    feed = PortfolioFeed(stores.log, reference, mark_seconds=NEVER_SECONDS)
    mine: Mailbox[pb.StreamPortfolioResponse] = Mailbox()
    theirs: Mailbox[pb.StreamPortfolioResponse] = Mailbox()
    async with following(desk._replace(feed=feed), mine):
        await desk.execute(execution(1, "10", "5"), execution(2, "7", "5", position=PositionKey("ACC-2", "AAPL"), order_id="o2"))
        async with asyncio.timeout(10):
            await reference.asked.wait()
        other = PortfolioSource(feed, stores.reads, Marker(desk.marks, SystemClock()), "ACC-2", "")
        await other.resume(str(LogPosition(0, 0)), theirs)
        reference.answers.set()
        assert (await taken(mine)).event.position.position.quantity == "10"
        await desk.execute(execution(3, "1", "5", position=PositionKey("ACC-2", "AAPL"), order_id="o2"))
        assert [(await taken(theirs)).event.position.change.version for _ in range(2)] == [1, 2]
        await other.close()


async def test_a_defect_ends_streams_and_the_next_one_starts_anew(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    mailbox: Mailbox[pb.StreamPortfolioResponse] = Mailbox()
    async with following(desk, mailbox):
        with monkeypatch.context() as patched:
            patched.setattr("svc_portfolio.servicer.feed.changed_position", None)
            await desk.execute(execution(1, "10", "5"))
            with pytest.raises(InternalError):
                await mailbox.take(10.0)
    fresh: Mailbox[pb.StreamPortfolioResponse] = Mailbox()
    async with following(desk, fresh):
        await desk.execute(execution(2, "10", "5"))
        assert (await taken(fresh)).event.position.change.version == 2
