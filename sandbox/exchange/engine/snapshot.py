"""The venue's state as one JSON document, and back: a shorter way to the same state than folding every event."""

from collections.abc import Mapping
from typing import Any

from sandbox.exchange.engine import events
from sandbox.exchange.engine.book import BookSide
from sandbox.exchange.engine.state import Market, Retention, VenueState
from sandbox.exchange.engine.vocabulary import Order, OrderStatus, OrderType, Side, TimeInForce, Trade
from sandbox.exchange.instruments import Instrument

FORMAT = 1
_MARKET_FIELDS = (
    "tick", "lot", "is_open", "trade_date", "phase_ends_ns", "close_price", "close_date", "last_price", "last_quantity", "last_match_id",
    "last_time_ns", "last_trade_date",
)  # fmt: skip
_ORDER_FIELDS = (
    "order_id", "owner", "account", "client_order_ids", "cancel_client_order_id", "instrument", "side", "order_type", "time_in_force",
    "quantity", "price", "cum_quantity", "leaves_quantity", "value", "status", "book_reference",
)  # fmt: skip


class SnapshotError(ValueError):
    """The snapshot does not fit this release or this instruments file."""


def _queue(side: BookSide) -> list[int]:
    return [order_id for level in side for order_id in level.orders]


def dump_state(state: VenueState) -> dict[str, Any]:
    """Return the state as JSON values."""
    rejected = [event for event in state.closed if isinstance(event, events.Rejected)]
    return {
        "format": FORMAT,
        "sequence": state.sequence,
        "time_ns": state.time_ns,
        "next_boundary_ns": state.next_boundary_ns,
        "markets": {symbol: [getattr(market, name) for name in _MARKET_FIELDS] for symbol, market in state.markets.items()},
        "books": {symbol: [_queue(market.book.bids), _queue(market.book.asks)] for symbol, market in state.markets.items()},
        "orders": [[getattr(order, name) for name in _ORDER_FIELDS] for order in state.orders.values()],
        "open_orders": {owner: list(owned) for owner, owned in state.open_orders.items()},
        # The order in which closed business is forgotten; a rejection is told by its sequence, an order by its id.
        "closed": [closed.sequence if isinstance(closed, events.Rejected) else closed.order_id for closed in state.closed],
        "rejected": rejected,
        "trades": list(state.trades.values()),
    }


def load_state(document: Mapping[str, Any], instruments: Mapping[str, Instrument], retention: Retention) -> VenueState:
    """Rebuild the state.

    Raises:
        SnapshotError: another format, or an instrument of the snapshot is no longer listed.
    """
    if document["format"] != FORMAT:
        raise SnapshotError(f"snapshot format {document['format']}, expected {FORMAT}")
    missing = sorted(set(document["markets"]) - set(instruments))
    if missing:
        raise SnapshotError(f"instrument {missing[0]} has a history here and must stay in the instruments file")
    state = VenueState(instruments, retention)
    state.sequence, state.time_ns = document["sequence"], document["time_ns"]
    # Instruments that were added since have no phase yet: the next command lists them.
    state.next_boundary_ns = document["next_boundary_ns"] if set(document["markets"]) == set(instruments) else 0
    for symbol, fields in document["markets"].items():
        _load_market(state.markets[symbol], fields)
    for fields in document["orders"]:
        order = _load_order(fields)
        state.orders[order.order_id] = order
        for client_order_id in filter(None, (*order.client_order_ids, order.cancel_client_order_id)):
            state.by_client_order_id[order.owner, client_order_id] = order
    for owner, open_orders in document["open_orders"].items():
        state.open_orders[owner] = {order_id: state.orders[order_id] for order_id in open_orders}
    for symbol, (bids, asks) in document["books"].items():
        book = state.markets[symbol].book
        for order_id in (*bids, *asks):
            order = state.orders[order_id]
            book.side(order.side).add(order)
    _load_closed(state, document)
    return state


def _load_market(market: Market, fields: list[Any]) -> None:
    for name, value in zip(_MARKET_FIELDS, fields, strict=True):
        setattr(market, name, value)


def _load_order(fields: list[Any]) -> Order:
    values = dict(zip(_ORDER_FIELDS, fields, strict=True))
    order = Order(
        values["order_id"], values["owner"], values["account"], "", values["instrument"], Side(values["side"]),
        OrderType(values["order_type"]), TimeInForce(values["time_in_force"]), values["quantity"], values["price"],
    )  # fmt: skip
    order.client_order_ids, order.cancel_client_order_id = values["client_order_ids"], values["cancel_client_order_id"]
    order.cum_quantity, order.leaves_quantity = values["cum_quantity"], values["leaves_quantity"]
    order.value, order.status, order.book_reference = values["value"], OrderStatus(values["status"]), values["book_reference"]
    return order


def _load_closed(state: VenueState, document: Mapping[str, Any]) -> None:
    rejected = {fields[0]: events.Rejected(*fields) for fields in document["rejected"]}
    for number in document["closed"]:
        event = rejected.get(number)
        if event is None:
            state.closed.append(state.orders[number])
        else:
            state.closed.append(event)
            state.by_client_order_id[event.owner, event.client_order_id] = event
    for fields in document["trades"]:
        trade = Trade(*fields)
        state.trades[trade.match_id] = trade._replace(aggressor=Side(trade.aggressor))
