from itertools import pairwise

from sandbox.exchange.engine import Engine
from sandbox.exchange.engine.commands import AdvanceTime
from sandbox.exchange.engine.state import Retention
from sandbox.exchange.flow import FLOW_OWNER, FlowSettings, SyntheticFlow
from tests.unit.exchange.venues import BUY, IOC, MONDAY_NS, SELL, engine, instruments, new


def run(seed: int, ticks: int, settings: FlowSettings | None = None) -> Engine:
    venue = engine(Retention(transient_owners=frozenset({FLOW_OWNER})))
    venue.execute(AdvanceTime(MONDAY_NS))
    flow = SyntheticFlow(seed, instruments(), settings)
    for tick in range(ticks):
        for command in flow.commands(tick, MONDAY_NS):
            venue.execute(command)
    return venue


def test_a_tick_is_a_pure_function_of_the_seed() -> None:
    one, two = SyntheticFlow(3, instruments()), SyntheticFlow(3, instruments())
    list(one.commands(1, MONDAY_NS))
    assert list(one.commands(500, MONDAY_NS)) == list(two.commands(500, MONDAY_NS))
    assert list(one.commands(500, MONDAY_NS)) != list(SyntheticFlow(4, instruments()).commands(500, MONDAY_NS))


def test_the_fundamental_moves_smoothly_and_stays_near_the_close() -> None:
    flow = SyntheticFlow(11, instruments())
    prices = [flow.fundamental("BTC-USD", tick) for tick in range(5_000)]
    assert prices[0] == 100_000
    assert len(set(prices)) > 500
    assert all(97_000 < price < 103_000 for price in prices)
    assert max(abs(after - before) for before, after in pairwise(prices)) < 100


def test_books_have_depth_trade_and_move() -> None:
    venue = run(5, 200)
    for market in venue.state.markets.values():
        bid, ask = market.book.bids.best, market.book.asks.best
        assert bid is not None
        assert ask is not None
        assert bid.price < ask.price
        assert market.last_price
    first = run(5, 20)
    assert first.state.markets["AAPL"].last_price != venue.state.markets["AAPL"].last_price


def test_the_flow_cleans_up_after_itself() -> None:
    venue = run(5, 300)
    assert len(venue.state.orders) < 100


def test_a_limit_order_near_the_touch_fills() -> None:
    venue = run(5, 50)
    flow = SyntheticFlow(5, instruments())
    bid = venue.state.markets["AAPL"].book.bids.best
    assert bid is not None
    venue.execute(new("client", BUY, 20, bid.price))
    for tick in range(50, 400):
        for command in flow.commands(tick, MONDAY_NS):
            venue.execute(command)
    order = venue.state.find("ALPHA", "client")
    assert order is not None
    assert order.cum_quantity == 20


def test_with_ample_depth_a_large_marketable_order_fills() -> None:
    venue = run(5, 10, FlowSettings(ample_depth=True))
    ask = venue.state.markets["AAPL"].book.asks.best
    assert ask is not None
    venue.execute(new("buy", BUY, 9_000, ask.price + 50, time_in_force=IOC))
    venue.execute(new("sell", SELL, 9_000, ask.price - 50, time_in_force=IOC, account="ACC-2"))
    for name in ("buy", "sell"):
        order = venue.state.find("ALPHA", name)
        assert order is not None
        assert order.cum_quantity == 9_000
