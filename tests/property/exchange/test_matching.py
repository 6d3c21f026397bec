"""The engine against a naive matcher, and the rules that hold whatever comes in."""

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from sandbox.exchange.engine import Engine, codec, events
from sandbox.exchange.engine.commands import AdvanceTime, Command
from sandbox.exchange.engine.snapshot import dump_state, load_state
from sandbox.exchange.engine.state import Retention, VenueState
from sandbox.exchange.engine.vocabulary import CancelReason
from tests.property.exchange.reference import NaiveBook
from tests.unit.exchange.venues import BUY, DAY, FOK, GTC, IOC, LIMIT, MARKET, MONDAY_NS, SELL, cancel, engine, instruments, new, replace

Operation = tuple[Any, ...]

_owners = st.sampled_from([("ALPHA", "A-1"), ("ALPHA", "A-2"), ("BETA", "B-1")])
_quantities, _prices = st.integers(1, 30), st.integers(9_996, 10_004)
_enter = st.tuples(
    st.just("new"), _owners, st.booleans(), st.sampled_from([(LIMIT, DAY), (LIMIT, GTC), (LIMIT, IOC), (LIMIT, FOK), (MARKET, DAY)]),
    _quantities, _prices,
)  # fmt: skip
_cancel = st.tuples(st.just("cancel"), st.integers(0, 60))
_replace = st.tuples(st.just("replace"), st.integers(0, 60), _quantities, _prices)
_operations = st.lists(st.one_of(_enter, _enter, _enter, _cancel, _replace), max_size=60)


class Play:
    """Gives both engines the same operations. Orders are named by their first ClOrdID."""

    def __init__(self) -> None:
        self.engine = engine()
        self.engine.execute(AdvanceTime(MONDAY_NS))
        self.naive = NaiveBook()
        self.history: list[events.Event] = []
        self.orders: list[tuple[str, tuple[str, str], bool]] = []
        self.current: dict[str, str] = {}

    def execute(self, command: Command) -> list[events.Event]:
        happened = self.engine.execute(command)
        self.history += happened
        return happened

    def apply(self, number: int, operation: Operation) -> None:
        if operation[0] == "new":
            _, (owner, account), is_buy, (order_type, time_in_force), quantity, price = operation
            name = f"o{number}"
            self.orders.append((name, (owner, account), is_buy))
            self.current[name] = name
            side = BUY if is_buy else SELL
            self.execute(new(name, side, quantity, price, owner=owner, account=account, order_type=order_type, time_in_force=time_in_force))
            limit = None if order_type is MARKET else price
            rests = limit is not None and time_in_force in (DAY, GTC)
            self.naive.enter(name, (owner, account), is_buy, limit, quantity, rests=rests, whole=time_in_force is FOK)
        elif self.orders:
            name, (owner, _), is_buy = self.orders[operation[1] % len(self.orders)]
            side = BUY if is_buy else SELL
            if operation[0] == "cancel":
                self.execute(cancel(f"c{number}", self.current[name], side, owner=owner))
                self.naive.cancel(name)
            else:
                _, _, quantity, price = operation
                happened = self.execute(replace(f"r{number}", self.current[name], quantity, price, side, owner=owner))
                if isinstance(happened[0], events.Replaced):
                    self.current[name] = f"r{number}"
                self.naive.replace(name, quantity, price)

    def queue(self, is_buy: bool) -> list[tuple[str, int, int]]:
        side = self.engine.state.markets["AAPL"].book.side(BUY if is_buy else SELL)
        return [(order.client_order_ids[0], order.price, order.leaves_quantity) for level in side for order in level.orders.values()]


@given(_operations)
@settings(max_examples=150, deadline=None)
def test_engine_agrees_with_a_naive_matcher(operations: list[Operation]) -> None:
    play = Play()
    for number, operation in enumerate(operations):
        play.apply(number, operation)
        assert play.queue(True) == play.naive.queue(True)
        assert play.queue(False) == play.naive.queue(False)
    names = {order_id: order.client_order_ids[0] for order_id, order in play.engine.state.orders.items()}
    traded = [
        (names[event.taker_id], names[event.maker_id], event.price, event.quantity)
        for event in play.history
        if isinstance(event, events.Traded)
    ]
    assert traded == play.naive.trades


def check_invariants(state: VenueState, history: list[events.Event]) -> None:
    for market in state.markets.values():
        bid, ask = market.book.bids.best, market.book.asks.best
        assert bid is None or ask is None or bid.price < ask.price, "a crossed book"
        for side in (market.book.bids, market.book.asks):
            for level in side:
                assert level.quantity == sum(order.leaves_quantity for order in level.orders.values())
                assert all(order.leaves_quantity > 0 and order.is_open and order.book_reference for order in level.orders.values())
    canceled: dict[int, int] = {}
    for event in history:
        if isinstance(event, events.Canceled | events.Expired):
            canceled[event.order_id] = canceled.get(event.order_id, 0) + event.quantity
    bought = sold = 0
    for order in state.orders.values():
        assert order.quantity == order.cum_quantity + order.leaves_quantity + canceled.get(order.order_id, 0)
        bought += order.cum_quantity if order.side is BUY else 0
        sold += order.cum_quantity if order.side is SELL else 0
    assert bought == sold, "quantity came from nowhere"


@given(_operations)
@settings(max_examples=100, deadline=None)
def test_no_crossed_book_and_no_quantity_lost(operations: list[Operation]) -> None:
    play = Play()
    for number, operation in enumerate(operations):
        play.apply(number, operation)
        check_invariants(play.engine.state, play.history)


@given(_operations)
@settings(max_examples=75, deadline=None)
def test_sequences_rise_without_reuse_and_folding_the_events_gives_the_same_state(operations: list[Operation]) -> None:
    play = Play()
    for number, operation in enumerate(operations):
        play.apply(number, operation)
    play.execute(AdvanceTime(MONDAY_NS + 10 * 3600 * 10**9))
    assert [event.sequence for event in play.history] == sorted({event.sequence for event in play.history})
    state = VenueState(instruments())
    for event in engine().execute(AdvanceTime(MONDAY_NS)) + play.history:
        state.evolve(codec.decode(json.loads(json.dumps(codec.encode(event)))))
    assert dump_state(state) == dump_state(play.engine.state)


@given(_operations, _operations)
@settings(max_examples=50, deadline=None)
def test_a_venue_restored_from_a_snapshot_goes_on_as_if_nothing_had_happened(before: list[Operation], after: list[Operation]) -> None:
    play = Play()
    for number, operation in enumerate(before):
        play.apply(number, operation)
    document = json.loads(json.dumps(dump_state(play.engine.state)))
    restored = Play()
    restored.engine = Engine(instruments(), state=load_state(document, instruments(), Retention()))
    restored.orders, restored.current = list(play.orders), dict(play.current)
    play.history.clear()
    for number, operation in enumerate(after, start=len(before)):
        play.apply(number, operation)
        restored.apply(number, operation)
    assert restored.history == play.history
    assert dump_state(restored.engine.state) == dump_state(play.engine.state)


@given(_operations)
@settings(max_examples=30, deadline=None)
def test_equal_commands_give_equal_events(operations: list[Operation]) -> None:
    first, second = Play(), Play()
    for number, operation in enumerate(operations):
        first.apply(number, operation)
        second.apply(number, operation)
    assert first.history == second.history
    assert all(event.reason is not CancelReason.BUSTED for event in first.history if isinstance(event, events.Canceled))
