"""What follows from a venue's report. Facts are recorded, never refused: what fits no rule is kept whole as an anomaly."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from kernel.errors import Reason
from kernel.values import ZERO
from svc_oms.domain import events as e
from svc_oms.domain.commands import VenueReport
from svc_oms.domain.draft import Draft
from svc_oms.domain.evolve import root_of
from svc_oms.domain.state import EXACT, Order, Reject, leaves, mean_price
from svc_oms.domain.transitions import Fact, next_state
from svc_oms.domain.vocabulary import TERMINAL, Action, ExecutionType, OrderState, ReportKind, TimeInForce

TEXT_LENGTH_MAX = 512

_REPEATABLE = frozenset({ReportKind.STATUS, ReportKind.UNKNOWN_ORDER, ReportKind.REQUEST_REFUSED, ReportKind.PENDING})
"""Kinds without an ExecID of their own: nothing to recognise a repetition by, and nothing that counts twice."""

_EXECUTIONS = frozenset({ReportKind.TRADE, ReportKind.TRADE_CANCEL, ReportKind.TRADE_CORRECT})
"""What moves money counts even for an order that our log did not send."""

_NO_VENUE_REASON = -1
"""`venue_reason` (FIX 102) where the refusal is ours."""

_WORKING = frozenset({OrderState.NEW, OrderState.PARTIALLY_FILLED})


def record_report(order: Order, report: VenueReport, time: datetime, *, synchronised: bool = False) -> tuple[e.Event, ...]:
    """Return the events that follow from the report: none where it was recorded before.

    `synchronised`: see `RecordReport`.
    """
    return draft_report(order, report, time, synchronised=synchronised).done()


def draft_report(order: Order, report: VenueReport, time: datetime, *, synchronised: bool = False) -> Draft:
    """Return the same events with the order as they leave it, for a caller that would fold them once more."""
    draft = Draft(order)
    if report.kind not in _REPEATABLE and _recorded(order, report):
        return draft
    never_sent = not order.routed and report.kind not in _EXECUTIONS
    if order.state is OrderState.ABANDONED or never_sent:
        _anomaly(draft, report, "a report for an order that was never sent", time)
        return draft
    _RECORDERS[report.kind](draft, report, time)
    if report.kind is ReportKind.STATUS and synchronised:
        _refuse_unreceived(draft, report, time)
    _withdraw_unsent(draft, time)
    return draft


def _recorded(order: Order, report: VenueReport) -> bool:
    return report.key in order.reports or report.key in order.fills or report.key in order.corrections


def _anomaly(draft: Draft, report: VenueReport, text: str, time: datetime) -> None:
    draft.add(e.AnomalyRecorded(f"{report.kind}: {text}"[:TEXT_LENGTH_MAX], report.raw, time))


def _no_rule(draft: Draft, report: VenueReport, time: datetime) -> None:
    _anomaly(draft, report, f"no rule in state {draft.order.state.name}", time)


def _allowed(order: Order, fact: Fact) -> bool:
    return next_state(order.state, fact, order.quantity, order.filled_quantity) is not None


def _acknowledged(draft: Draft, report: VenueReport, time: datetime) -> None:
    order = draft.order
    if order.acknowledged and order.state is not OrderState.UNKNOWN:
        _anomaly(draft, report, "acknowledged before under another ExecID", time)
    elif not _allowed(order, Fact.ACKNOWLEDGED):
        _no_rule(draft, report, time)
    else:
        draft.add(e.OrderAcknowledged(report.venue_order_id, report.exec_id, report.trade_date, report.transact_time, time))


def _refused(draft: Draft, report: VenueReport, time: datetime) -> None:
    if draft.order.filled_quantity or not _allowed(draft.order, Fact.REFUSED):
        _no_rule(draft, report, time)
        return
    reject = Reject(Reason.VENUE_REJECTED, report.text[:TEXT_LENGTH_MAX] or f"venue reason {report.venue_reason}")
    draft.add(e.OrderRefused(reject, report.exec_id, report.trade_date, time))


def _trade(draft: Draft, report: VenueReport, time: datetime) -> None:
    if not report.last_quantity or report.last_quantity < 0 or report.last_price is None:
        _anomaly(draft, report, "a fill without a quantity above zero and a price", time)
        return
    _execute(draft, report, ExecutionType.TRADE, time)
    if draft.order.filled_quantity > draft.order.quantity:
        _anomaly(draft, report, "filled more than was ordered", time)


def _trade_cancel(draft: Draft, report: VenueReport, time: datetime) -> None:
    _amend(draft, report, ExecutionType.TRADE_CANCEL, time)


def _trade_correct(draft: Draft, report: VenueReport, time: datetime) -> None:
    if not report.last_quantity or report.last_quantity < 0 or report.last_price is None:
        _anomaly(draft, report, "a correction without a quantity above zero and a price", time)
        return
    _amend(draft, report, ExecutionType.TRADE_CORRECT, time)


def _amend(draft: Draft, report: VenueReport, kind: ExecutionType, time: datetime) -> None:
    root = root_of(draft.order, report.venue, report.trade_date, report.exec_ref_id)
    if root is None:
        _anomaly(draft, report, f"names the unknown execution {report.exec_ref_id[:64]!r}", time)
    elif kind is ExecutionType.TRADE_CANCEL and not draft.order.fills[root].quantity:
        _anomaly(draft, report, "the fill was busted before", time)
    else:
        _execute(draft, report, kind, time)


def _execute(draft: Draft, report: VenueReport, kind: ExecutionType, time: datetime) -> None:
    """Record an execution; quantities come from our own fills, and a venue that counts otherwise is a break."""
    order = draft.order
    before_quantity, before_price = ZERO, ZERO
    if kind is not ExecutionType.TRADE:
        root = root_of(order, report.venue, report.trade_date, report.exec_ref_id)
        assert root is not None
        before_quantity, before_price = order.fills[root].quantity, order.fills[root].price
    busted = kind is ExecutionType.TRADE_CANCEL
    quantity = before_quantity if busted else report.last_quantity
    price = before_price if busted else report.last_price
    assert quantity is not None
    assert price is not None
    counts = ZERO if busted else quantity
    filled = EXACT.add(order.filled_quantity, EXACT.subtract(counts, before_quantity))
    change = EXACT.subtract(EXACT.multiply(counts, price), EXACT.multiply(before_quantity, before_price))
    value = EXACT.add(order.filled_value, change)
    state = next_state(order.state, Fact.EXECUTED, order.quantity, filled)
    assert state is not None, "every state that a sent order can be in takes executions"
    execution = e.Execution(
        key=report.key,
        type=kind,
        exec_ref_id="" if kind is ExecutionType.TRADE else report.exec_ref_id,
        last_quantity=quantity,
        last_price=price,
        filled_quantity=filled,
        leaves_quantity=leaves(state, order.quantity, filled),
        average_price=mean_price(filled, value),
        transact_time=report.transact_time,
        order_version=order.version + 1,
        late=order.terminal,
    )
    draft.add(e.ExecutionRecorded(execution, report.venue_order_id, state, time))
    _compare(draft, report, time)


def _compare(draft: Draft, report: VenueReport, time: datetime) -> None:
    counted = report.cumulative_quantity
    if counted is not None and counted != draft.order.filled_quantity:
        _anomaly(draft, report, f"the venue counts {counted:f} filled, our fills sum to {draft.order.filled_quantity:f}", time)


def _canceled(draft: Draft, report: VenueReport, time: datetime) -> None:
    order = draft.order
    if not _allowed(order, Fact.CANCELED):
        _no_rule(draft, report, time)
        return
    asked = any(request.action is Action.CANCEL for request in order.requests)
    unsolicited = not asked and order.terms.time_in_force not in (TimeInForce.IOC, TimeInForce.FOK)
    draft.add(e.OrderCanceled(report.exec_id, report.trade_date, unsolicited, report.text[:TEXT_LENGTH_MAX], time))


def _replaced(draft: Draft, report: VenueReport, time: datetime) -> None:
    order = draft.order
    asked = next((request for request in order.requests if request.action is Action.REPLACE), None)
    fact = Fact.REPLACED if asked is not None else Fact.RESTATED
    if order.state in TERMINAL - {OrderState.FILLED} or not _allowed(order, fact):
        _no_rule(draft, report, time)
        return
    quantity = report.quantity if report.quantity is not None else (asked.quantity if asked is not None else None)
    limit_price = report.limit_price if report.limit_price is not None else (asked.limit_price if asked is not None else order.limit_price)
    # A fill that raced a replace downwards wins: the order is then filled at what it has (C.3.b, C.3.c).
    in_force = max(order.quantity if quantity is None else quantity, order.filled_quantity)
    draft.add(e.OrderReplaced(report.exec_id, report.trade_date, in_force, limit_price, asked is None, report.venue_order_id, time))


def _restated(draft: Draft, report: VenueReport, time: datetime) -> None:
    order = draft.order
    if order.state in TERMINAL - {OrderState.FILLED} and report.state not in _WORKING:
        _no_rule(draft, report, time)
        return
    quantity = order.quantity if report.quantity is None else max(report.quantity, order.filled_quantity)
    limit_price = order.limit_price if report.limit_price is None else report.limit_price
    changed = quantity != order.quantity or limit_price != order.limit_price
    if changed:
        draft.add(e.OrderReplaced(report.exec_id, report.trade_date, quantity, limit_price, True, report.venue_order_id, time))
    if report.state in _WORKING and _allowed(draft.order, Fact.REINSTATED):
        _reinstate(draft, report, time)
    elif not changed:
        _anomaly(draft, report, "restated without a change", time)


def _reinstate(draft: Draft, report: VenueReport, time: datetime) -> None:
    text = report.text[:TEXT_LENGTH_MAX]
    draft.add(e.OrderStateChanged(draft.order.working_state, report.exec_id, report.trade_date, text, time))


def _moved(fact: Fact) -> Callable[[Draft, VenueReport, datetime], None]:
    def record(draft: Draft, report: VenueReport, time: datetime) -> None:
        order = draft.order
        state = next_state(order.state, fact, order.quantity, order.filled_quantity)
        if state is None:
            _no_rule(draft, report, time)
        else:
            draft.add(e.OrderStateChanged(state, report.exec_id, report.trade_date, report.text[:TEXT_LENGTH_MAX], time))

    return record


def _pending(draft: Draft, report: VenueReport, time: datetime) -> None:
    """The venue has the request. News only of an order whose fate was not known, and only once it was acknowledged before."""
    if draft.order.state is OrderState.UNKNOWN and draft.order.acknowledged:
        _reinstate(draft, report, time)


def _status(draft: Draft, report: VenueReport, time: datetime) -> None:
    order = draft.order
    state = report.state
    current = None if report.request_pending else order.request(report.client_order_id)
    if current is not None and current.action is Action.REPLACE and current.sent and state in _WORKING:
        # The replace's ClOrdID names the order now: its report was lost, and it is in force.
        _replaced(draft, report, time)
        order = draft.order
    if state is not None and order.state is not state and state in _STATUS_RECORDERS:
        if state not in _WORKING:
            if _allowed(order, _STATUS_FACTS[state]):
                _STATUS_RECORDERS[state](draft, report, time)
        elif not order.acknowledged and order.state in (OrderState.PENDING_NEW, OrderState.UNKNOWN):
            _acknowledged(draft, report, time)
        elif order.state in (OrderState.UNKNOWN, OrderState.SUSPENDED, OrderState.STOPPED, OrderState.DONE_FOR_DAY):
            _reinstate(draft, report, time)
        elif order.terminal:
            _no_rule(draft, report, time)
    _compare(draft, report, time)


def _refuse_unreceived(draft: Draft, report: VenueReport, time: datetime) -> None:
    """A status of a live order after all that was sent was processed: a request that is neither answered nor pending never arrived."""
    ended = (draft.order.terminal and not draft.order.reopening) or report.state in TERMINAL - {OrderState.FILLED}
    if ended or report.request_pending or report.state is None:
        return
    for request in draft.order.requests:
        if request.sent:
            refused = e.CancelRefused if request.action is Action.CANCEL else e.ReplaceRefused
            draft.add(refused(request.venue_client_order_id, report.venue_reason, "the venue never received the request", time))


def _withdraw_unsent(draft: Draft, time: datetime) -> None:
    """A replace that waits to be sent ends with the order: nobody will send it, and risk holds its terms until it hears so."""
    if draft.order.state is OrderState.FILLED:
        for request in draft.order.requests:
            if request.action is Action.REPLACE and not request.sent:
                text = "the order was filled before the replace was sent"
                draft.add(e.ReplaceRefused(request.venue_client_order_id, _NO_VENUE_REASON, text, time))


def _unknown_order(draft: Draft, report: VenueReport, time: datetime) -> None:
    """The venue never saw the order. The router passes this on only once the session is synchronised past our message."""
    order = draft.order
    if order.acknowledged or order.fills or not _allowed(order, Fact.REFUSED):
        _anomaly(draft, report, "the venue does not know an order that it had answered", time)
        return
    reject = Reject(Reason.NOT_SENT_IN_TIME, "the venue never received the order")
    draft.add(e.OrderRefused(reject, "", "", time))


def _request_refused(draft: Draft, report: VenueReport, time: datetime) -> None:
    request = draft.order.request(report.client_order_id)
    if request is None:
        # A request that crossed the order's end is refused as too late, after the end itself was reported.
        if not draft.order.terminal:
            _anomaly(draft, report, "refuses a request that is not open", time)
        return
    text = report.text[:TEXT_LENGTH_MAX]
    refused = e.CancelRefused if request.action is Action.CANCEL else e.ReplaceRefused
    draft.add(refused(request.venue_client_order_id, report.venue_reason, text, time))
    if draft.order.state is OrderState.UNKNOWN and report.state in _WORKING:
        # A refusal that says how the order stands is evidence that it lives.
        draft.add(e.OrderStateChanged(draft.order.working_state, "", "", text, time))
    elif report.state in TERMINAL and not draft.order.terminal and draft.order.state is not OrderState.UNKNOWN:
        # The venue says that the order has ended, and we never learned how: it is asked.
        draft.add(e.OrderMarkedUnknown(draft.order.venue_client_order_id, time))


_RECORDERS: dict[ReportKind, Callable[[Draft, VenueReport, datetime], None]] = {
    ReportKind.PENDING: _pending,
    ReportKind.ACKNOWLEDGED: _acknowledged,
    ReportKind.REFUSED: _refused,
    ReportKind.TRADE: _trade,
    ReportKind.TRADE_CANCEL: _trade_cancel,
    ReportKind.TRADE_CORRECT: _trade_correct,
    ReportKind.CANCELED: _canceled,
    ReportKind.REPLACED: _replaced,
    ReportKind.EXPIRED: _moved(Fact.EXPIRED),
    ReportKind.DONE_FOR_DAY: _moved(Fact.DONE_FOR_DAY),
    ReportKind.SUSPENDED: _moved(Fact.SUSPENDED),
    ReportKind.STOPPED: _moved(Fact.STOPPED),
    ReportKind.RESTATED: _restated,
    ReportKind.STATUS: _status,
    ReportKind.UNKNOWN_ORDER: _unknown_order,
    ReportKind.REQUEST_REFUSED: _request_refused,
}

_STATUS_FACTS = {
    OrderState.CANCELED: Fact.CANCELED,
    OrderState.EXPIRED: Fact.EXPIRED,
    OrderState.REJECTED: Fact.REFUSED,
    OrderState.DONE_FOR_DAY: Fact.DONE_FOR_DAY,
    OrderState.SUSPENDED: Fact.SUSPENDED,
    OrderState.STOPPED: Fact.STOPPED,
}

_STATUS_RECORDERS: dict[OrderState, Callable[[Draft, VenueReport, datetime], None]] = {
    OrderState.NEW: _acknowledged,
    OrderState.PARTIALLY_FILLED: _acknowledged,
    OrderState.CANCELED: _canceled,
    OrderState.EXPIRED: _moved(Fact.EXPIRED),
    OrderState.REJECTED: _refused,
    OrderState.DONE_FOR_DAY: _moved(Fact.DONE_FOR_DAY),
    OrderState.SUSPENDED: _moved(Fact.SUSPENDED),
    OrderState.STOPPED: _moved(Fact.STOPPED),
}
