"""What a venue sends, read: ExecutionReport (8), OrderCancelReject (9), BusinessMessageReject (j), Reject (3) (FIX 4.4 Volume 4).

Nothing is judged here, and nothing is lost: a report whose fields cannot be read is kept whole as `UnreadableReport`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

from kernel.fix import tags
from kernel.fix.dictionary import VALUE_INCORRECT
from kernel.fix.message import FieldError, Message
from kernel.fix.steps import Delivery, Refused, StoredMessage
from kernel.values import ZERO
from svc_oms.domain import OrderState, ReportKind
from svc_oms.domain.commands import VenueReport
from svc_oms.fix.requests import body_fields, order_id_of

RAW_BYTES_MAX = 8192
NO_REASON = -1
"""`venue_reason` where the report gives none."""

_UNKNOWN_ORDER_REASON = 5
_KINDS = {
    "0": ReportKind.ACKNOWLEDGED,
    "3": ReportKind.DONE_FOR_DAY,
    "4": ReportKind.CANCELED,
    "5": ReportKind.REPLACED,
    "6": ReportKind.PENDING,
    "7": ReportKind.STOPPED,
    "8": ReportKind.REFUSED,
    "9": ReportKind.SUSPENDED,
    "A": ReportKind.PENDING,
    "B": ReportKind.STATUS,
    "C": ReportKind.EXPIRED,
    "D": ReportKind.RESTATED,
    "E": ReportKind.PENDING,
    "F": ReportKind.TRADE,
    "G": ReportKind.TRADE_CORRECT,
    "H": ReportKind.TRADE_CANCEL,
    "I": ReportKind.STATUS,
}
_STATES = {
    "0": OrderState.NEW,
    "1": OrderState.PARTIALLY_FILLED,
    "2": OrderState.FILLED,
    "3": OrderState.DONE_FOR_DAY,
    "4": OrderState.CANCELED,
    "7": OrderState.STOPPED,
    "8": OrderState.REJECTED,
    "9": OrderState.SUSPENDED,
    "A": OrderState.PENDING_NEW,
    "C": OrderState.EXPIRED,
}
_REFUSALS = {
    tags.NEW_ORDER_SINGLE: ReportKind.REFUSED,
    tags.ORDER_CANCEL_REQUEST: ReportKind.REQUEST_REFUSED,
    tags.ORDER_CANCEL_REPLACE_REQUEST: ReportKind.REQUEST_REFUSED,
}
"""What it means that a message of ours never reached an order book."""
_PENDING_STATES = ("6", "E")
"""Pending cancel and pending replace: the order works, its quantities say how."""


class OrderReport(NamedTuple):
    """A report of one order.

    `order_id` is empty where its ClOrdIDs are not ours: look the order up by the venue's id, else keep it as an anomaly.
    `mass_status_request_id` is set on answers to an OrderMassStatusRequest.
    """

    order_id: str
    report: VenueReport
    mass_status_request_id: str = ""


@dataclass(frozen=True, slots=True)
class MassStatusEnd:
    """The venue has sent its last answer to a mass status request; `total` is how many orders it has, None where it does not say."""

    request_id: str
    total: int | None


@dataclass(frozen=True, slots=True)
class MessageRefused:
    """The venue could not process a message of ours (35=3 or 35=j): it never reached an order book.

    `sequence` is the number of our message; with the stored message, `refusal_of` makes it a report of the order. A business reject
    need not give it (0): then `reference`, the id of our message, does (379), see `refusal_by_reference`.
    """

    sequence: int
    msg_type: str
    reason: int
    text: str
    business: bool
    time: datetime
    raw: bytes
    reference: str = ""


@dataclass(frozen=True, slots=True)
class UnreadableReport:
    """A report that was refused, or has a field that is not of its type. It may hold a fill: somebody must look at it."""

    sequence: int
    problem: str
    raw: bytes


@dataclass(frozen=True, slots=True)
class NumbersSkipped:
    """The venue will never send some numbers, whatever was in them."""

    text: str


InboundReport = OrderReport | MassStatusEnd | MessageRefused | UnreadableReport | NumbersSkipped


def read_refused(refused: Refused) -> UnreadableReport:
    """What is kept of a message that the session refused, and that nobody will send again."""
    return UnreadableReport(refused.sequence, f"refused: {refused.problem}", refused.message.raw[:RAW_BYTES_MAX])


def read_delivery(delivery: Delivery, venue: str) -> tuple[InboundReport, ...]:
    """What a delivered message says. Never raises."""
    message = delivery.message
    try:
        if message.msg_type == tags.EXECUTION_REPORT:
            return _read_execution_report(message, venue)
        if message.msg_type == tags.ORDER_CANCEL_REJECT:
            return (_read_cancel_reject(message, venue),)
        return (_read_refusal(message),)
    except FieldError as error:
        return (UnreadableReport(delivery.sequence, str(error), message.raw[:RAW_BYTES_MAX]),)


def _read_execution_report(message: Message, venue: str) -> tuple[InboundReport, ...]:
    mass_id = message.get(tags.MASS_STATUS_REQ_ID) or ""
    total = message.integer(tags.TOT_NUM_REPORTS)
    end = MassStatusEnd(mass_id, total) if mass_id and (total == 0 or message.boolean(tags.LAST_RPT_REQUESTED)) else None
    if end is not None and total == 0:
        return (end,)
    client_order_id = message.get(tags.CL_ORD_ID) or ""
    original = message.get(tags.ORIG_CL_ORD_ID) or ""
    report = OrderReport(order_id_of(client_order_id) or order_id_of(original), _execution_report(message, venue), mass_id)
    return (report,) if end is None else (report, end)


def _execution_report(message: Message, venue: str) -> VenueReport:
    kind = _KINDS.get(message.require(tags.EXEC_TYPE))
    if kind is None:
        raise FieldError(tags.EXEC_TYPE, VALUE_INCORRECT, "ExecType without a meaning here")
    reason = message.integer(tags.ORD_REJ_REASON)
    state = _state(message)
    if kind is ReportKind.STATUS and state is OrderState.REJECTED and reason == _UNKNOWN_ORDER_REASON:
        kind = ReportKind.UNKNOWN_ORDER
    transact_time = _transact_time(message)
    return VenueReport(
        kind=kind,
        venue=venue,
        client_order_id=message.get(tags.CL_ORD_ID) or "",
        original_client_order_id=message.get(tags.ORIG_CL_ORD_ID) or "",
        venue_order_id=message.get(tags.ORDER_ID) or "",
        # The ExecID of a status answer is no execution's: "0" by the standard, some venues repeat an older one.
        exec_id="" if kind in (ReportKind.STATUS, ReportKind.UNKNOWN_ORDER) else message.require(tags.EXEC_ID),
        exec_ref_id=message.get(tags.EXEC_REF_ID) or "",
        trade_date=_trade_date(message, transact_time),
        transact_time=transact_time,
        state=state,
        quantity=message.decimal(tags.ORDER_QTY),
        limit_price=message.decimal(tags.PRICE),
        last_quantity=message.decimal(tags.LAST_QTY),
        last_price=message.decimal(tags.LAST_PX),
        cumulative_quantity=message.decimal(tags.CUM_QTY),
        venue_reason=NO_REASON if reason is None else reason,
        text=message.get(tags.TEXT) or "",
        raw=message.raw[:RAW_BYTES_MAX],
        request_pending=message.get(tags.ORD_STATUS) in _PENDING_STATES,
    )


def _read_cancel_reject(message: Message, venue: str) -> OrderReport:
    client_order_id, original = message.require(tags.CL_ORD_ID), message.require(tags.ORIG_CL_ORD_ID)
    reason = message.integer(tags.CXL_REJ_REASON)
    transact_time = _transact_time(message)
    report = _answer(
        ReportKind.REQUEST_REFUSED,
        venue,
        (client_order_id, original, message.get(tags.ORDER_ID) or ""),
        _trade_date(message, transact_time),
        transact_time,
        _state(message),
        NO_REASON if reason is None else reason,
        message.get(tags.TEXT) or "",
        message.raw,
    )
    return OrderReport(order_id_of(client_order_id) or order_id_of(original), report)


def _read_refusal(message: Message) -> MessageRefused:
    business = message.msg_type == tags.BUSINESS_MESSAGE_REJECT
    reason = message.integer(tags.BUSINESS_REJECT_REASON if business else tags.SESSION_REJECT_REASON)
    return MessageRefused(
        sequence=message.integer(tags.REF_SEQ_NUM) or 0,
        msg_type=message.get(tags.REF_MSG_TYPE) or "",
        reason=NO_REASON if reason is None else reason,
        text=message.get(tags.TEXT) or "",
        business=business,
        time=_transact_time(message),
        raw=message.raw[:RAW_BYTES_MAX],
        reference=(message.get(tags.BUSINESS_REJECT_REF_ID) or "") if business else "",
    )


def refusal_of(refused: MessageRefused, sent: StoredMessage, venue: str) -> OrderReport | None:
    """The report that a refused message amounts to: the order or its request did not happen. None for status requests."""
    kind = _REFUSALS.get(sent.msg_type)
    if kind is None:
        return None
    fields = body_fields(sent)
    return _refusal(refused, kind, sent.reference, fields[tags.CL_ORD_ID], fields.get(tags.ORIG_CL_ORD_ID, ""), venue)


def refusal_by_reference(refused: MessageRefused, venue: str) -> OrderReport | None:
    """The same by our id, for a refusal that has no number. None where it has one, or where the id is not ours."""
    kind, order_id = _REFUSALS.get(refused.msg_type), order_id_of(refused.reference)
    if refused.sequence or kind is None or not order_id:
        return None
    return _refusal(refused, kind, order_id, refused.reference, "", venue)


def _refusal(refused: MessageRefused, kind: ReportKind, order_id: str, client_order_id: str, original: str, venue: str) -> OrderReport:
    state = OrderState.REJECTED if kind is ReportKind.REFUSED else None
    ids, trade_date = (client_order_id, original, ""), refused.time.date().isoformat()
    return OrderReport(order_id, _answer(kind, venue, ids, trade_date, refused.time, state, refused.reason, refused.text, refused.raw))


def _answer(
    kind: ReportKind,
    venue: str,
    ids: tuple[str, str, str],
    trade_date: str,
    time: datetime,
    state: OrderState | None,
    venue_reason: int,
    text: str,
    raw: bytes,
) -> VenueReport:
    """An answer that moves no quantity and has no ExecID. `ids` are 11, 41 and 37."""
    client_order_id, original_client_order_id, venue_order_id = ids
    return VenueReport(
        kind=kind,
        venue=venue,
        client_order_id=client_order_id,
        original_client_order_id=original_client_order_id,
        venue_order_id=venue_order_id,
        exec_id="",
        exec_ref_id="",
        trade_date=trade_date,
        transact_time=time,
        state=state,
        quantity=None,
        limit_price=None,
        last_quantity=None,
        last_price=None,
        cumulative_quantity=None,
        venue_reason=venue_reason,
        text=text,
        raw=raw[:RAW_BYTES_MAX],
    )


def _state(message: Message) -> OrderState | None:
    text = message.require(tags.ORD_STATUS)
    if text in _PENDING_STATES:
        return OrderState.PARTIALLY_FILLED if (message.decimal(tags.CUM_QTY) or ZERO) > ZERO else OrderState.NEW
    return _STATES.get(text)


def _trade_date(message: Message, transact_time: datetime) -> str:
    """TradeDate (75) as our contract writes dates (the session has checked its form), else the day of the transaction in UTC."""
    text = message.get(tags.TRADE_DATE)
    return f"{text[:4]}-{text[4:6]}-{text[6:]}" if text else transact_time.date().isoformat()


def _transact_time(message: Message) -> datetime:
    """TransactTime (60), else when it was first sent: a resend changes 52, and a fill resent after midnight must keep its trade date."""
    for tag in (tags.TRANSACT_TIME, tags.ORIG_SENDING_TIME, tags.SENDING_TIME):
        time = message.timestamp(tag)
        if time is not None:
            return time
    return datetime.fromtimestamp(0, UTC)
