"""A feed that loses, repeats and restarts, and what is shown of it. No sockets, no clock."""

from __future__ import annotations

import pytest

from kernel.itch.moldudp64 import Request, encode_end_of_session
from kernel.itch.venue import InstrumentDefinition
from svc_marketdata.domain import Aggressor, BookState, Market, Venue
from svc_marketdata.itch.follower import FeedFollower
from svc_marketdata.itch.liveness import Liveness
from svc_marketdata.itch.reading import FeedReader, session_midnight_ns, snapshot_reader
from tests.unit.marketdata.scripted import MIDNIGHT_NS, ScriptedVenue


class World:
    """A follower, and a venue that it follows."""

    def __init__(self) -> None:
        self.script = ScriptedVenue()
        self.script.open("AAPL", "MSFT")
        self.venue = Venue()
        self.liveness = Liveness()
        self.asked: list[Request] = []
        self.follower = FeedFollower(self.venue, self.liveness, self.asked.append)
        self.now = 100.0
        self.sent = 0

    def send(self, line: str = "A", first: int | None = None, last: int | None = None) -> None:
        first = self.sent + 1 if first is None else first
        last = len(self.script.messages) if last is None else last
        self.sent = max(self.sent, last)
        self.follower.receive(line, self.script.packet(first, last), self.now, arrived_at=self.now)
        if self.venue.session and first == 1:
            assert self.snapshot()

    def lose(self) -> None:
        self.sent = len(self.script.messages)

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.follower.tick(self.now)

    def market(self, name: str = "AAPL") -> Market:
        market = self.venue.market(name)
        assert market is not None
        return market

    def state(self, name: str = "AAPL") -> BookState:
        live = self.liveness.is_live(self.now) and not self.follower.is_recovering
        return self.market(name).state(feed_live=live)

    def snapshot(self) -> bool | None:
        self.follower.begin_snapshot()
        return self.merge()

    def taken(self) -> FeedReader:
        reader = snapshot_reader(self.script.session, self.script.next_sequence)
        reader.load(self.script.snapshot("AAPL", "MSFT"))
        return reader

    def merge(self) -> bool | None:
        return self.follower.merge(self.taken(), self.script.next_sequence, self.now)


def trade_out(world: World) -> None:
    world.script.add("AAPL", 1, "B", 10, 10_000)
    world.script.add("AAPL", 2, "S", 10, 10_100)
    world.script.execute(1, 4, 77)


def test_books_trades_phase_and_close_are_as_the_venue_says() -> None:
    world = World()
    trade_out(world)
    world.script.close("MSFT")
    world.send()
    market = world.market()
    assert world.state() is BookState.LIVE
    assert world.state("MSFT") is BookState.CLOSED
    assert (market.book.bids(5), market.book.asks(5)) == (world.script.levels("AAPL", "B"), world.script.levels("AAPL", "S"))
    last = market.last_trade
    assert last is not None
    assert (last.match_number, last.price, last.quantity, last.aggressor) == (77, 10_000, 4, Aggressor.SELL)
    assert MIDNIGHT_NS + 36_000_000_000_000 < last.time_ns < MIDNIGHT_NS + 36_000_001_000_000
    assert market.prior_close is not None
    assert (market.prior_close.price, market.prior_close.day.isoformat()) == (10_000, "2026-01-02")
    assert market.sequence == len(world.script.messages)


def test_a_packet_of_both_lines_counts_once() -> None:
    world = World()
    trade_out(world)
    world.send("A", 1)
    world.send("B", 1)
    assert world.market().day.volume == 4
    assert world.venue.misfits == 0


def test_what_one_line_lost_the_other_brings_and_nobody_notices() -> None:
    world = World()
    world.send("A")
    trade_out(world)
    count = len(world.script.messages)
    world.send("A", count, count)
    world.send("B", count - 2, count)
    assert world.state() is BookState.LIVE
    assert world.market().day.volume == 4
    assert not world.asked


def test_what_both_lost_is_asked_for_and_the_book_is_stale_meanwhile() -> None:
    world = World()
    world.send()
    trade_out(world)
    count = len(world.script.messages)
    world.send("A", count, count)
    world.pass_time(0.01)
    assert world.asked == [Request(world.script.session, count - 2, 2)]
    assert world.state() is BookState.STALE
    world.send("requests", count - 2, count - 1)
    assert world.state() is BookState.LIVE
    assert world.market().day.volume == 4


def test_where_no_request_is_answered_a_snapshot_goes_on() -> None:
    world = World()
    world.send()
    world.script.add("AAPL", 1, "B", 10, 10_000)
    world.lose()
    world.script.add("AAPL", 2, "S", 10, 10_100)
    world.send()
    for _ in range(10):
        world.pass_time(0.1)
        world.follower.receive("B", world.script.heartbeat(), world.now, arrived_at=world.now)
    assert world.follower.needs_snapshot
    assert world.state() is BookState.STALE
    assert world.snapshot()
    assert world.state() is BookState.LIVE
    assert world.market().book.bids(5) == [(10_000, 10, 1)]
    assert world.venue.tape_breaks == 1


def test_a_declared_gap_leaves_every_book_stale_until_a_snapshot_catches_up() -> None:
    world = World()
    world.send()
    world.script.add("AAPL", 1, "B", 10, 10_000)
    world.lose()
    world.script.add("AAPL", 2, "S", 10, 10_100)
    world.send()
    for _ in range(10):
        world.pass_time(0.1)
    world.follower.fail_snapshot(world.now)
    assert world.venue.tape_breaks == 1
    assert world.state("MSFT") is BookState.STALE
    world.follower.begin_snapshot()
    reader = world.taken()
    taken_at = world.script.next_sequence
    world.script.add("AAPL", 3, "B", 5, 10_000)
    world.send()
    assert world.state() is BookState.STALE
    assert world.follower.merge(reader, taken_at, world.now)
    assert world.state() is BookState.LIVE
    assert world.market().book.bids(5) == [(10_000, 15, 2)]


def test_a_message_that_does_not_fit_makes_its_instrument_stale_alone() -> None:
    world = World()
    world.send()
    world.script.orders[99] = "AAPL", "B", 5, 10_000
    world.script.execute(99, 2, 5)
    world.send()
    world.pass_time(0.01)
    assert world.state() is BookState.STALE
    assert world.state("MSFT") is BookState.LIVE
    assert world.follower.needs_snapshot
    assert world.snapshot()
    assert world.state() is BookState.LIVE


def test_bytes_that_are_no_message_leave_every_book_in_doubt() -> None:
    world = World()
    world.send()
    world.script.messages.append(b"A too short")
    world.send()
    assert world.state() is BookState.STALE
    assert world.state("MSFT") is BookState.STALE


def test_a_crossed_book_is_never_live() -> None:
    world = World()
    world.script.add("AAPL", 1, "B", 10, 10_100)
    world.script.add("AAPL", 2, "S", 10, 10_100)
    world.send()
    world.pass_time(0.01)
    assert world.state() is BookState.STALE
    assert world.follower.needs_snapshot


def test_a_new_session_empties_the_books_and_the_day_goes_on() -> None:
    world = World()
    trade_out(world)
    world.send()
    world.script = ScriptedVenue(session="2601050002")
    world.script.open("AAPL", "MSFT")
    world.sent = 0
    world.follower.receive("A", world.script.packet(1, 4), world.now, arrived_at=world.now)
    assert world.state() is BookState.STALE, "nothing says that its opening orders are complete"
    assert world.follower.needs_snapshot
    assert world.market().book.bids(5) == []
    world.send()
    assert world.market().day.volume == 4
    assert world.state() is BookState.LIVE


def test_a_snapshot_ahead_of_the_lines_waits_for_them() -> None:
    world = World()
    world.send()
    world.follower.begin_snapshot()
    world.script.add("AAPL", 1, "B", 10, 10_000)
    world.script.execute(1, 4, 7)
    reader, taken_at = world.taken(), world.script.next_sequence
    assert world.follower.merge(reader, taken_at, world.now) is None
    world.send()
    assert world.follower.merge(reader, taken_at, world.now)
    assert world.market().day.volume == 4, "the tape has what a snapshot has not"
    assert world.market().book.bids(5) == [(10_000, 6, 1)]
    assert world.venue.tape_breaks == 0


def test_a_snapshot_of_an_earlier_session_is_of_no_use() -> None:
    world = World()
    world.send()
    reader, taken_at = world.taken(), world.script.next_sequence
    world.script = ScriptedVenue(session="2601050002")
    world.script.open("AAPL", "MSFT")
    world.follower.begin_snapshot()
    world.follower.receive("A", world.script.packet(1, 6), world.now, arrived_at=world.now)
    assert world.follower.merge(reader, taken_at, world.now) is False


def test_a_correction_is_a_bust_and_another_trade_of_the_same_time() -> None:
    world = World()
    trade_out(world)
    world.script.execute(1, 1, 78)
    world.script.correct(77, 3, 9_000)
    world.send()
    day = world.market().day
    assert (day.volume, day.low, day.open) == (4, 9_000, 9_000)
    assert day.last is not None
    assert day.last.match_number == 78
    _, trades = world.venue.take_changes()
    assert [(trade.match_number, trade.price, trade.busted) for trade in trades] == [
        (77, 10_000, False), (78, 10_000, False), (77, 10_000, True), (77, 9_000, False),
    ]  # fmt: skip
    assert trades[3].time_ns == trades[0].time_ns


def test_two_silent_seconds_end_liveness_and_one_packet_brings_it_back() -> None:
    world = World()
    world.send()
    world.pass_time(2.01)
    assert world.state() is BookState.STALE
    world.follower.receive("B", world.script.heartbeat(), world.now, arrived_at=world.now)
    assert world.state() is BookState.LIVE


def test_a_backlog_is_no_sign_of_life() -> None:
    world = World()
    world.send()
    world.now += 10
    world.follower.receive("A", world.script.heartbeat(), world.now, arrived_at=world.now - 9)
    assert world.state() is BookState.STALE


def test_an_ended_session_is_stale_though_its_end_is_repeated() -> None:
    world = World()
    world.send()
    world.follower.receive("A", encode_end_of_session(world.script.session, world.script.next_sequence), world.now, arrived_at=world.now)
    assert world.state() is BookState.STALE


def test_a_bust_takes_the_trade_out_and_an_unknown_one_is_noted() -> None:
    world = World()
    trade_out(world)
    world.script.bust(77)
    world.script.trades[5] = "AAPL", 1, 1
    world.script.bust(5)
    world.send()
    assert world.market().day.volume == 0
    assert world.market().last_trade is None
    _, trades = world.venue.take_changes()
    assert [(trade.match_number, trade.busted) for trade in trades] == [(77, False), (77, True)]
    assert [bust.match_number for bust in world.venue.unknown_busts] == [5]


def test_a_snapshot_finds_a_trade_that_did_not_fit_and_brings_no_busted_one_back() -> None:
    world = World()
    world.script.add("AAPL", 1, "B", 10, 10_000)
    world.send()
    taken = world.taken(), world.script.next_sequence
    # The follower loses an order that the venue has.
    world.market().book.delete(1)
    world.follower.begin_snapshot()
    for match in (7, 8):
        world.script.execute(1, 1, match)
    world.script.add("AAPL", 2, "B", 10, 10_000)
    for match in (9, 10):
        world.script.execute(2, 1, match)
    world.script.bust(9)
    world.send()
    assert world.venue.misfits == 2
    assert world.follower.merge(*taken, world.now)
    _, trades = world.venue.take_changes()
    assert [(trade.match_number, trade.busted) for trade in trades] == [(9, False), (10, False), (9, True), (7, False), (8, False)]
    assert world.market().day.volume == 3


@pytest.mark.parametrize(("symbol", "lot_units"), [("not an id", 1), ("MSFT", 0)])
def test_an_instrument_that_cannot_be_shown_is_left_out_and_harms_no_other(symbol: str, lot_units: int) -> None:
    script, venue = ScriptedVenue(), Venue()
    follower = FeedFollower(venue, Liveness(), lambda request: None)
    script.open("AAPL")
    script.say(InstrumentDefinition(2, 0, 0, "MSFT", symbol, "E", "USD", 2, 1, 0, lot_units, 10))
    script.add("MSFT", 5, "B", 1, 1)
    follower.begin_snapshot()
    follower.receive("A", script.packet(1, len(script.messages)), 1.0, arrived_at=1.0)
    reader = snapshot_reader(script.session, 1)
    reader.load(())
    assert follower.merge(reader, 1, 1.0)
    assert venue.instrument_ids() == ["AAPL"]
    assert venue.is_continuous


def test_a_session_dates_its_times_by_its_name() -> None:
    assert session_midnight_ns("2601050001") == MIDNIGHT_NS
    assert session_midnight_ns("ABCDEFGHIJ") is None
