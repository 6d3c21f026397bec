"""What members ask for, read from FIX 4.4 messages that have passed the dictionary: each becomes exactly one command.

A request that the venue cannot take becomes a command that records the refusal, so that it has an execution id and an answer.
"""

from collections.abc import Mapping

from kernel.fix import tags
from kernel.fix.message import Message
from sandbox.exchange.engine.commands import CancelOrder, NewOrder, RefuseChange, RefuseOrder, ReplaceOrder
from sandbox.exchange.engine.decide import RESPONSE_TO_CANCEL, RESPONSE_TO_REPLACE
from sandbox.exchange.engine.vocabulary import CancelRejectReason, OrderType, RejectReason, Side, TimeInForce
from sandbox.exchange.instruments import Grid, Instrument, OffGridError

CLIENT_ORDER_ID_LENGTH_MAX = 64
ACCOUNT_LENGTH_MAX = 32

_SIDES: Mapping[str, Side] = {side.value: side for side in Side}
_ORDER_TYPES: Mapping[str, OrderType] = {order_type.value: order_type for order_type in OrderType}
_TIMES_IN_FORCE: Mapping[str, TimeInForce] = {time_in_force.value: time_in_force for time_in_force in TimeInForce}
# Terms that would change what an order means, by name for the refusal's text. Silence would be an acceptance.
_UNSUPPORTED_TERMS = {
    18: "ExecInst", 99: "StopPx", 110: "MinQty", 111: "MaxFloor", 126: "ExpireTime", 152: "CashOrderQty", 168: "EffectiveTime",
    210: "MaxShow", 211: "PegOffsetValue", 388: "DiscretionInst", 432: "ExpireDate", 516: "OrderPercent",
}  # fmt: skip
_UNSUPPORTED = frozenset(_UNSUPPORTED_TERMS)


class _Defect(Exception):  # noqa: N818 - never leaves this module
    def __init__(self, reason: RejectReason, text: str) -> None:
        super().__init__(text)
        self.reason = reason
        self.text = text


def _count(grid: Grid, text: str | None, name: str, reason: RejectReason) -> int:
    if text is None:
        raise _Defect(reason, f"{name} is required")
    try:
        return grid.count(text)
    except OffGridError as error:
        raise _Defect(reason, f"{name}: {error}") from None


def _terms(message: Message, instruments: Mapping[str, Instrument]) -> tuple[Side, OrderType, TimeInForce, int, int]:
    """Read what an order and a replacement have in common: side, type, time in force, lots and ticks."""
    fields = message.first_by_tag
    instrument = instruments.get(fields[tags.SYMBOL])
    if instrument is None:
        raise _Defect(RejectReason.UNKNOWN_SYMBOL, RejectReason.UNKNOWN_SYMBOL.text)
    unsupported = _UNSUPPORTED.intersection(fields)
    if unsupported:
        raise _Defect(RejectReason.UNSUPPORTED_CHARACTERISTIC, f"{_UNSUPPORTED_TERMS[min(unsupported)]} is not supported")
    side, order_type = _SIDES.get(fields[tags.SIDE]), _ORDER_TYPES.get(fields[tags.ORD_TYPE])
    time_in_force = _TIMES_IN_FORCE.get(fields.get(tags.TIME_IN_FORCE, TimeInForce.DAY))
    if side is None or order_type is None or time_in_force is None:
        name = "Side" if side is None else "OrdType" if order_type is None else "TimeInForce"
        raise _Defect(RejectReason.UNSUPPORTED_CHARACTERISTIC, f"this {name} is not supported")
    quantity = _count(instrument.quantities, fields.get(tags.ORDER_QTY), "OrderQty", RejectReason.INCORRECT_QUANTITY)
    if order_type is OrderType.MARKET:
        if tags.PRICE in fields:
            raise _Defect(RejectReason.INCORRECT_PRICE, "a market order has no Price")
        return side, order_type, time_in_force, quantity, 0
    price = _count(instrument.prices, fields.get(tags.PRICE), "Price", RejectReason.INCORRECT_PRICE)
    return side, order_type, time_in_force, quantity, price


def new_order(message: Message, owner: str, time_ns: int, instruments: Mapping[str, Instrument]) -> NewOrder | RefuseOrder:
    """Read a NewOrderSingle (35=D)."""
    fields = message.first_by_tag
    client_order_id, account = fields[tags.CL_ORD_ID], fields.get(tags.ACCOUNT, "")
    try:
        if len(client_order_id) > CLIENT_ORDER_ID_LENGTH_MAX or len(account) > ACCOUNT_LENGTH_MAX:
            raise _Defect(
                RejectReason.VENUE_OPTION, f"ClOrdID has at most {CLIENT_ORDER_ID_LENGTH_MAX}, Account {ACCOUNT_LENGTH_MAX} characters"
            )
        side, order_type, time_in_force, quantity, price = _terms(message, instruments)
    except _Defect as defect:
        return refusal_of_order(message, owner, time_ns, defect.reason, defect.text)
    return NewOrder(time_ns, owner, account, client_order_id, fields[tags.SYMBOL], side, order_type, time_in_force, quantity, price)


def refusal_of_order(message: Message, owner: str, time_ns: int, reason: RejectReason, text: str) -> RefuseOrder:
    """Return the command that records why a NewOrderSingle was refused."""
    fields = message.first_by_tag
    return RefuseOrder(
        time_ns, owner, fields.get(tags.ACCOUNT, ""), fields[tags.CL_ORD_ID], fields[tags.SYMBOL], fields[tags.SIDE],
        fields[tags.ORD_TYPE], fields.get(tags.TIME_IN_FORCE, ""), fields.get(tags.ORDER_QTY, ""), fields.get(tags.PRICE, ""), reason, text,
    )  # fmt: skip


def cancel_request(message: Message, owner: str, time_ns: int) -> CancelOrder | RefuseChange:
    """Read an OrderCancelRequest (35=F); it always means the whole remaining quantity."""
    fields = message.first_by_tag
    side = _SIDES.get(fields[tags.SIDE])
    if side is None or len(fields[tags.CL_ORD_ID]) > CLIENT_ORDER_ID_LENGTH_MAX:
        return refusal_of_change(message, owner, time_ns, CancelRejectReason.MISMATCH, CancelRejectReason.MISMATCH.text)
    return CancelOrder(time_ns, owner, fields[tags.CL_ORD_ID], fields[tags.ORIG_CL_ORD_ID], fields[tags.SYMBOL], side)


_CHANGE_REASONS = {
    RejectReason.UNKNOWN_SYMBOL: CancelRejectReason.MISMATCH,
    RejectReason.UNSUPPORTED_CHARACTERISTIC: CancelRejectReason.UNSUPPORTED_CHARACTERISTIC,
    RejectReason.INCORRECT_QUANTITY: CancelRejectReason.INCORRECT_QUANTITY,
    RejectReason.INCORRECT_PRICE: CancelRejectReason.INCORRECT_PRICE,
}


def replace_request(message: Message, owner: str, time_ns: int, instruments: Mapping[str, Instrument]) -> ReplaceOrder | RefuseChange:
    """Read an OrderCancelReplaceRequest (35=G); OrderQty is the new total, not the change."""
    fields = message.first_by_tag
    try:
        if len(fields[tags.CL_ORD_ID]) > CLIENT_ORDER_ID_LENGTH_MAX:
            raise _Defect(RejectReason.VENUE_OPTION, f"ClOrdID has at most {CLIENT_ORDER_ID_LENGTH_MAX} characters")
        side, order_type, time_in_force, quantity, price = _terms(message, instruments)
    except _Defect as defect:
        reason = _CHANGE_REASONS.get(defect.reason, CancelRejectReason.VENUE_OPTION)
        return refusal_of_change(message, owner, time_ns, reason, defect.text)
    return ReplaceOrder(
        time_ns, owner, fields[tags.CL_ORD_ID], fields[tags.ORIG_CL_ORD_ID], fields[tags.SYMBOL], side, order_type, time_in_force, quantity,
        price,
    )  # fmt: skip


def refusal_of_change(message: Message, owner: str, time_ns: int, reason: CancelRejectReason, text: str) -> RefuseChange:
    """Return the command that records why a cancel or replace was refused."""
    response_to = RESPONSE_TO_CANCEL if message.msg_type == tags.ORDER_CANCEL_REQUEST else RESPONSE_TO_REPLACE
    fields = message.first_by_tag
    return RefuseChange(time_ns, owner, fields[tags.CL_ORD_ID], fields[tags.ORIG_CL_ORD_ID], response_to, reason, text)
