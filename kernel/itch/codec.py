"""Bytes of one message to its class and back, and the sizes of every type of ITCH 5.0."""

from types import MappingProxyType
from typing import Any, Final

from kernel.itch import messages, venue
from kernel.itch.errors import MalformedError
from kernel.itch.layout import HEADER_BYTES, Layout, integer, text

BookMessage = (
    messages.AddOrder
    | messages.AddOrderAttributed
    | messages.OrderExecuted
    | messages.OrderExecutedWithPrice
    | messages.OrderCancel
    | messages.OrderDelete
    | messages.OrderReplace
)
TapeMessage = messages.Trade | messages.CrossTrade | messages.BrokenTrade
FrameMessage = (
    messages.SystemEvent
    | messages.StockDirectory
    | messages.StockTradingAction
    | messages.RegShoRestriction
    | messages.MarketParticipantPosition
)
VenueMessage = venue.InstrumentDefinition | venue.TradingDay | venue.LastTrade
ItchMessage = BookMessage | TapeMessage | FrameMessage | VenueMessage

_REFERENCE, _SHARES, _MATCH = integer("reference", 8), integer("shares", 4), integer("match_number", 8)
_SIDE, _STOCK, _PRICE = text("side", 1, "BS"), text("stock", 8), integer("price", 4)

LAYOUTS = (
    Layout("S", messages.SystemEvent, [text("event_code", 1)]),
    Layout("R", messages.StockDirectory, [
        _STOCK, text("market_category", 1), text("financial_status", 1), integer("round_lot_size", 4), text("round_lots_only", 1),
        text("issue_classification", 1), text("issue_subtype", 2), text("authenticity", 1), text("short_sale_threshold", 1),
        text("ipo_flag", 1), text("luld_tier", 1), text("etp_flag", 1), integer("etp_leverage_factor", 4), text("inverse_indicator", 1),
    ]),
    Layout("H", messages.StockTradingAction, [_STOCK, text("trading_state", 1), text("reserved", 1), text("reason", 4)]),
    Layout("Y", messages.RegShoRestriction, [_STOCK, text("action", 1)]),
    Layout("L", messages.MarketParticipantPosition, [
        text("mpid", 4), _STOCK, text("primary_market_maker", 1), text("market_maker_mode", 1), text("participant_state", 1),
    ]),
    Layout("A", messages.AddOrder, [_REFERENCE, _SIDE, _SHARES, _STOCK, _PRICE]),
    Layout("F", messages.AddOrderAttributed, [_REFERENCE, _SIDE, _SHARES, _STOCK, _PRICE, text("attribution", 4)]),
    Layout("E", messages.OrderExecuted, [_REFERENCE, _SHARES, _MATCH]),
    Layout("C", messages.OrderExecutedWithPrice, [_REFERENCE, _SHARES, _MATCH, text("printable", 1, "YN"), _PRICE]),
    Layout("X", messages.OrderCancel, [_REFERENCE, _SHARES]),
    Layout("D", messages.OrderDelete, [_REFERENCE]),
    Layout("U", messages.OrderReplace, [_REFERENCE, integer("new_reference", 8), _SHARES, _PRICE]),
    Layout("P", messages.Trade, [_REFERENCE, _SIDE, _SHARES, _STOCK, _PRICE, _MATCH]),
    Layout("Q", messages.CrossTrade, [integer("shares", 8), _STOCK, integer("cross_price", 4), _MATCH, text("cross_type", 1)]),
    Layout("B", messages.BrokenTrade, [_MATCH]),
    Layout("d", venue.InstrumentDefinition, [
        _STOCK, text("symbol", 32), text("kind", 1, "EC"), text("currency", 8), integer("price_scale", 1), integer("tick_units", 4),
        integer("lot_scale", 1), integer("lot_units", 8), integer("quantity_max", 8),
    ]),
    Layout("y", venue.TradingDay, [_STOCK, integer("trade_date", 4), integer("close_date", 4), _PRICE._replace(name="close_price")]),
    Layout("l", venue.LastTrade, [
        _STOCK, integer("shares", 8), _PRICE, _MATCH, integer("trade_date", 4), integer("trade_time_ns", 8),
    ]),
)  # fmt: skip
# The wide forms: the same messages with 64 bits of shares, for quantities that 32 cannot hold.
_WIDE_SHARES = integer("shares", 8)
WIDE_LAYOUTS: Final = tuple(
    Layout(layout.letter.lower(), layout.message_class, [_WIDE_SHARES if field == _SHARES else field for field in layout.fields])
    for layout in LAYOUTS
    if layout.letter in "AEXUP"
)
_NARROW_MAX = 2**32 - 1
_BY_LETTER: Final = {ord(layout.letter): layout for layout in (*LAYOUTS, *WIDE_LAYOUTS)}
_BY_CLASS: Final = {layout.message_class: layout for layout in LAYOUTS}
_WIDE_BY_CLASS: Final = {layout.message_class: layout for layout in WIDE_LAYOUTS}

# TotalView-ITCH 5.0, section 4: bytes of a message by its type.
ITCH_SIZES: Final = MappingProxyType(
    {
        "S": 12, "R": 39, "H": 25, "Y": 20, "L": 26, "V": 35, "W": 12, "K": 28, "J": 35, "h": 21, "A": 36, "F": 40, "E": 31, "C": 36,
        "X": 23, "D": 19, "U": 35, "P": 44, "Q": 40, "B": 19, "I": 50, "N": 20, "O": 48,
    }
)  # fmt: skip
# The same, the types of `kernel.itch.venue`, and the wide forms.
MESSAGE_SIZES: Final = MappingProxyType({**ITCH_SIZES, **{layout.letter: layout.size for layout in (*LAYOUTS, *WIDE_LAYOUTS)}})


def encode(message: ItchMessage) -> bytes:
    """Return a message's bytes; with more than 32 bits of shares in its wide form (a, e, x, u, p), which `decode` reads like the other.

    Raises:
        MalformedError: naming the field that its place cannot hold.
    """
    message_class = type(message)
    layout = _BY_CLASS[message_class]
    wide = _WIDE_BY_CLASS.get(message_class)
    if wide is not None and getattr(message, "shares", 0) > _NARROW_MAX:
        layout = wide
    data: bytes = layout.encode(message)
    return data


def decode(data: bytes) -> ItchMessage | None:
    """Return the message in `data`, or None for one that is well formed and of a type this codec has no class for.

    Types that neither ITCH 5.0 nor `kernel.itch.venue` knows are passed over too, as ITCH asks of its receivers, if they have a header.

    Raises:
        MalformedError: empty, of another size than its type has, or with a field outside its bounds.
    """
    layout = _BY_LETTER.get(data[0]) if data else None
    if layout is not None:
        message: Any = layout.decode(data)
        return message  # type: ignore[no-any-return]  # the layout's class is one of the union
    if len(data) < HEADER_BYTES:
        raise MalformedError("itch message", f"a header of {HEADER_BYTES} bytes is required, not {len(data)}")
    size = ITCH_SIZES.get(chr(data[0]))
    if size is not None and len(data) != size:
        raise MalformedError(f"itch {chr(data[0])}", f"{size} bytes are required, not {len(data)}")
    return None
