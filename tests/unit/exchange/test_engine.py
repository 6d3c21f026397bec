import pytest

from sandbox.exchange.engine import Engine, events
from sandbox.exchange.engine.commands import AdvanceTime, CancelAll, Command, CorrectTrade, RefuseOrder
from sandbox.exchange.engine.events import Event
from sandbox.exchange.engine.state import Retention
from sandbox.exchange.engine.vocabulary import CancelReason, Order, OrderStatus, RejectReason
from tests.unit.exchange.venues import (
    BUY,
    DAY,
    FOK,
    GTC,
    IOC,
    MARKET,
    MONDAY_NS,
    SELL,
    cancel,
    engine,
    instant_ns,
    new,
    replace,
)  # fmt: skip


@pytest.fixture
def venue() -> Engine:
    opened = engine()
    opened.execute(AdvanceTime(MONDAY_NS))
    return opened


def kinds(happened: list[Event]) -> list[str]:
    return [type(event).__name__ for event in happened]


def order(venue: Engine, client_order_id: str, owner: str = "ALPHA") -> Order:
    found = venue.state.find(owner, client_order_id)
    assert found is not None
    return found


def fills(happened: list[Event]) -> list[tuple[int, int]]:
    return [(event.price, event.quantity) for event in happened if isinstance(event, events.Traded)]


def test_first_command_lists_instruments_with_a_dated_prior_close(venue: Engine) -> None:
    market = venue.state.markets["AAPL"]
    assert (market.is_open, market.trade_date, market.close_price, market.close_date) == (True, "2026-01-05", 10_000, "2026-01-02")


def test_limit_order_rests(venue: Engine) -> None:
    assert kinds(venue.execute(new("a"))) == ["Accepted", "Booked"]
    assert order(venue, "a").status is OrderStatus.NEW
    best = venue.state.markets["AAPL"].book.bids.best
    assert best is not None
    assert (best.price, best.quantity) == (10_000, 100)


def test_incoming_order_trades_at_the_booked_price_best_first_then_oldest(venue: Engine) -> None:
    for name, price in (("late", 10_001), ("best", 9_999), ("old", 10_000), ("young", 10_000)):
        venue.execute(new(name, SELL, 50, price, account="ACC-2"))
    happened = venue.execute(new("taker", BUY, 120, 10_000))
    assert fills(happened) == [(9_999, 50), (10_000, 50), (10_000, 20)]
    assert order(venue, "old").status is OrderStatus.FILLED
    assert (order(venue, "young").cum_quantity, order(venue, "young").leaves_quantity) == (20, 30)
    assert order(venue, "taker").status is OrderStatus.FILLED


def test_remainder_of_a_limit_order_rests_after_trading(venue: Engine) -> None:
    venue.execute(new("maker", SELL, 40, account="ACC-2"))
    assert kinds(venue.execute(new("taker", BUY, 100))) == ["Accepted", "Traded", "Booked"]
    assert order(venue, "taker").status is OrderStatus.PARTIALLY_FILLED


@pytest.mark.parametrize("terms", [{"time_in_force": IOC}, {"order_type": MARKET}])
def test_orders_that_never_rest_cancel_their_remainder(venue: Engine, terms: dict[str, object]) -> None:
    venue.execute(new("maker", SELL, 40, account="ACC-2"))
    happened = venue.execute(new("taker", BUY, 100)._replace(**terms, price=0 if "order_type" in terms else 10_000))  # type: ignore[arg-type]
    assert kinds(happened) == ["Accepted", "Traded", "Canceled"]
    assert happened[-1].reason is CancelReason.REMAINDER  # type: ignore[union-attr]
    assert venue.state.open_orders_of("ALPHA") == []


def test_fill_or_kill_fills_whole_or_not_at_all(venue: Engine) -> None:
    venue.execute(new("maker", SELL, 40, account="ACC-2"))
    assert kinds(venue.execute(new("big", BUY, 41, time_in_force=FOK))) == ["Accepted", "Canceled"]
    assert order(venue, "big").cum_quantity == 0
    assert kinds(venue.execute(new("fits", BUY, 40, time_in_force=FOK))) == ["Accepted", "Traded"]


def test_self_trade_prevention_cancels_the_incoming_remainder(venue: Engine) -> None:
    venue.execute(new("stranger", SELL, 10, 9_999, account="ACC-2"))
    venue.execute(new("own", SELL, 10, 10_000))
    happened = venue.execute(new("taker", BUY, 50, 10_001))
    assert fills(happened) == [(9_999, 10)]
    assert happened[-1].reason is CancelReason.SELF_TRADE  # type: ignore[union-attr]
    assert order(venue, "own").is_open


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        (new("used", quantity=0, instrument="NONE"), RejectReason.DUPLICATE_ORDER),
        (new("a", quantity=0, instrument="NONE"), RejectReason.UNKNOWN_SYMBOL),
        (new("a", quantity=0, order_type=MARKET, time_in_force=GTC), RejectReason.UNSUPPORTED_CHARACTERISTIC),
        (new("a", quantity=0, price=-1), RejectReason.INCORRECT_QUANTITY),
        (new("a", quantity=-5), RejectReason.INCORRECT_QUANTITY),
        (new("a", quantity=10_001, price=-1), RejectReason.QUANTITY_LIMIT),
        (new("a", price=0), RejectReason.INCORRECT_PRICE),
        (new("a", order_type=MARKET)._replace(price=5), RejectReason.INCORRECT_PRICE),
        (new("a", quantity=10_000, price=10_001), RejectReason.NOTIONAL_LIMIT),
    ],
)
def test_orders_are_refused_with_the_first_broken_rule(venue: Engine, command: Command, reason: RejectReason) -> None:
    venue.execute(new("used"))
    (happened,) = venue.execute(command)
    assert isinstance(happened, events.Rejected)
    assert (happened.reason, happened.text) == (reason.name, reason.text)


def test_a_refused_order_keeps_its_client_order_id(venue: Engine) -> None:
    refusal = RefuseOrder(
        MONDAY_NS, "ALPHA", "ACC-1", "bad", "AAPL", "1", "2", "0", "1.5", "10", RejectReason.INCORRECT_QUANTITY, "1.5 lots"
    )
    venue.execute(refusal)
    (happened,) = venue.execute(new("bad"))
    assert isinstance(happened, events.Rejected)
    assert happened.reason == "DUPLICATE_ORDER"


def test_closed_session_takes_cancels_only(venue: Engine) -> None:
    venue.execute(new("gtc", time_in_force=GTC))
    saturday = instant_ns("2026-01-10 15:00")
    (rejected,) = [event for event in venue.execute(new("late", time_ns=saturday)) if isinstance(event, events.Rejected)]
    assert rejected.reason == "EXCHANGE_CLOSED"
    (refused,) = venue.execute(replace("r", "gtc", 50, time_ns=saturday))
    assert isinstance(refused, events.ChangeRejected)
    assert refused.reason == "EXCHANGE_CLOSED"
    assert kinds(venue.execute(cancel("c", "gtc", time_ns=saturday))) == ["Canceled"]


def test_day_orders_expire_at_the_close_and_the_close_is_dated(venue: Engine) -> None:
    venue.execute(new("maker", SELL, 10, 10_050, account="ACC-2"))
    venue.execute(new("taker", BUY, 5, 10_050))
    venue.execute(new("gtc", BUY, 5, 9_000, time_in_force=GTC))
    happened = venue.execute(AdvanceTime(instant_ns("2026-01-05 21:00")))
    assert [kind for kind in kinds(happened) if kind != "PhaseChanged"] == ["Expired", "OfficialClose"]
    assert order(venue, "maker").status is OrderStatus.EXPIRED
    assert order(venue, "gtc").is_open
    market = venue.state.markets["AAPL"]
    assert (market.is_open, market.close_price, market.close_date) == (False, 10_050, "2026-01-05")


def test_a_session_without_trades_keeps_the_older_close(venue: Engine) -> None:
    venue.execute(AdvanceTime(instant_ns("2026-01-05 21:00")))
    assert venue.state.markets["AAPL"].close_date == "2026-01-02"


def test_a_passed_boundary_acts_before_the_command_that_comes_after_it(venue: Engine) -> None:
    venue.execute(new("day", SELL, 10, account="ACC-2"))
    happened = venue.execute(new("next", BUY, 10, time_ns=instant_ns("2026-01-06 14:30")))
    assert "Expired" in kinds(happened)
    assert kinds(happened)[-2:] == ["Accepted", "Booked"]


def test_time_never_runs_backwards(venue: Engine) -> None:
    accepted = venue.execute(new("a", time_ns=1))[0]
    assert isinstance(accepted, events.Accepted)
    assert accepted.time_ns == MONDAY_NS


class TestCancelAndReplace:
    def test_cancel_by_any_id_of_the_chain(self, venue: Engine) -> None:
        venue.execute(new("a"))
        venue.execute(replace("b", "a", 90))
        (canceled,) = venue.execute(cancel("c", "a"))
        assert isinstance(canceled, events.Canceled)
        assert (canceled.quantity, order(venue, "c").status) == (90, OrderStatus.CANCELED)

    @pytest.mark.parametrize(
        ("command", "reason"),
        [
            (cancel("a", "missing"), "DUPLICATE_CLIENT_ORDER_ID"),
            (cancel("x", "missing"), "UNKNOWN_ORDER"),
            (cancel("x", "a", owner="OTHER"), "UNKNOWN_ORDER"),
            (cancel("x", "gone", SELL), "TOO_LATE"),
            (replace("x", "a0", 1, side=SELL), "NOT_CURRENT"),
            (cancel("x", "a", SELL), "MISMATCH"),
            (cancel("x", "a", instrument="BTC-USD"), "MISMATCH"),
            (replace("x", "a", 0, order_type=MARKET), "UNSUPPORTED_CHARACTERISTIC"),
            (replace("x", "a", 50, time_in_force=IOC), "UNSUPPORTED_CHARACTERISTIC"),
            (replace("x", "a", 0, -1), "INCORRECT_QUANTITY"),
            (replace("x", "a", 10_001), "INCORRECT_QUANTITY"),
            (replace("x", "a", 50, -1), "INCORRECT_PRICE"),
            (replace("x", "a", 10_000, 10_001), "NOTIONAL_LIMIT"),
        ],
    )
    def test_refusals_name_the_first_broken_rule(self, venue: Engine, command: Command, reason: str) -> None:
        venue.execute(new("a0"))
        venue.execute(replace("a", "a0", 99))
        venue.execute(new("gone"))
        venue.execute(cancel("gone-c", "gone"))
        (refused,) = venue.execute(command)
        assert isinstance(refused, events.ChangeRejected)
        assert refused.reason == reason

    def test_size_down_keeps_priority(self, venue: Engine) -> None:
        venue.execute(new("first"))
        venue.execute(new("second"))
        assert kinds(venue.execute(replace("first-2", "first", 60))) == ["Replaced"]
        venue.execute(new("taker", SELL, 60, account="ACC-2"))
        assert order(venue, "first").status is OrderStatus.FILLED

    @pytest.mark.parametrize(("quantity", "price"), [(101, 10_000), (100, 10_001), (50, 9_999)])
    def test_size_up_or_another_price_loses_priority(self, venue: Engine, quantity: int, price: int) -> None:
        venue.execute(new("first"))
        reference = order(venue, "first").book_reference
        assert kinds(venue.execute(replace("first-2", "first", quantity, price))) == ["Replaced", "Booked"]
        assert order(venue, "first").book_reference > reference

    def test_replace_into_the_market_trades(self, venue: Engine) -> None:
        venue.execute(new("maker", SELL, 30, 10_005, account="ACC-2"))
        venue.execute(new("a", BUY, 100))
        happened = venue.execute(replace("b", "a", 100, 10_005))
        assert kinds(happened) == ["Replaced", "Traded", "Booked"]
        assert order(venue, "b").leaves_quantity == 70

    @pytest.mark.parametrize(("quantity", "price"), [(30, 10_000), (20, 10_000), (30, 9_000)])
    def test_quantity_at_or_below_what_was_filled_means_filled(self, venue: Engine, quantity: int, price: int) -> None:
        venue.execute(new("a", BUY, 100))
        venue.execute(new("taker", SELL, 30, account="ACC-2"))
        (happened,) = venue.execute(replace("b", "a", quantity, price))
        assert isinstance(happened, events.Replaced)
        assert (happened.quantity, order(venue, "b").status, order(venue, "b").leaves_quantity) == (30, OrderStatus.FILLED, 0)
        assert venue.state.markets["AAPL"].book.bids.best is None

    def test_cancel_all_of_an_owner(self, venue: Engine) -> None:
        venue.execute(new("a"))
        venue.execute(new("b"))
        venue.execute(new("c", owner="OTHER"))
        assert kinds(venue.execute(CancelAll(MONDAY_NS, "ALPHA", CancelReason.DISCONNECT))) == ["Canceled", "Canceled"]
        assert order(venue, "c", "OTHER").is_open


class TestCorrections:
    def traded(self, venue: Engine, maker_quantity: int) -> events.Traded:
        venue.execute(new("maker", SELL, maker_quantity, account="ACC-2"))
        (trade,) = [event for event in venue.execute(new("taker", BUY, 40)) if isinstance(event, events.Traded)]
        return trade

    def test_bust_returns_quantity_to_an_open_order_at_the_back_and_cancels_it_on_a_filled_one(self, venue: Engine) -> None:
        trade = self.traded(venue, 100)
        reference = order(venue, "maker").book_reference
        happened = venue.execute(CorrectTrade(MONDAY_NS, trade.sequence, trade.price, 0))
        assert kinds(happened) == ["TradeCorrected", "Canceled", "Booked"]
        maker, taker = order(venue, "maker"), order(venue, "taker")
        assert (maker.cum_quantity, maker.leaves_quantity, maker.value, maker.status) == (0, 100, 0, OrderStatus.NEW)
        assert maker.book_reference > reference
        assert (taker.cum_quantity, taker.leaves_quantity, taker.status) == (0, 0, OrderStatus.CANCELED)

    def test_price_correction_changes_value_only(self, venue: Engine) -> None:
        trade = self.traded(venue, 100)
        assert kinds(venue.execute(CorrectTrade(MONDAY_NS, trade.sequence, 9_990, 40))) == ["TradeCorrected"]
        assert (order(venue, "maker").value, order(venue, "taker").value) == (399_600, 399_600)
        assert order(venue, "taker").status is OrderStatus.FILLED

    def test_bust_of_a_cancelled_order_keeps_its_status(self, venue: Engine) -> None:
        trade = self.traded(venue, 100)
        venue.execute(cancel("c", "maker", SELL))
        venue.execute(CorrectTrade(MONDAY_NS, trade.sequence, trade.price, 10))
        maker = order(venue, "maker")
        assert (maker.status, maker.cum_quantity, maker.leaves_quantity) == (OrderStatus.CANCELED, 10, 0)

    @pytest.mark.parametrize(("match", "price", "quantity"), [(999, 1, 0), (0, 10_000, 41), (0, -1, 40), (0, 10_000, 40)])
    def test_impossible_corrections_change_nothing(self, venue: Engine, match: int, price: int, quantity: int) -> None:
        trade = self.traded(venue, 100)
        assert venue.execute(CorrectTrade(MONDAY_NS, match or trade.sequence, price, quantity)) == []

    def test_a_busted_trade_cannot_be_busted_again(self, venue: Engine) -> None:
        trade = self.traded(venue, 100)
        bust = CorrectTrade(MONDAY_NS, trade.sequence, trade.price, 0)
        venue.execute(bust)
        assert venue.execute(bust) == []


class TestRetention:
    def test_only_the_latest_closed_orders_are_kept(self) -> None:
        venue = engine(Retention(closed_orders_max=2))
        for name in "abc":
            venue.execute(new(name, time_in_force=IOC))
        assert [venue.state.find("ALPHA", name) is None for name in "abc"] == [True, False, False]
        assert len(venue.state.orders) == 2

    def test_orders_of_transient_owners_go_when_they_close(self) -> None:
        venue = engine(Retention(transient_owners=frozenset({"FLOW"})))
        venue.execute(new("m", SELL, owner="FLOW"))
        venue.execute(new("t", BUY, owner="FLOW", account="ACC-2"))
        assert (venue.state.orders, venue.state.trades, venue.state.by_client_order_id) == ({}, {}, {})

    def test_an_order_reopened_by_a_bust_survives_its_place_among_the_closed(self) -> None:
        venue = engine(Retention(closed_orders_max=1))
        venue.execute(new("maker", SELL, 100, account="ACC-2", time_in_force=DAY))
        trade = venue.execute(new("taker", BUY, 100))[1]
        venue.execute(CorrectTrade(MONDAY_NS, trade.sequence, 10_000, 0))
        assert order(venue, "taker").status is OrderStatus.CANCELED
