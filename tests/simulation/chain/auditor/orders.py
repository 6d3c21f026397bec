"""Rules about the life of orders: streams, terminal states, kill switches, and what leaves for the venue."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from tests.simulation.chain.auditor.view import CANCELED, EXPIRED, FILLED, TERMINAL, TRADE, Audited, OrderView, Violation
from tests.simulation.chain.history import LogEvent

KILL_GRACE_SECONDS = 6.0
"""What was persisted for sending before the switch may still leave: at most as long as its sender's lease lives."""

_NEW_ORDER, _REPLACE = "D", "G"


def streams_are_whole(audited: Audited) -> Iterator[Violation]:
    """Every stream counts 1, 2, 3 without gaps, in order of commits and in the log's order alike."""
    for name, log in (("oms", audited.history.orders), ("risk", audited.history.risk)):
        seen: dict[str, LogEvent] = {}
        for event in log:
            before = seen.get(event.stream_id)
            if event.version != (1 if before is None else before.version + 1):
                yield Violation(
                    "streams-are-whole", f"{name}: {event.stream_id} has version {event.version} after {before and before.version}"
                )
            if before is not None and (before.tx, before.position) > (event.tx, event.position):
                yield Violation("streams-are-whole", f"{name}: {event.stream_id} version {event.version} stands before its predecessor")
            seen[event.stream_id] = event


_ALLOWED_AFTER_END = {"AnomalyRecorded", "ExecutionRecorded", "OrderAcknowledged", "CancelRefused", "ReplaceRefused"}


def terminal_states_stay(audited: Audited) -> Iterator[Violation]:
    """An order at its end stays there. Late executions count without reviving it; only a bust or a replace reopens a filled one."""
    views: dict[str, OrderView] = {}
    for order_id, entry in audited.order_entries():
        view = views.setdefault(order_id, OrderView(order_id))
        before, filled = view.state, view.filled
        view.apply(entry)
        if before not in TERMINAL:
            continue
        reopened = before == FILLED and (
            (entry.kind == "ExecutionRecorded" and entry.body.execution.type != TRADE and view.filled < filled)
            or entry.kind == "OrderReplaced"
            or (entry.kind in ("OrderCanceled", "OrderStateChanged") and view.state in (CANCELED, EXPIRED))
        )
        # Risk waits to hear of a replace that it has approved: a larger one would have reopened the order.
        refused = before == FILLED and entry.kind == "ReplaceRejected"
        if view.state != before and not reopened:
            yield Violation("terminal-states-stay", f"{order_id}: {entry.kind} took it from state {before} to {view.state}")
        elif entry.kind not in _ALLOWED_AFTER_END and not reopened and not refused:
            yield Violation("terminal-states-stay", f"{order_id}: {entry.kind} after state {before}")


class _Switch(NamedTuple):
    scope: str
    scope_id: str
    moment: float


def _covers(active: dict[tuple[str, str], _Switch], order: OrderView) -> _Switch | None:
    subjects = {
        "firm": "*",
        "account": order.account_id,
        "trader": order.principal,
        "instrument": order.instrument_id,
        "tenant": None,
    }
    return next((switch for switch in active.values() if subjects[switch.scope] == switch.scope_id), None)


def killed_orders_are_not_sent(audited: Audited) -> Iterator[Violation]:
    """Once a kill switch is in svc_oms's log, nothing that it covers is persisted for sending, cancels excepted."""
    views: dict[str, OrderView] = {}
    active: dict[tuple[str, str], _Switch] = {}
    for entry in audited.orders:
        stream_id = entry.event.stream_id
        if entry.kind == "KillSwitchApplied":
            scope, _, scope_id = entry.body.scope.partition("/")
            if entry.body.active:
                active[scope, scope_id] = _Switch(scope, scope_id, entry.event.moment)
            else:
                active.pop((scope, scope_id), None)
        elif stream_id.startswith("order-"):
            order_id = stream_id.removeprefix("order-")
            view = views.setdefault(order_id, OrderView(order_id))
            view.apply(entry)
            if entry.kind == "OrderRouted" and entry.body.action != 1:
                switch = _covers(active, view)
                if switch is not None:
                    text = f"{entry.body.venue_client_order_id} was persisted for sending under {switch.scope}/{switch.scope_id}"
                    yield Violation("killed-orders-are-not-sent", text)


def killed_orders_do_not_leave(audited: Audited) -> Iterator[Violation]:
    """Nor does it leave for the venue, once whoever had persisted it before has no lease any more."""
    views = audited.folded()
    spans = _switch_spans(audited)
    for frame in audited.history.frames:
        if frame.sender == "venue" or frame.get(35) not in (_NEW_ORDER, _REPLACE):
            continue
        view = views.get(frame.get(11)[:36])
        for switch, until in spans if view is not None else ():
            assert view is not None
            late = switch.moment + KILL_GRACE_SECONDS < frame.moment < until
            if late and _covers({(switch.scope, switch.scope_id): switch}, view) is not None:
                yield Violation("killed-orders-are-not-sent", f"{frame.get(11)} left for the venue under {switch.scope}/{switch.scope_id}")


def _switch_spans(audited: Audited) -> list[tuple[_Switch, float]]:
    spans: list[tuple[_Switch, float]] = []
    active: dict[tuple[str, str], _Switch] = {}
    for entry in audited.orders:
        if entry.kind != "KillSwitchApplied":
            continue
        scope, _, scope_id = entry.body.scope.partition("/")
        before = active.pop((scope, scope_id), None)
        if before is not None:
            spans.append((before, entry.event.moment))
        if entry.body.active:
            active[scope, scope_id] = before or _Switch(scope, scope_id, entry.event.moment)
    return spans + [(switch, float("inf")) for switch in active.values()]


def one_number_one_message(audited: Audited) -> Iterator[Violation]:
    """A number that we gave a FIX message never names another one: a resend repeats it or fills the gap."""
    sent: dict[int, tuple[Any, ...]] = {}
    for frame in audited.history.frames:
        if frame.sender == "venue" or frame.get(35) in ("0", "1", "2", "3", "4", "5", "A"):
            continue
        content = tuple((tag, text) for tag, text in frame.fields if tag not in (8, 9, 10, 43, 52, 97, 122))
        known = sent.setdefault(int(frame.get(34)), content)
        if known != content:
            yield Violation("one-number-one-message", f"number {frame.get(34)} stands for {dict(known)} and for {dict(content)}")
