"""Small venues for tests: two instruments, one that never closes and one with New York hours."""

import json
from datetime import UTC, datetime

from sandbox.exchange.engine import Engine
from sandbox.exchange.engine.commands import CancelOrder, NewOrder, ReplaceOrder
from sandbox.exchange.engine.state import Retention
from sandbox.exchange.engine.vocabulary import OrderType, Side, TimeInForce
from sandbox.exchange.instruments import Instrument, parse_instruments

BUY, SELL = Side.BUY, Side.SELL
LIMIT, MARKET = OrderType.LIMIT, OrderType.MARKET
DAY, GTC = TimeInForce.DAY, TimeInForce.GOOD_TILL_CANCEL
IOC, FOK = TimeInForce.IMMEDIATE_OR_CANCEL, TimeInForce.FILL_OR_KILL
EVERY_DAY = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"]


def instant_ns(text: str) -> int:
    """Nanoseconds of a UTC time such as `2026-01-05 15:00`."""
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * 10**9


MONDAY_NS = instant_ns("2026-01-05 15:00")


def document() -> dict[str, object]:
    """The instruments file of these tests."""
    return {
        "calendars": {
            "continuous": {"timezone": "UTC", "days": EVERY_DAY, "open": "00:00", "close": "24:00"},
            "new-york": {
                "timezone": "America/New_York", "days": EVERY_DAY[:5], "open": "09:30", "close": "16:00", "holidays": ["2026-01-19"],
            },
        },
        "instruments": [
            {
                "symbol": "AAPL", "name": "Apple", "kind": "equity", "currency": "USD", "tick": "0.01", "lot": "1", "quantity_max": "10000",
                "notional_max": "1000000", "prior_close": "100", "calendar": "new-york",
            },
            {
                "symbol": "BTC-USD", "name": "Bitcoin", "kind": "crypto", "currency": "USD", "tick": "0.5", "lot": "0.0001",
                "quantity_max": "10", "notional_max": "1000000", "prior_close": "50000", "calendar": "continuous",
            },
        ],
    }  # fmt: skip


def instruments() -> dict[str, Instrument]:
    """The instruments of these tests."""
    return parse_instruments(json.dumps(document()))


def engine(retention: Retention | None = None) -> Engine:
    """A venue without history."""
    return Engine(instruments(), retention)


def new(
    client_order_id: str,
    side: Side = BUY,
    quantity: int = 100,
    price: int = 10_000,
    *,
    owner: str = "ALPHA",
    account: str = "ACC-1",
    instrument: str = "AAPL",
    order_type: OrderType = LIMIT,
    time_in_force: TimeInForce = DAY,
    time_ns: int = MONDAY_NS,
) -> NewOrder:
    """An order of 100 lots at 100.00, unless told otherwise."""
    price = 0 if order_type is MARKET else price
    return NewOrder(time_ns, owner, account, client_order_id, instrument, side, order_type, time_in_force, quantity, price)


def cancel(
    client_order_id: str, orig: str, side: Side = BUY, *, owner: str = "ALPHA", instrument: str = "AAPL", time_ns: int = MONDAY_NS
) -> CancelOrder:
    """A cancel request."""
    return CancelOrder(time_ns, owner, client_order_id, orig, instrument, side)


def replace(
    client_order_id: str,
    orig: str,
    quantity: int = 100,
    price: int = 10_000,
    side: Side = BUY,
    *,
    owner: str = "ALPHA",
    instrument: str = "AAPL",
    order_type: OrderType = LIMIT,
    time_in_force: TimeInForce = DAY,
    time_ns: int = MONDAY_NS,
) -> ReplaceOrder:
    """A cancel/replace request."""
    return ReplaceOrder(time_ns, owner, client_order_id, orig, instrument, side, order_type, time_in_force, quantity, price)
