"""The venue's state and its only way to change: folding events."""

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import cast

from sandbox.exchange.engine import events
from sandbox.exchange.engine.book import Book
from sandbox.exchange.engine.events import Event
from sandbox.exchange.engine.vocabulary import Order, OrderStatus, Side, Trade
from sandbox.exchange.instruments import Instrument

NEVER_NS = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Retention:
    """How much of the past stays in memory.

    Attributes:
        closed_orders_max: closed and rejected orders that status requests and duplicate checks still see.
        trades_max: trades that can still be corrected.
        transient_owners: owners nobody will ask about (synthetic flow); their closed orders and trades go at once.
    """

    closed_orders_max: int = 100_000
    trades_max: int = 50_000
    transient_owners: frozenset[str] = frozenset()


@dataclass(slots=True)
class Market:
    """What is known of one instrument besides its book. Prices in ticks; `last_price` is 0 before the first trade."""

    instrument: Instrument
    book: Book = field(default_factory=Book)
    tick: str = ""
    lot: str = ""
    is_open: bool = False
    trade_date: str = ""
    phase_ends_ns: int = 0
    close_price: int = 0
    close_date: str = ""
    last_price: int = 0
    last_quantity: int = 0
    last_match_id: int = 0
    last_time_ns: int = 0
    last_trade_date: str = ""

    @property
    def reference_price(self) -> int:
        """The last trade's price, or the prior close; what market orders are valued at."""
        return self.last_price or self.close_price


class VenueState:
    """Everything the venue knows, as a fold of its events."""

    def __init__(self, instruments: Mapping[str, Instrument], retention: Retention | None = None) -> None:
        self.retention = retention or Retention()
        self.markets: dict[str, Market] = {symbol: Market(instrument) for symbol, instrument in instruments.items()}
        self.sequence = 0
        self.time_ns = 0
        self.orders: dict[int, Order] = {}
        self.open_orders: dict[str, dict[int, Order]] = {}
        self.by_client_order_id: dict[tuple[str, str], Order | events.Rejected] = {}
        self.closed: deque[Order | events.Rejected] = deque()
        self.trades: dict[int, Trade] = {}
        # The first instant at which some instrument's phase ends; 0 until phases are known.
        self.next_boundary_ns = 0

    def find(self, owner: str, client_order_id: str) -> Order | None:
        """Return the order that has `client_order_id` in its chain."""
        found = self.by_client_order_id.get((owner, client_order_id))
        return found if isinstance(found, Order) else None

    def open_orders_of(self, owner: str) -> list[Order]:
        """Return the owner's open orders, oldest first."""
        return list(self.open_orders.get(owner, {}).values())

    def evolve(self, event: Event) -> None:
        """Fold one event into the state. Events come from `decide` or from the journal, in sequence."""
        _EVOLVE[type(event)](self, event)


def _remember(state: VenueState, event: events.Accepted) -> None:
    order = Order(
        event.sequence, event.owner, event.account, event.client_order_id, event.instrument, event.side, event.order_type,
        event.time_in_force, event.quantity, event.price,
    )  # fmt: skip
    state.orders[order.order_id] = order
    state.by_client_order_id[order.owner, event.client_order_id] = order
    owned = state.open_orders.get(order.owner)
    if owned is None:
        owned = state.open_orders[order.owner] = {}
    owned[order.order_id] = order
    state.sequence = event.sequence
    state.time_ns = event.time_ns


def _close(state: VenueState, order: Order, status: OrderStatus) -> None:
    order.status = status
    order.leaves_quantity = 0
    order.book_reference = 0
    state.open_orders[order.owner].pop(order.order_id, None)
    if order.owner in state.retention.transient_owners:
        _forget(state, order)
    else:
        _retain(state, order)


def _retain(state: VenueState, closed: Order | events.Rejected) -> None:
    state.closed.append(closed)
    if len(state.closed) > state.retention.closed_orders_max:
        _forget(state, state.closed.popleft())


def _forget(state: VenueState, closed: Order | events.Rejected) -> None:
    if isinstance(closed, events.Rejected):
        state.by_client_order_id.pop((closed.owner, closed.client_order_id), None)
        return
    state.orders.pop(closed.order_id, None)
    for client_order_id in (*closed.client_order_ids, closed.cancel_client_order_id):
        state.by_client_order_id.pop((closed.owner, client_order_id), None)


def _evolve_listed(state: VenueState, event: events.Listed) -> None:
    market = state.markets[event.instrument]
    market.tick, market.lot = event.tick, event.lot
    market.close_price, market.close_date = event.close_price, event.close_date
    state.sequence, state.time_ns = event.sequence, event.time_ns


def _evolve_phase(state: VenueState, event: events.PhaseChanged) -> None:
    market = state.markets[event.instrument]
    market.is_open, market.trade_date, market.phase_ends_ns = event.is_open, event.trade_date, event.ends_ns
    state.next_boundary_ns = min(market.phase_ends_ns for market in state.markets.values())
    state.sequence, state.time_ns = event.sequence, event.time_ns


def _evolve_close(state: VenueState, event: events.OfficialClose) -> None:
    market = state.markets[event.instrument]
    market.close_price, market.close_date = event.close_price, event.close_date
    state.sequence, state.time_ns = event.sequence, event.time_ns


def _evolve_rejected(state: VenueState, event: events.Rejected) -> None:
    key = (event.owner, event.client_order_id)
    if key not in state.by_client_order_id:
        state.by_client_order_id[key] = event
        _retain(state, event)
    state.sequence, state.time_ns = event.sequence, event.time_ns


def _evolve_booked(state: VenueState, event: events.Booked) -> None:
    order = state.orders[event.order_id]
    order.book_reference = event.sequence
    state.markets[order.instrument].book.side(order.side).add(order)
    state.sequence = event.sequence


def _fill(state: VenueState, order: Order, price: int, quantity: int) -> None:
    order.leaves_quantity -= quantity
    order.cum_quantity += quantity
    order.value += price * quantity
    if order.book_reference:
        state.markets[order.instrument].book.side(order.side).reduce(order, quantity)
    if order.leaves_quantity == 0:
        _close(state, order, OrderStatus.FILLED)
    else:
        order.status = OrderStatus.PARTIALLY_FILLED


def _evolve_traded(state: VenueState, event: events.Traded) -> None:
    taker, maker = state.orders[event.taker_id], state.orders[event.maker_id]
    _fill(state, maker, event.price, event.quantity)
    _fill(state, taker, event.price, event.quantity)
    market = state.markets[event.instrument]
    market.last_price, market.last_quantity, market.last_match_id = event.price, event.quantity, event.sequence
    market.last_time_ns, market.last_trade_date = event.time_ns, event.trade_date
    state.sequence, state.time_ns = event.sequence + 1, event.time_ns
    transient = state.retention.transient_owners
    if taker.owner in transient and maker.owner in transient:
        return
    buyer, seller = (taker, maker) if event.taker_side is Side.BUY else (maker, taker)
    state.trades[event.sequence] = Trade(
        event.sequence, event.time_ns, event.trade_date, event.instrument, event.price, event.quantity, buyer.order_id, seller.order_id,
        event.taker_side,
    )  # fmt: skip
    if len(state.trades) > state.retention.trades_max:
        # In slices: the front of a dict that only loses its head is slow to find.
        for match_id in list(islice(state.trades, max(1, state.retention.trades_max // 10))):
            del state.trades[match_id]


def _unbook(state: VenueState, order: Order) -> None:
    if order.book_reference:
        state.markets[order.instrument].book.side(order.side).remove(order)
        order.book_reference = 0


def _evolve_canceled(state: VenueState, event: events.Canceled) -> None:
    order = state.orders[event.order_id]
    _unbook(state, order)
    if event.client_order_id:
        order.cancel_client_order_id = event.client_order_id
        state.by_client_order_id[order.owner, event.client_order_id] = order
    _close(state, order, OrderStatus.CANCELED)
    state.sequence, state.time_ns = event.sequence, event.time_ns


def _evolve_expired(state: VenueState, event: events.Expired) -> None:
    order = state.orders[event.order_id]
    _unbook(state, order)
    _close(state, order, OrderStatus.EXPIRED)
    state.sequence, state.time_ns = event.sequence, event.time_ns


def _evolve_replaced(state: VenueState, event: events.Replaced) -> None:
    order = state.orders[event.order_id]
    leaves = event.quantity - order.cum_quantity
    if event.keeps_priority:
        given_up = order.leaves_quantity - leaves
        order.leaves_quantity = leaves
        state.markets[order.instrument].book.side(order.side).reduce(order, given_up)
    else:
        _unbook(state, order)
        order.leaves_quantity = leaves
    order.quantity, order.price, order.time_in_force = event.quantity, event.price, event.time_in_force
    order.client_order_ids.append(event.client_order_id)
    state.by_client_order_id[order.owner, event.client_order_id] = order
    state.sequence, state.time_ns = event.sequence, event.time_ns
    if leaves == 0:
        _close(state, order, OrderStatus.FILLED)


def _evolve_change_rejected(state: VenueState, event: events.ChangeRejected) -> None:
    state.sequence, state.time_ns = event.sequence, event.time_ns


def _correct_order(state: VenueState, order_id: int, trade: Trade, event: events.TradeCorrected) -> None:
    order = state.orders.get(order_id)
    if order is None:
        return
    returned = trade.quantity - event.quantity
    order.value += event.price * event.quantity - trade.price * trade.quantity
    if returned == 0:
        return
    order.cum_quantity -= returned
    if order.status in (OrderStatus.CANCELED, OrderStatus.EXPIRED):
        return
    if order.is_open:
        _unbook(state, order)
    elif order.owner not in state.retention.transient_owners:
        state.closed.remove(order)
    # CumQty falls and LeavesQty rises by what was busted; what becomes of those leaves is the next event's to say.
    order.leaves_quantity += returned
    order.status = OrderStatus.PARTIALLY_FILLED if order.cum_quantity else OrderStatus.NEW
    state.open_orders[order.owner][order.order_id] = order


def _evolve_corrected(state: VenueState, event: events.TradeCorrected) -> None:
    trade = state.trades[event.match_id]
    _correct_order(state, trade.buy_order_id, trade, event)
    _correct_order(state, trade.sell_order_id, trade, event)
    state.trades[event.match_id] = trade._replace(price=event.price, quantity=event.quantity)
    state.sequence, state.time_ns = event.sequence + 1, event.time_ns


_EVOLVE = cast(
    "dict[type[Event], Callable[[VenueState, Event], None]]",
    {
        events.Listed: _evolve_listed,
        events.PhaseChanged: _evolve_phase,
        events.OfficialClose: _evolve_close,
        events.Accepted: _remember,
        events.Rejected: _evolve_rejected,
        events.Booked: _evolve_booked,
        events.Traded: _evolve_traded,
        events.Canceled: _evolve_canceled,
        events.Replaced: _evolve_replaced,
        events.ChangeRejected: _evolve_change_rejected,
        events.Expired: _evolve_expired,
        events.TradeCorrected: _evolve_corrected,
    },
)
