"""A venue that publishes, and a receiver that knows nothing but the packets: one book, one tape, whatever happens to either."""

import random
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kernel.itch.arbiter import Arbiter
from kernel.itch.moldudp64 import decode_packet
from kernel.itch.steps import ArbiterStep, Delivered, GapDeclared, RequestNeeded, SessionBegan, SnapshotAccepted, SnapshotNeeded
from sandbox.exchange.engine.state import VenueState
from sandbox.exchange.exchange import Exchange
from sandbox.exchange.market_data import publisher
from sandbox.exchange.market_data.publisher import FeedSettings, ItchPublisher
from sandbox.exchange.market_data.session_names import SessionNames
from sandbox.exchange.tap import resting_orders
from tests.simulation.exchange.harness import Client, World
from tests.simulation.exchange.itch_follower import Follower, Rest

INSTRUMENTS = ("AAPL", "BTC-USD")


class Receiver:
    """Arbitrates, follows, and recovers from the publisher by calls instead of sockets."""

    def __init__(self, feed: "Feed") -> None:
        self.feed = feed
        self.arbiter = Arbiter()
        self.follower = Follower()
        self.sessions: list[str] = []
        self.gaps = 0
        self.is_in_doubt = False
        self.snapshots = 0

    def receive(self, line: str, packet: bytes) -> None:
        self.note(self.arbiter.receive(line, packet, self.feed.clock.monotonic()))

    def tick(self) -> None:
        self.note(self.arbiter.tick(self.feed.clock.monotonic()))

    def note(self, steps: list[ArbiterStep]) -> None:
        for step in steps:
            match step:
                case SessionBegan():
                    self.sessions.append(step.session)
                    self.is_in_doubt = False
                    self.follower.clear_books()
                case Delivered() if not self.is_in_doubt:
                    for message in step.messages:
                        self.follower.apply(message)
                case RequestNeeded():
                    for packet in list(self.feed.publisher.answer(step.request)):
                        self.receive("answers", packet)
                case SnapshotNeeded():
                    self.fetch()
                case SnapshotAccepted():
                    raise AssertionError("accepted where it was fetched only")
                case GapDeclared():
                    self.gaps += 1
                    self.is_in_doubt = True
                case _:
                    pass

    def fetch(self) -> None:
        source = self.feed.publisher.snapshot()
        assert source is not None
        steps = self.arbiter.snapshot(source.session, source.next_sequence, self.feed.clock.monotonic())
        for position, step in enumerate(steps):
            if isinstance(step, SnapshotAccepted):
                self.snapshots += 1
                self.note(steps[:position])
                self.follower.clear_books()
                for message in source.messages:
                    self.follower.apply(message)
                self.note(steps[position + 1 :])
                return
        self.note(steps)


class Feed(World):
    """A world whose exchange publishes to one receiver."""

    def __init__(self, directory: Path) -> None:
        self.publisher: ItchPublisher
        self.receiver: Receiver
        self.packets: list[tuple[str, bytes]] = []
        self.pace = 1_000_000
        super().__init__(directory)
        self.receiver = Receiver(self)
        self.restart()

    def restart(self) -> None:
        """Lose everything that is not on disk, and publish again."""
        self.exchange.journal.close()
        names = SessionNames(self.settings.journal_directory / "market-data-session.json")
        self.publisher = ItchPublisher(FeedSettings(packets_per_second=self.pace), self.clock, names, self.transmit)
        self.exchange = Exchange(self.settings, self.clock, self.publisher)
        self.publisher.open(self.exchange.state)

    def transmit(self, line: str, packet: bytes) -> None:
        self.packets.append((line, packet))
        self.receiver.receive(line, packet)

    def rest(self) -> None:
        """Let everything arrive: what waits is sent, what is missing is asked for."""
        for _ in range(50):
            self.clock.advance(0.6)
            self.exchange.tick()
            self.settle()
            self.publisher.pulse()
            self.receiver.tick()
        assert self.publisher.failure is None

    def let_leave(self) -> None:
        """Let what waits for its pace be sent: more than a burst in no time at all does."""
        while self.receiver.arbiter.next_sequence < self.publisher.next_sequence:
            self.clock.advance(0.001)
            self.publisher.pump()

    def check_books(self) -> None:
        for stock in INSTRUMENTS:
            assert self.receiver.follower.queue(stock) == engine_queue(self.exchange.state, stock)


def engine_queue(state: VenueState, stock: str) -> list[Rest]:
    units = state.markets[stock].instrument.prices.units
    return [
        Rest(order.book_reference, "B" if order.side == "1" else "S", order.leaves_quantity, order.price * units)
        for order in resting_orders(state, stock)
    ]


@pytest.fixture
def feed(tmp_path: Path) -> Feed:
    return Feed(tmp_path)


def members(feed: Feed) -> tuple[Client, Client]:
    alpha, beta = Client(feed), Client(feed, "BETA")
    assert alpha.logon()
    assert beta.logon()
    return alpha, beta


def act(feed: Feed, clients: tuple[Client, Client], dice: random.Random, number: int) -> None:
    """One random thing that members or the operator do."""
    client = clients[dice.randrange(2)]
    live = feed.exchange.state.open_orders_of(client.name)
    what = dice.choice(("new", "new", "new", "cancel", "replace", "bust", "correct", "flow", "time"))
    if what == "new":
        symbol, price, quantity = dice.choice((("AAPL", str(dice.randint(95, 105)), "7"), ("BTC-USD", "50000.5", "0.0003")))
        client.send(client.order(f"n{number}", dice.choice("12"), quantity, price, t55=symbol, t59=dice.choice("013")))
    elif what == "cancel" and live:
        order = dice.choice(live)
        client.send(client.cancel(f"c{number}", order.client_order_id, order.side, t55=order.instrument))
    elif what == "replace" and live:
        order = dice.choice(live)
        instrument = feed.exchange.state.markets[order.instrument].instrument
        quantity = instrument.quantities.text(dice.randint(1, 12))
        price = instrument.prices.text(max(order.price + dice.choice((-1, 0, 0, 1)), 1))
        client.send(client.replace(f"r{number}", order.client_order_id, quantity, price, order.side, t55=order.instrument))
    elif what in ("bust", "correct") and feed.exchange.state.trades:
        trade = dice.choice(list(feed.exchange.state.trades.values()))
        quantity_left = 0 if what == "bust" else max(trade.quantity - dice.randint(0, 2), 0)
        feed.exchange.venue.correct_trade(trade.match_id, trade.price + dice.randint(0, 1), quantity_left)
        feed.settle()
    elif what == "flow":
        feed.exchange.venue.step_flow()
        feed.settle()
    elif what == "time":
        feed.pass_time(dice.choice((0.01, 1, 3_600)))


@given(seed=st.integers(0, 2**32), loss=st.sampled_from((0.0, 0.2)))
@example(seed=3_064_596, loss=0.0)  # more than a burst of packets in no time
@settings(max_examples=25, deadline=None)
def test_the_book_of_the_packets_is_the_engines(tmp_path_factory: pytest.TempPathFactory, seed: int, loss: float) -> None:
    feed, dice = Feed(tmp_path_factory.mktemp("feed")), random.Random(seed)
    feed.publisher.faults.add({"action": "duplicate", "line": "A", "skip": 3, "count": 5})
    clients, restarts = members(feed), 0
    for number in range(60):
        if dice.random() < loss:
            action = dice.choice(("drop", "reorder", "duplicate", "silence", "lose"))
            feed.publisher.faults.add(
                {"action": action, "line": "*" if action == "lose" else dice.choice("AB*"), "count": dice.randint(1, 3)}
            )
        act(feed, clients, dice, number)
        if dice.random() < 0.03:
            feed.restart()
            restarts += 1
            assert all(client.logon() for client in clients)
        if not loss:
            feed.let_leave()
            feed.check_books()
    feed.publisher.faults.clear()
    feed.rest()
    feed.check_books()
    # What was being recovered when the venue died is gone with its session.
    assert restarts or not feed.receiver.gaps
    assert feed.receiver.sessions == sorted(set(feed.receiver.sessions))


def trades_of(feed: Feed) -> dict[int, tuple[str, int, int]]:
    """The trades that stand, as the engine knows them."""
    return {
        trade.match_id: (
            trade.instrument,
            trade.quantity,
            trade.price * feed.exchange.state.markets[trade.instrument].instrument.prices.units,
        )
        for trade in feed.exchange.state.trades.values()
        if trade.quantity
    }


def test_the_tape_has_every_trade_as_it_stands(feed: Feed) -> None:
    clients, dice = members(feed), random.Random(3)
    for number in range(400):
        act(feed, clients, dice, number)
    feed.rest()
    known = trades_of(feed)
    assert known
    assert {number: tuple(feed.receiver.follower.trades[number]) for number in known} == known
    busted = {trade.match_id for trade in feed.exchange.state.trades.values() if not trade.quantity}
    assert busted
    assert not busted & set(feed.receiver.follower.trades)
    assert {"A", "E", "X", "D", "U", "B", "P"} <= set(feed.receiver.follower.types)


def test_a_quantity_beyond_32_bits_is_one_order_and_one_trade(tmp_path: Path) -> None:
    feed = Feed(tmp_path)
    listing = feed.exchange.state.markets["BTC-USD"].instrument
    object.__setattr__(listing, "quantity_max", 2**40)
    object.__setattr__(listing, "value_max", 2**62)
    alpha, beta = members(feed)
    large = listing.quantities.text(2**33 + 5)
    alpha.send(alpha.order("a", "1", large, "50000", t55="BTC-USD"))
    alpha.send(alpha.replace("a2", "a", listing.quantities.text(2**33 + 3), "50000", t55="BTC-USD"))
    alpha.send(alpha.replace("a3", "a2", listing.quantities.text(2**33 + 1), "50001", t55="BTC-USD"))
    feed.check_books()
    beta.send(beta.order("b", "2", listing.quantities.text(2**33), "50000", t55="BTC-USD"))
    (trade,) = feed.exchange.state.trades.values()
    feed.exchange.venue.correct_trade(trade.match_id, trade.price, trade.quantity - 1)
    feed.settle()
    feed.check_books()
    assert feed.receiver.follower.trades[trade.match_id].shares == 2**33 - 1
    assert {"a", "u", "e", "p"} <= set(feed.receiver.follower.types)


def test_scale_lot_day_state_and_close_are_told(feed: Feed) -> None:
    follower = feed.receiver.follower
    assert follower.definitions["AAPL"] == (2, 1, 0, 1, 10_000)
    # A tick of 0.5 and a lot of 0.0001: prices in tenths, five of them a tick.
    assert follower.definitions["BTC-USD"] == (1, 5, 4, 1, 100_000)
    assert follower.states == {"AAPL": "T", "BTC-USD": "T"} or follower.states["BTC-USD"] == "T"
    today = datetime.fromtimestamp(feed.clock.now_ns() // 10**9, UTC).date()
    trade_date, close_date, close_price = follower.days["BTC-USD"]
    assert trade_date == int(f"{today:%Y%m%d}")
    assert close_date < trade_date
    assert close_price == 500_000


def test_a_session_says_when_its_opening_books_are_whole(feed: Feed) -> None:
    alpha, beta = members(feed)
    alpha.send(alpha.order("a", t59="1"), alpha.order("b", "2", "10", "50100", t55="BTC-USD", t59="1"))
    beta.send(beta.order("c", "2", "40"))
    feed.packets.clear()
    feed.restart()
    told = [message for line, data in feed.packets if line == "A" for message in decode_packet(data).messages]
    assert [chr(message[0]) for message in told] == [*"S", *"RdyQHl", *"RdyQH", *"AA", *"S"]
    assert [chr(message[11]) for message in told if message[:1] == b"S"] == ["O", "S"]


def test_a_day_that_ends_begins_a_session_with_the_new_date_and_close(feed: Feed) -> None:
    alpha, beta = members(feed)
    alpha.send(alpha.order("a", "1", "0.5", "50100", t55="BTC-USD", t59="1"))
    beta.send(beta.order("b", "2", "0.2", "50100", t55="BTC-USD"))
    before = feed.receiver.follower.days["BTC-USD"]
    for _ in range(9):
        feed.pass_time(3_600 * 3)
        feed.publisher.pulse()
    feed.rest()
    trade_date, close_date, close_price = feed.receiver.follower.days["BTC-USD"]
    assert (close_date, close_price) == (before[0], 501_000)
    assert trade_date > before[0]
    assert len(feed.receiver.sessions) == 2
    assert feed.receiver.sessions[0][:6] < feed.receiver.sessions[1][:6]
    feed.check_books()
    shares, price, match_number, dated, _ = feed.receiver.follower.last_trades["BTC-USD"]
    assert (shares, price, dated) == (2_000, 501_000, before[0])
    assert match_number in feed.receiver.follower.trades


def test_a_busted_last_trade_is_not_told_to_who_comes_later(feed: Feed) -> None:
    alpha, beta = members(feed)
    alpha.send(alpha.order("a", "1", "0.5", "50100", t55="BTC-USD", t59="1"))
    beta.send(beta.order("b", "2", "0.2", "50100", t55="BTC-USD"))
    (trade,) = feed.exchange.state.trades.values()
    feed.exchange.venue.correct_trade(trade.match_id, trade.price, 0)
    feed.settle()

    def told() -> set[str]:
        source = feed.publisher.snapshot()
        assert source is not None
        return {chr(message[0]) for message in source.messages}

    assert "l" not in told()
    feed.restart()
    assert "l" not in told()


def test_a_slow_pace_delays_and_loses_nothing(tmp_path: Path) -> None:
    feed = Feed(tmp_path)
    feed.pace = 10
    feed.restart()
    clients, dice = members(feed), random.Random(5)
    waited = 0
    for number in range(300):
        act(feed, clients, dice, number)
        waited = max(waited, feed.publisher.next_sequence - feed.receiver.arbiter.next_sequence)
    assert waited > 20
    feed.rest()
    feed.check_books()
    assert feed.receiver.snapshots == feed.receiver.gaps == 0


def test_too_much_waiting_begins_a_session_with_the_book_as_it_is_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    feed = Feed(tmp_path)
    feed.pace = 1
    feed.restart()
    monkeypatch.setattr(publisher, "PENDING_MESSAGES_MAX", 40)
    clients, dice = members(feed), random.Random(5)
    for number in range(300):
        act(feed, clients, dice, number)
    feed.rest()
    assert feed.publisher.counts.overruns > 0
    feed.check_books()
    assert feed.receiver.gaps == feed.receiver.snapshots == 0


def test_a_snapshot_taken_at_any_moment_goes_on_where_the_feed_does(feed: Feed) -> None:
    clients, dice = members(feed), random.Random(11)
    for number in range(200):
        act(feed, clients, dice, number)
        source = feed.publisher.snapshot()
        assert source is not None
        follower = Follower()
        for message in source.messages:
            follower.apply(message)
        assert {stock: follower.queue(stock) for stock in INSTRUMENTS} == {
            stock: engine_queue(feed.exchange.state, stock) for stock in INSTRUMENTS
        }
        assert source.next_sequence == feed.publisher.next_sequence


def test_a_receiver_that_comes_late_takes_the_session_from_its_start_or_a_snapshot(feed: Feed) -> None:
    clients, dice = members(feed), random.Random(17)
    for number in range(100):
        act(feed, clients, dice, number)
    feed.receiver = late = Receiver(feed)
    for number in range(100, 110):
        act(feed, clients, dice, number)
    feed.rest()
    feed.check_books()
    assert late.arbiter.counts.requests > 0


@pytest.mark.parametrize("wrong", [lambda state: state.markets.clear()])
def test_a_defect_of_the_feed_ends_the_feed_and_not_the_venue(feed: Feed, wrong: Callable[[VenueState], None]) -> None:
    alpha, _ = members(feed)
    alpha.send(alpha.order("a"))
    image = feed.publisher._image
    assert image is not None
    image.orders.clear()
    alpha.send(alpha.cancel("c", "a"))
    assert feed.publisher.failure is not None
    assert feed.publisher.snapshot() is None
    sent = len(feed.packets)
    assert alpha.send(alpha.order("b"))[0].get(150) == "0"
    feed.publisher.pulse()
    assert len(feed.packets) == sent
