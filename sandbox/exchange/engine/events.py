"""What happened at the venue. Events are the journal's content: state is their fold, and reports and feeds are drawn from them.

Every event takes the next `sequence`, a trade (and its correction) two: `sequence` is the buyer's execution number and
`sequence + 1` the seller's. Sequences are never used twice within a journal, so execution ids are not either.
Quantities are lots, prices ticks, times nanoseconds since the epoch, dates ISO 8601.
"""

from typing import NamedTuple

from sandbox.exchange.engine.vocabulary import CancelReason, OrderType, Side, TimeInForce


class Listed(NamedTuple):
    """An instrument trades here from now on; its grid never changes. The prior close is dated."""

    sequence: int
    time_ns: int
    instrument: str
    tick: str
    lot: str
    close_price: int
    close_date: str


class PhaseChanged(NamedTuple):
    """A session opened or closed; the phase lasts until `ends_ns`."""

    sequence: int
    time_ns: int
    instrument: str
    is_open: bool
    trade_date: str
    ends_ns: int


class OfficialClose(NamedTuple):
    """A session's close: its last trade, or the close before, with the older date, if nothing traded."""

    sequence: int
    time_ns: int
    instrument: str
    close_price: int
    close_date: str


class Accepted(NamedTuple):
    """An order was taken; its id is `sequence`. It may match before it is booked."""

    sequence: int
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


class Rejected(NamedTuple):
    """An order was refused. `reason` is a RejectReason's name; instrument, quantity and price are texts as the client wrote them."""

    sequence: int
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
    reason: str
    text: str


class Booked(NamedTuple):
    """The order's leaves joined the back of the queue at its price, under the reference `sequence`."""

    sequence: int
    order_id: int


class Traded(NamedTuple):
    """The incoming order met a booked one, at the booked one's price."""

    sequence: int
    time_ns: int
    trade_date: str
    instrument: str
    price: int
    quantity: int
    taker_id: int
    maker_id: int
    taker_side: Side
    maker_reference: int


class Canceled(NamedTuple):
    """The order's leaves (`quantity`) are gone. `client_order_id` is the request's, empty if nobody asked."""

    sequence: int
    time_ns: int
    order_id: int
    instrument: str
    client_order_id: str
    quantity: int
    reason: CancelReason
    book_reference: int


class Replaced(NamedTuple):
    """The order has new terms. `book_reference` is the place it lost, or keeps, with `reduced_by` lots less, if `keeps_priority`.

    A `quantity` at or below what was filled means that the order is now filled with just that (FIX 4.4 Appendix D, C.3).
    """

    sequence: int
    time_ns: int
    order_id: int
    instrument: str
    client_order_id: str
    time_in_force: TimeInForce
    quantity: int
    price: int
    keeps_priority: bool
    reduced_by: int
    book_reference: int


class ChangeRejected(NamedTuple):
    """A cancel (`response_to` 1) or replace (2) was refused. `order_id` is 0 if the order is not known.

    `reason` is a CancelRejectReason's name.
    """

    sequence: int
    time_ns: int
    owner: str
    order_id: int
    client_order_id: str
    orig_client_order_id: str
    response_to: str
    reason: str
    text: str


class Expired(NamedTuple):
    """A DAY order's leaves ended with its session."""

    sequence: int
    time_ns: int
    order_id: int
    instrument: str
    quantity: int
    book_reference: int


class TradeCorrected(NamedTuple):
    """A trade has another price or a lower quantity; 0 is a bust. The two references are places in the book that were given up."""

    sequence: int
    time_ns: int
    match_id: int
    price: int
    quantity: int
    buy_reference: int
    sell_reference: int


Event = (
    Listed | PhaseChanged | OfficialClose | Accepted | Rejected | Booked | Traded | Canceled | Replaced | ChangeRejected | Expired
    | TradeCorrected
)  # fmt: skip


def last_sequence(event: Event) -> int:
    """Return the last number that `event` took."""
    return event.sequence + 1 if isinstance(event, Traded | TradeCorrected) else event.sequence
