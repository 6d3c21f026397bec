"""The messages of Nasdaq TotalView-ITCH 5.0 that make a book, a tape and its frame.

Every message begins with its type, the instrument's stock locate, a tracking number, and the time in nanoseconds since midnight.
On our feeds midnight is 00:00 UTC of the date in the session's name, `shares` are lots, and prices are units of the instrument's
price scale; see `kernel.itch.venue`. On Nasdaq's they are shares, and prices have four decimals.
"""

from typing import NamedTuple


class SystemEvent(NamedTuple):
    """S: the feed's day. `event_code`: O start of messages, S start of system hours, Q start of market hours, M, E, C their ends."""

    stock_locate: int
    tracking_number: int
    timestamp_ns: int
    event_code: str


class StockDirectory(NamedTuple):
    """R: an instrument of this session and its locate."""

    stock_locate: int
    tracking_number: int
    timestamp_ns: int
    stock: str
    market_category: str
    financial_status: str
    round_lot_size: int
    round_lots_only: str
    issue_classification: str
    issue_subtype: str
    authenticity: str
    short_sale_threshold: str
    ipo_flag: str
    luld_tier: str
    etp_flag: str
    etp_leverage_factor: int
    inverse_indicator: str


class StockTradingAction(NamedTuple):
    """H: `trading_state` is T trading, H halted, P paused, Q quotation only."""

    stock_locate: int
    tracking_number: int
    timestamp_ns: int
    stock: str
    trading_state: str
    reserved: str
    reason: str


class RegShoRestriction(NamedTuple):
    """Y: short sale price test restriction, `action` 0, 1 or 2."""

    stock_locate: int
    tracking_number: int
    timestamp_ns: int
    stock: str
    action: str


class MarketParticipantPosition(NamedTuple):
    """L: a market maker's standing in an instrument."""

    stock_locate: int
    tracking_number: int
    timestamp_ns: int
    mpid: str
    stock: str
    primary_market_maker: str
    market_maker_mode: str
    participant_state: str


class AddOrder(NamedTuple):
    """A: an order without attribution joined the back of the queue at its price."""

    stock_locate: int
    tracking_number: int
    timestamp_ns: int
    reference: int
    side: str
    shares: int
    stock: str
    price: int


class AddOrderAttributed(NamedTuple):
    """F: as A, with the participant's name."""

    stock_locate: int
    tracking_number: int
    timestamp_ns: int
    reference: int
    side: str
    shares: int
    stock: str
    price: int
    attribution: str


class OrderExecuted(NamedTuple):
    """E: a booked order traded at its price; without a rest it has left the book."""

    stock_locate: int
    tracking_number: int
    timestamp_ns: int
    reference: int
    shares: int
    match_number: int


class OrderExecutedWithPrice(NamedTuple):
    """C: a booked order traded at another price; with `printable` N it must not be counted into the volume."""

    stock_locate: int
    tracking_number: int
    timestamp_ns: int
    reference: int
    shares: int
    match_number: int
    printable: str
    price: int


class OrderCancel(NamedTuple):
    """X: a booked order lost `shares` and kept its place."""

    stock_locate: int
    tracking_number: int
    timestamp_ns: int
    reference: int
    shares: int


class OrderDelete(NamedTuple):
    """D: a booked order left with all its rest."""

    stock_locate: int
    tracking_number: int
    timestamp_ns: int
    reference: int


class OrderReplace(NamedTuple):
    """U: an order left its place and joined the back of a queue under another reference, on the same side."""

    stock_locate: int
    tracking_number: int
    timestamp_ns: int
    reference: int
    new_reference: int
    shares: int
    price: int


class Trade(NamedTuple):
    """P: a trade that no visible order's execution tells of."""

    stock_locate: int
    tracking_number: int
    timestamp_ns: int
    reference: int
    side: str
    shares: int
    stock: str
    price: int
    match_number: int


class CrossTrade(NamedTuple):
    """Q: a cross; `cross_type` is O opening, C closing, H halt or IPO."""

    stock_locate: int
    tracking_number: int
    timestamp_ns: int
    shares: int
    stock: str
    cross_price: int
    match_number: int
    cross_type: str


class BrokenTrade(NamedTuple):
    """B: the execution or trade with this match number is void."""

    stock_locate: int
    tracking_number: int
    timestamp_ns: int
    match_number: int
