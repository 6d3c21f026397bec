"""Execution reports and cancel rejects (FIX 4.4 Volume 4, Appendix D semantics), drawn from engine events.

An execution id (17) is the journal's incarnation and the event's number, so it is unique across trade dates and restarts.
Quantities and prices are canonical decimals; AvgPx (6) is rounded half-even at 8 decimals. TransactTime (60) has milliseconds.
"""

import time
from collections.abc import Callable, Iterator
from typing import NamedTuple, cast

from kernel.fix import tags
from kernel.fix.message import Field
from kernel.fix.steps import AppMessage
from sandbox.exchange.engine import events
from sandbox.exchange.engine.events import Event
from sandbox.exchange.engine.state import VenueState
from sandbox.exchange.engine.vocabulary import (
    CANCEL_TEXTS,
    CancelRejectReason,
    Order,
    OrderStatus,
    OrderType,
    RejectReason,
    Side,
    Trade,
)

SECONDARY_EXEC_ID = 527
NO_ORDER_ID = "NONE"
# ExecID of a report that answers a status request (FIX 4.4: "will be 0 for ExecType=I").
STATUS_EXEC_ID = "0"
_UNDISCLOSED_SIDE = "7"
_NANOSECONDS = 1_000_000_000


class Withheld(NamedTuple):
    """Filled quantity (lots) and value (tick·lots) of an order that its owner has not been told of yet."""

    quantity: int = 0
    value: int = 0


class Report(NamedTuple):
    """A message for a member, with the order and event behind it."""

    owner: str
    order: Order | None
    event: Event | None
    message: AppMessage


class TimestampWriter:
    """UTCTimestamp with milliseconds out of nanoseconds; the part up to the second is kept, for it seldom changes."""

    def __init__(self) -> None:
        self._second = -1
        self._text = ""

    def text(self, time_ns: int) -> str:
        """Return `YYYYMMDD-HH:MM:SS.sss`."""
        second, rest = divmod(time_ns, _NANOSECONDS)
        if second != self._second:
            self._second = second
            self._text = time.strftime("%Y%m%d-%H:%M:%S", time.gmtime(second))
        return f"{self._text}.{rest // 1_000_000:03d}"


class ReportWriter:
    """Draws reports from the state that an event left behind.

    Args:
        state: the venue's state; read only.
        incarnation: prefix of order and execution ids.
        withheld: fills by order id that a fault holds back; reports are written as if those had not happened.

    Nothing is written for the state's transient owners: nobody would read it.
    """

    def __init__(self, state: VenueState, incarnation: str, withheld: dict[int, Withheld]) -> None:
        self._silent = state.retention.transient_owners
        self._state = state
        self._incarnation = incarnation
        self._withheld = withheld
        self._timestamps = TimestampWriter()

    def reports(self, event: Event) -> Iterator[Report]:
        """Yield the reports of one event; call it right after the event was folded."""
        write = _WRITERS.get(type(event))
        return iter(()) if write is None else write(self, event)

    def order_id(self, number: int) -> str:
        """Return OrderID (37)."""
        return f"{self._incarnation}-{number}"

    def exec_number(self, exec_id: str) -> int | None:
        """Return the number in an ExecID of this venue, or None."""
        prefix, _, number = exec_id.rpartition("-")
        return int(number) if prefix == self._incarnation and number.isascii() and number.isdigit() else None

    def standing(self, order: Order) -> tuple[OrderStatus, int, int, int]:
        """Return what the owner may know: status, CumQty, LeavesQty (lots) and value."""
        withheld = self._withheld.get(order.order_id)
        if withheld is None:
            return order.status, order.cum_quantity, order.leaves_quantity, order.value
        cum, value = order.cum_quantity - withheld.quantity, order.value - withheld.value
        if order.status in (OrderStatus.CANCELED, OrderStatus.EXPIRED):
            return order.status, cum, 0, value
        status = OrderStatus.PARTIALLY_FILLED if cum else OrderStatus.NEW
        return status, cum, order.leaves_quantity + withheld.quantity, value

    def _reported(self, order_id: int) -> Order | None:
        order = self._state.orders.get(order_id)
        return None if order is None or order.owner in self._silent else order

    def _body(self, order: Order, exec_id: str, exec_type: str, time_ns: int) -> list[Field]:
        instrument = self._state.markets[order.instrument].instrument
        status, cum, leaves, value = self.standing(order)
        lots = instrument.quantities.text
        body: list[Field] = [
            (tags.AVG_PX, instrument.average_price(value, cum)),
            (tags.CL_ORD_ID, order.client_order_ids[-1]),
            (tags.CUM_QTY, lots(cum)),
            (tags.EXEC_ID, exec_id),
            (tags.ORDER_ID, f"{self._incarnation}-{order.order_id}"),
            (tags.ORDER_QTY, lots(order.quantity)),
            (tags.ORD_STATUS, status),
            (tags.ORD_TYPE, order.order_type),
            (tags.SIDE, order.side),
            (tags.SYMBOL, order.instrument),
            (tags.TIME_IN_FORCE, order.time_in_force),
            (tags.TRANSACT_TIME, self._timestamps.text(time_ns)),
            (tags.EXEC_TYPE, exec_type),
            (tags.LEAVES_QTY, lots(leaves)),
        ]
        if order.account:
            body.append((tags.ACCOUNT, order.account))
        if order.order_type is OrderType.LIMIT:
            body.append((tags.PRICE, instrument.prices.text(order.price)))
        return body

    def _report(self, order: Order, event: Event, body: list[Field]) -> Report:
        return Report(order.owner, order, event, AppMessage(tags.EXECUTION_REPORT, body, str(order.order_id)))

    def _accepted(self, event: events.Accepted) -> Iterator[Report]:
        order = self._reported(event.sequence)
        if order is not None:
            yield self._report(order, event, self._body(order, self.order_id(event.sequence), "0", event.time_ns))

    def _rejected(self, event: events.Rejected) -> Iterator[Report]:
        body: list[Field] = [
            (tags.ORDER_ID, NO_ORDER_ID),
            (tags.CL_ORD_ID, event.client_order_id),
            (tags.EXEC_ID, self.order_id(event.sequence)),
            (tags.EXEC_TYPE, "8"),
            (tags.TRANSACT_TIME, self._timestamps.text(event.time_ns)),
            *rejected_terms(event),
        ]
        yield Report(event.owner, None, event, AppMessage(tags.EXECUTION_REPORT, body))

    def _traded(self, event: events.Traded) -> Iterator[Report]:
        for order_id in (event.taker_id, event.maker_id):
            order = self._reported(order_id)
            if order is not None:
                yield self.trade_report(order, event)

    def trade_report(self, order: Order, event: events.Traded) -> Report:
        """Return the report of one side of a trade, as things stand now."""
        body = self._body(order, self.order_id(event.sequence + (order.side is Side.SELL)), "F", event.time_ns)
        instrument = self._state.markets[order.instrument].instrument
        body += (
            (tags.LAST_PX, instrument.prices.text(event.price)),
            (tags.LAST_QTY, instrument.quantities.text(event.quantity)),
            (tags.TRADE_DATE, event.trade_date.replace("-", "")),
            (SECONDARY_EXEC_ID, str(event.sequence)),
            (tags.LAST_LIQUIDITY_IND, "1" if order.order_id == event.maker_id else "2"),
        )
        return self._report(order, event, body)

    def _canceled(self, event: events.Canceled) -> Iterator[Report]:
        order = self._reported(event.order_id)
        if order is None:
            return
        body = self._body(order, self.order_id(event.sequence), "4", event.time_ns)
        if event.client_order_id:
            body[1] = (tags.CL_ORD_ID, event.client_order_id)
            body.append((tags.ORIG_CL_ORD_ID, order.client_order_id))
        text = CANCEL_TEXTS.get(event.reason)
        if text:
            body.append((tags.TEXT, text))
        yield self._report(order, event, body)

    def _replaced(self, event: events.Replaced) -> Iterator[Report]:
        order = self._reported(event.order_id)
        if order is None:
            return
        body = self._body(order, self.order_id(event.sequence), "5", event.time_ns)
        body.append((tags.ORIG_CL_ORD_ID, order.client_order_ids[-2]))
        yield self._report(order, event, body)

    def _expired(self, event: events.Expired) -> Iterator[Report]:
        order = self._reported(event.order_id)
        if order is not None:
            yield self._report(order, event, self._body(order, self.order_id(event.sequence), "C", event.time_ns))

    def _corrected(self, event: events.TradeCorrected) -> Iterator[Report]:
        trade = self._state.trades[event.match_id]
        for number, order_id in enumerate((trade.buy_order_id, trade.sell_order_id)):
            order = self._reported(order_id)
            if order is not None:
                yield self._report(order, event, self._correction(order, trade, event, number))

    def _correction(self, order: Order, trade: Trade, event: events.TradeCorrected, number: int) -> list[Field]:
        body = self._body(order, self.order_id(event.sequence + number), "G" if event.quantity else "H", event.time_ns)
        instrument = self._state.markets[order.instrument].instrument
        body += (
            # Always the execution's first id, also when it was corrected before.
            (tags.EXEC_REF_ID, self.order_id(event.match_id + number)),
            (tags.TRADE_DATE, trade.trade_date.replace("-", "")),
            (SECONDARY_EXEC_ID, str(event.match_id)),
        )
        if event.quantity:
            body += (
                (tags.LAST_PX, instrument.prices.text(event.price)),
                (tags.LAST_QTY, instrument.quantities.text(event.quantity)),
            )
        return body

    def _change_rejected(self, event: events.ChangeRejected) -> Iterator[Report]:
        order = self._state.orders.get(event.order_id)
        reason = CancelRejectReason[event.reason]
        body: list[Field] = [
            (tags.ORDER_ID, self.order_id(event.order_id) if order else NO_ORDER_ID),
            (tags.CL_ORD_ID, event.client_order_id),
            (tags.ORIG_CL_ORD_ID, event.orig_client_order_id),
            (tags.ORD_STATUS, self.standing(order)[0] if order else OrderStatus.REJECTED),
            (tags.CXL_REJ_RESPONSE_TO, event.response_to),
            (tags.CXL_REJ_REASON, reason.code),
            (tags.TRANSACT_TIME, self._timestamps.text(event.time_ns)),
            (tags.TEXT, event.text),
        ]
        yield Report(event.owner, order, event, AppMessage(tags.ORDER_CANCEL_REJECT, body))

    def status(self, known: Order | events.Rejected, time_ns: int, extra: list[Field]) -> AppMessage:
        """Return the status (150=I) of an order, or of one that was refused."""
        if isinstance(known, Order):
            body = self._body(known, STATUS_EXEC_ID, "I", time_ns)
        else:
            body = [
                (tags.ORDER_ID, NO_ORDER_ID),
                (tags.CL_ORD_ID, known.client_order_id),
                (tags.EXEC_ID, STATUS_EXEC_ID),
                (tags.EXEC_TYPE, "I"),
                *rejected_terms(known),
            ]
        return AppMessage(tags.EXECUTION_REPORT, [*body, *extra])

    def unknown_status(self, client_order_id: str, symbol: str, side: str, text: str, extra: list[Field]) -> AppMessage:
        """Return the status of an order that the venue does not know: rejected, unknown order, no OrderID."""
        body: list[Field] = [
            (tags.ORDER_ID, NO_ORDER_ID),
            (tags.EXEC_ID, STATUS_EXEC_ID),
            (tags.EXEC_TYPE, "I"),
            (tags.ORD_STATUS, OrderStatus.REJECTED),
            (tags.ORD_REJ_REASON, "5"),
            (tags.SIDE, side or _UNDISCLOSED_SIDE),
            (tags.SYMBOL, symbol or "[N/A]"),
            *_NOTHING_DONE,
            (tags.TEXT, text),
            *extra,
        ]
        if client_order_id:
            body.append((tags.CL_ORD_ID, client_order_id))
        return AppMessage(tags.EXECUTION_REPORT, body)


_NOTHING_DONE: tuple[Field, ...] = ((tags.LEAVES_QTY, "0"), (tags.CUM_QTY, "0"), (tags.AVG_PX, "0"))


def rejected_terms(event: events.Rejected) -> list[Field]:
    """The fields that tell of a refused order; quantity and price as the client wrote them."""
    terms: list[Field] = [
        (tags.ORD_STATUS, OrderStatus.REJECTED),
        (tags.ORD_REJ_REASON, RejectReason[event.reason].code),
        (tags.SIDE, event.side),
        (tags.SYMBOL, event.instrument),
        *_NOTHING_DONE,
        (tags.TEXT, event.text),
    ]
    optional = (
        (tags.ACCOUNT, event.account), (tags.ORDER_QTY, event.quantity), (tags.ORD_TYPE, event.order_type), (tags.PRICE, event.price),
        (tags.TIME_IN_FORCE, event.time_in_force),
    )  # fmt: skip
    return terms + [(tag, text) for tag, text in optional if text]


_WRITERS = cast(
    "dict[type[Event], Callable[[ReportWriter, Event], Iterator[Report]]]",
    {
        events.Accepted: ReportWriter._accepted,
        events.Rejected: ReportWriter._rejected,
        events.Traded: ReportWriter._traded,
        events.Canceled: ReportWriter._canceled,
        events.Replaced: ReportWriter._replaced,
        events.Expired: ReportWriter._expired,
        events.TradeCorrected: ReportWriter._corrected,
        events.ChangeRejected: ReportWriter._change_rejected,
    },
)
