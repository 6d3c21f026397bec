"""What the engine can be told. Every command carries its time: the engine has no clock."""

from typing import NamedTuple

from sandbox.exchange.engine.vocabulary import CancelReason, CancelRejectReason, OrderType, RejectReason, Side, TimeInForce


class NewOrder(NamedTuple):
    """Enter an order. `quantity` in lots, `price` in ticks (0 for a market order), `time_ns` since the epoch."""

    time_ns: int
    owner: str
    account: str
    client_order_id: str
    instrument: str
    side: Side
    order_type: OrderType
    time_in_force: TimeInForce
    quantity: int
    price: int


class RefuseOrder(NamedTuple):
    """Record an order that the door turned away; quantity and price are what the client wrote."""

    time_ns: int
    owner: str
    account: str
    client_order_id: str
    instrument: str
    side: str
    order_type: str
    time_in_force: str
    quantity: str
    price: str
    reason: RejectReason
    text: str


class CancelOrder(NamedTuple):
    """Cancel what is left of an order, named by any ClOrdID of its chain."""

    time_ns: int
    owner: str
    client_order_id: str
    orig_client_order_id: str
    instrument: str
    side: Side


class ReplaceOrder(NamedTuple):
    """Change quantity (total, in lots), price (ticks) and time in force of the order whose current ClOrdID is given."""

    time_ns: int
    owner: str
    client_order_id: str
    orig_client_order_id: str
    instrument: str
    side: Side
    order_type: OrderType
    time_in_force: TimeInForce
    quantity: int
    price: int


class RefuseChange(NamedTuple):
    """Record a cancel (`response_to` 1) or replace (2) that the door turned away."""

    time_ns: int
    owner: str
    client_order_id: str
    orig_client_order_id: str
    response_to: str
    reason: CancelRejectReason
    text: str


class CancelAll(NamedTuple):
    """Cancel every open order of an owner."""

    time_ns: int
    owner: str
    reason: CancelReason


class AdvanceTime(NamedTuple):
    """Let time pass: sessions that ended close, DAY orders expire."""

    time_ns: int


class CorrectTrade(NamedTuple):
    """Change a trade's price (ticks) or lower its quantity (lots); quantity 0 busts it."""

    time_ns: int
    match_id: int
    price: int
    quantity: int


Command = NewOrder | RefuseOrder | CancelOrder | ReplaceOrder | RefuseChange | CancelAll | AdvanceTime | CorrectTrade
