"""The engine's words: sides, statuses, reasons, orders and trades. Codes equal their FIX 4.4 values."""

from enum import Enum, StrEnum, unique
from typing import NamedTuple


@unique
class Side(StrEnum):
    """Side (54)."""

    BUY = "1"
    SELL = "2"


@unique
class OrderType(StrEnum):
    """OrdType (40)."""

    MARKET = "1"
    LIMIT = "2"


@unique
class TimeInForce(StrEnum):
    """TimeInForce (59)."""

    DAY = "0"
    GOOD_TILL_CANCEL = "1"
    IMMEDIATE_OR_CANCEL = "3"
    FILL_OR_KILL = "4"


@unique
class OrderStatus(StrEnum):
    """OrdStatus (39). `PENDING` orders are within one command: accepted, not yet filled, booked or cancelled."""

    NEW = "0"
    PARTIALLY_FILLED = "1"
    FILLED = "2"
    CANCELED = "4"
    REJECTED = "8"
    EXPIRED = "C"


OPEN_STATUSES = frozenset({OrderStatus.NEW, OrderStatus.PARTIALLY_FILLED})


class _Reason(Enum):
    """A reason with the FIX code it travels as and the text that explains it."""

    def __init__(self, code: str, text: str) -> None:
        self.code = code
        self.text = text


@unique
class RejectReason(_Reason):
    """Why an order was refused: OrdRejReason (103) and Text (58), in the order in which the rules are applied."""

    DUPLICATE_ORDER = ("6", "ClOrdID was used before")
    UNKNOWN_SYMBOL = ("1", "unknown symbol")
    EXCHANGE_CLOSED = ("2", "the instrument's session is closed")
    UNSUPPORTED_CHARACTERISTIC = ("11", "a market order cannot be good till cancel")
    INCORRECT_QUANTITY = ("13", "OrderQty must be a positive multiple of the lot")
    QUANTITY_LIMIT = ("3", "OrderQty exceeds the instrument's maximum")
    INCORRECT_PRICE = ("99", "Price must be a positive multiple of the tick, below the largest price")
    NOTIONAL_LIMIT = ("3", "order value exceeds the instrument's maximum")
    VENUE_OPTION = ("0", "refused by the exchange")


@unique
class CancelRejectReason(_Reason):
    """Why a cancel or replace was refused: CxlRejReason (102) and Text (58), in the order in which the rules are applied."""

    DUPLICATE_CLIENT_ORDER_ID = ("6", "ClOrdID was used before")
    UNKNOWN_ORDER = ("1", "unknown order")
    TOO_LATE = ("0", "the order is closed")
    NOT_CURRENT = ("2", "OrigClOrdID is not the order's current ClOrdID")
    MISMATCH = ("2", "symbol or side differ from the order's")
    EXCHANGE_CLOSED = ("2", "the instrument's session is closed; only cancels are taken")
    UNSUPPORTED_CHARACTERISTIC = ("2", "only a resting limit order can be replaced, by a limit order that is DAY or GTC")
    INCORRECT_QUANTITY = ("2", "OrderQty must be a positive multiple of the lot, at most the instrument's maximum")
    INCORRECT_PRICE = ("2", "Price must be a positive multiple of the tick, below the largest price")
    NOTIONAL_LIMIT = ("2", "order value exceeds the instrument's maximum")
    VENUE_OPTION = ("2", "refused by the exchange")


@unique
class CancelReason(StrEnum):
    """Why an open quantity was cancelled."""

    REQUESTED = "requested"
    REMAINDER = "remainder"
    NOT_FILLABLE = "not_fillable"
    SELF_TRADE = "self_trade"
    DISCONNECT = "disconnect"
    BUSTED = "busted"
    OPERATOR = "operator"


CANCEL_TEXTS: dict[CancelReason, str] = {
    CancelReason.REMAINDER: "unfilled quantity of an order that never rests",
    CancelReason.NOT_FILLABLE: "fill or kill: the whole quantity was not available",
    CancelReason.SELF_TRADE: "self-trade prevention: would have met an order of the same account",
    CancelReason.DISCONNECT: "cancel on disconnect",
    CancelReason.BUSTED: "busted quantity is not put back into the book",
    CancelReason.OPERATOR: "cancelled by the exchange",
}


class Order:
    """One order's state; only `evolve` changes it. Quantities in lots, prices in ticks, `value` in tick·lots.

    Attributes:
        quantity: OrderQty; `quantity == cum_quantity + leaves_quantity` while the order is open.
        client_order_ids: the identity chain, oldest first; the last one is current.
        cancel_client_order_id: ClOrdID of the request that cancelled it; empty if none did.
        book_reference: changes whenever the order takes a new place in the queue; 0 while it is not in the book.
    """

    __slots__ = (
        "account", "book_reference", "cancel_client_order_id", "client_order_ids", "cum_quantity", "instrument", "leaves_quantity",
        "order_id", "order_type", "owner", "price", "quantity", "side", "status", "time_in_force", "value",
    )  # fmt: skip

    def __init__(
        self, order_id: int, owner: str, account: str, client_order_id: str, instrument: str, side: Side, order_type: OrderType,
        time_in_force: TimeInForce, quantity: int, price: int,
    ) -> None:  # fmt: skip
        self.order_id = order_id
        self.owner = owner
        self.account = account
        self.client_order_ids = [client_order_id]
        self.cancel_client_order_id = ""
        self.instrument = instrument
        self.side = side
        self.order_type = order_type
        self.time_in_force = time_in_force
        self.quantity = quantity
        self.price = price
        self.cum_quantity = 0
        self.leaves_quantity = quantity
        self.value = 0
        self.status = OrderStatus.NEW
        self.book_reference = 0

    @property
    def client_order_id(self) -> str:
        """The current ClOrdID (11)."""
        return self.client_order_ids[-1]

    @property
    def is_open(self) -> bool:
        """Whether any quantity may still trade."""
        return self.status in OPEN_STATUSES


class Trade(NamedTuple):
    """One match, as last corrected. `match_id` is also the buyer's exec number; the seller's is one more.

    `quantity` is 0 once the trade was busted.
    """

    match_id: int
    time_ns: int
    trade_date: str
    instrument: str
    price: int
    quantity: int
    buy_order_id: int
    sell_order_id: int
    aggressor: Side
