"""Whatever a venue says and however it arrives, books equal a naive reference and every trade counts once, in order."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from kernel.clock import ManualClock
from kernel.itch.moldudp64 import Request
from kernel.streams import Item, Mailbox
from svc_marketdata.domain import BookState, Bust, RecordedTrade, Venue
from svc_marketdata.itch.follower import FeedFollower
from svc_marketdata.itch.liveness import Liveness
from svc_marketdata.itch.reading import snapshot_reader
from svc_marketdata.servicer.feed import MarketFeed
from svc_marketdata.servicer.stream import MarketSource, Response
from tests.unit.marketdata.scripted import ScriptedVenue
from trademesh.marketdata.v1 import market_data_pb2
from trademesh.marketdata.v1 import market_data_service_pb2 as pb

NAMES = ("AAPL", "MSFT")
ALL = (pb.MARKET_DATA_CHANNEL_QUOTES, pb.MARKET_DATA_CHANNEL_BOOK, pb.MARKET_DATA_CHANNEL_TRADES)

Step = tuple[int, int, int, int]
steps = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 1 << 16), st.integers(1, 40), st.integers(0, 9)), max_size=120)


class Sink:
    """Keeps what is to be written."""

    def __init__(self) -> None:
        self.trades: list[int] = []

    def take(self, told: Sequence[RecordedTrade | Bust]) -> None:
        self.trades += [fact.match_number for fact in told if isinstance(fact, RecordedTrade)]


def say(script: ScriptedVenue, step: Step, number: int) -> None:
    """Turn numbers into something that the venue can say: bids below 5000, offers above, so that no book crosses."""
    action, pick, quantity, price = step
    name = NAMES[pick % 2]
    references = list(script.orders)
    if action < 3 or not references:
        side = "BS"[pick // 2 % 2]
        script.add(name, number, side, quantity, 4_990 + price if side == "B" else 5_010 + price)
        return
    reference = references[pick % len(references)]
    _, side, rest, _ = script.orders[reference]
    match action:
        case 3:
            script.execute(reference, min(quantity, rest), number)
        case 4 if rest > 1:
            script.cancel(reference, min(quantity, rest - 1))
        case 5:
            script.replace(reference, number, quantity, 4_990 + price if side == "B" else 5_010 + price)
        case _:
            script.delete(reference)


def began(follower: FeedFollower, script: ScriptedVenue, now: float) -> int:
    """Begin the session and settle it; return how much has been sent."""
    follower.begin_snapshot()
    follower.receive("A", script.packet(1, len(script.messages)), now, arrived_at=now)
    reader = snapshot_reader(script.session, script.next_sequence)
    reader.load(script.snapshot(*NAMES))
    assert follower.merge(reader, script.next_sequence, now)
    return len(script.messages)


def check_books(venue: Venue, script: ScriptedVenue) -> None:
    for name in NAMES:
        market = venue.market(name)
        assert market is not None
        assert market.book.bids(50) == script.levels(name, "B")
        assert market.book.asks(50) == script.levels(name, "S")
        assert all(level.quantity > 0 and level.order_count > 0 for level in (*market.book.bids(50), *market.book.asks(50)))


@settings(max_examples=200, deadline=None)
@given(steps)
def test_a_book_equals_the_naive_reference_after_every_message(said: list[Step]) -> None:
    script, venue = ScriptedVenue(), Venue()
    script.open(*NAMES)
    follower = FeedFollower(venue, Liveness(), lambda request: None)
    sent = began(follower, script, 1.0)
    for number, step in enumerate(said, 1):
        say(script, step, number)
        follower.receive("A", script.packet(sent + 1, len(script.messages)), 1.0, arrived_at=1.0)
        sent = len(script.messages)
        check_books(venue, script)
    assert venue.misfits == 0


@settings(max_examples=150, deadline=None)
@given(steps, st.data())
def test_losses_repetitions_and_disorder_end_in_the_same_books_and_trades(said: list[Step], data: st.DataObject) -> None:
    script, venue, asked = ScriptedVenue(), Venue(), list[Request]()
    script.open(*NAMES)
    liveness, sink, clock = Liveness(), Sink(), ManualClock()
    follower = FeedFollower(venue, liveness, asked.append)
    for number, step in enumerate(said, 1):
        say(script, step, number)
    count = len(script.messages)
    packets = [script.packet(first, min(first + 2, count)) for first in range(1, count + 1, 3)]
    order = data.draw(st.lists(st.tuples(st.integers(0, len(packets) - 1), st.sampled_from("AB"), st.integers(1, 40)), max_size=80))
    for index, line, milliseconds in order:
        clock.advance(milliseconds / 1_000)
        follower.receive(line, packets[index], clock.monotonic(), arrived_at=clock.monotonic())
        answer(follower, script, asked, clock, data.draw(st.booleans()))
    for _ in range(200):
        clock.advance(0.06)
        follower.receive("A", script.heartbeat(), clock.monotonic(), arrived_at=clock.monotonic())
        follower.tick(clock.monotonic())
        answer(follower, script, asked, clock, True)
        if follower.needs_snapshot:
            merge(follower, script, clock)
    check_books(venue, script)
    assert not follower.is_recovering
    assert all(market.state(feed_live=liveness.is_live(clock.monotonic())) is not BookState.STALE for market in venue)
    _, trades = venue.take_changes()
    sink.trades = [trade.match_number for trade in trades]
    assert len(sink.trades) == len(set(sink.trades)), "each trade once"
    if not venue.tape_breaks:
        assert sink.trades == list(script.trades), "all of them, in order"


def answer(follower: FeedFollower, script: ScriptedVenue, asked: list[Request], clock: ManualClock, answers: bool) -> None:
    requests, asked[:] = list(asked), []
    for request in requests if answers else ():
        last = request.sequence + request.message_count - 1
        follower.receive("requests", script.packet(request.sequence, last), clock.monotonic(), arrived_at=clock.monotonic())


def merge(follower: FeedFollower, script: ScriptedVenue, clock: ManualClock) -> None:
    follower.begin_snapshot()
    reader = snapshot_reader(script.session, script.next_sequence)
    reader.load(script.snapshot(*NAMES))
    follower.merge(reader, script.next_sequence, clock.monotonic())


@settings(max_examples=150, deadline=None)
@given(steps, st.lists(st.sampled_from(["flush", "read", "say"]), max_size=120))
def test_conflation_never_loses_the_last_state_nor_any_trade(said: list[Step], moves: list[str]) -> None:
    asyncio.run(conflated(said, moves))


async def conflated(said: list[Step], moves: list[str]) -> None:
    script, venue, liveness, sink, clock = ScriptedVenue(), Venue(), Liveness(), Sink(), ManualClock()
    script.open(*NAMES)
    follower = FeedFollower(venue, liveness, lambda request: None)
    began(follower, script, clock.monotonic())
    feed = MarketFeed("XSIM", venue, liveness, lambda: follower.is_recovering, sink, clock)
    source, mailbox = MarketSource(feed, NAMES, ALL, 50), Mailbox[Response]()
    reader = Reader(mailbox)
    async for item in source.snapshot(mailbox):
        reader.see(item)
    pending, sent = list(enumerate(said, 1)), len(script.messages)
    for move in (*moves, *("say" for _ in said), "flush", *("read" for _ in range(3 * len(said) + 8))):
        if move == "say" and pending:
            number, step = pending.pop(0)
            say(script, step, number)
            follower.receive("A", script.packet(sent + 1, len(script.messages)), clock.monotonic(), arrived_at=clock.monotonic())
            sent = len(script.messages)
        elif move == "flush":
            feed.flush()
        elif move == "read":
            await reader.read()
    for name in NAMES:
        assert reader.books[name] == (script.levels(name, "B"), script.levels(name, "S"))
    assert reader.trades == sink.trades
    assert reader.trades == list(script.trades)
    await source.close()


class Reader:
    """A client: numbers what it takes, as the stream does, and keeps what it was shown."""

    def __init__(self, mailbox: Mailbox[Response]) -> None:
        self._mailbox = mailbox
        self._sequence = 0
        self.books: dict[str, tuple[list[tuple[int, int, int]], list[tuple[int, int, int]]]] = {}
        self.trades: list[int] = []

    async def read(self) -> None:
        item = await self._mailbox.take(0.0)
        if item is not None:
            self.see(item)

    def see(self, item: Item[Response]) -> None:
        self._sequence += 1
        message = item.message
        message.sequence = self._sequence
        for shown in message.snapshot.instruments:
            self._book(shown.book)
        if message.event.HasField("book"):
            self._book(message.event.book)
        if message.event.HasField("trade"):
            self.trades.append(message.event.trade.match_number)

    def _book(self, book: market_data_pb2.OrderBook) -> None:
        sides = ([(_cents(level.price), int(level.quantity), level.order_count) for level in side] for side in (book.bids, book.asks))
        bids, asks = sides
        self.books[book.instrument_id] = bids, asks


def _cents(price: str) -> int:
    whole, _, fraction = price.partition(".")
    return int(whole) * 100 + int(fraction.ljust(2, "0"))
