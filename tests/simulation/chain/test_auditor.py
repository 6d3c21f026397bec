"""The auditor under audit: every rule is shown a run that breaks it, made from a good one by a small lie, and must say so."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from tests.simulation.chain.auditor.audit import audit
from tests.simulation.chain.history import Answer, Call, History, LogEvent, VenueEvent
from tests.simulation.chain.venue import MEMBER
from trademesh.oms.v1 import events_pb2 as oms_events
from trademesh.oms.v1 import order_service_pb2
from trademesh.risk.v1 import events_pb2 as risk_events

ExecutionRecorded, ExposureFilled = oms_events.ExecutionRecorded, risk_events.ExposureFilled


def find(log: list[LogEvent], kind: str, number: int = 0) -> int:
    """Return where an event of a kind stands."""
    return [index for index, event in enumerate(log) if event.type.endswith("." + kind)][number]


def changed(event: LogEvent, message_type: Any, **values: Any) -> LogEvent:
    """Return an event with another payload; names with two underscores reach into messages."""
    message = message_type.FromString(event.payload)
    for path, value in values.items():
        target = message
        *outer, name = path.split("__")
        for part in outer:
            target = getattr(target, part)
        setattr(target, name, value)
    return replace(event, payload=message.SerializeToString())


def drop_stream(history: History, log: list[LogEvent], stream_id: str) -> None:
    """Make a stream as if it had never been."""
    log[:] = [event for event in log if event.stream_id != stream_id]


def appended(log: list[LogEvent], stream_id: str, kind: str, message: Any, **where: Any) -> None:
    """Add an event at the end of a stream and of the log."""
    version = max((event.version for event in log if event.stream_id == stream_id), default=0) + 1
    last = log[-1]
    log.append(
        replace(
            last, commit=last.commit + 1, tx=last.tx + 1, stream_id=stream_id, version=version, type=kind,
            payload=message.SerializeToString(), **where,
        )
    )  # fmt: skip


def lost_order(history: History) -> None:
    """An acknowledged order is not in the log."""
    drop_stream(history, history.orders, history.orders[find(history.orders, "OrderAccepted")].stream_id)


def late_commit(history: History) -> None:
    """An order was acknowledged before it was committed."""
    index = find(history.orders, "OrderAccepted")
    history.orders[index] = replace(history.orders[index], moment=1e9)


def lost_cancel(history: History) -> None:
    """An acknowledged cancel is not in the log."""
    number = len(history.calls) + 1
    history.calls.append(Call(number, 1.0, "eve", "CancelOrder", ("ACC-1", "a-request"), b""))
    history.answers.append(Answer(number, 2.0, "ok", "", order_service_pb2.CancelOrderResponse().SerializeToString()))


def lost_limit(history: History) -> None:
    """An acknowledged limit is not in risk's log where it was said to be."""
    index = find(history.risk, "LimitUpdated")
    history.risk[index] = replace(history.risk[index], position=10**9)


def two_answers(history: History) -> None:
    """One key got two answers."""
    for call in list(history.calls):
        for answer in list(history.answers):
            if answer.number == call.number and call.method == "CreateOrder" and answer.outcome == "ok":
                number = len(history.calls) + 1
                response = order_service_pb2.CreateOrderResponse.FromString(answer.response)
                response.order.version += 1
                history.calls.append(replace(call, number=number))
                history.answers.append(Answer(number, answer.moment, "ok", "", response.SerializeToString(deterministic=True)))
                return


def never_resolved(history: History) -> None:
    """A client never learned what came of its order."""
    number = len(history.calls) + 1
    history.calls.append(Call(number, 1.0, "eve", "CreateOrder", ("ACC-1", "a-key"), b""))
    history.answers.append(Answer(number, 2.0, "unknown"))


def broken_promise(history: History) -> None:
    """The client was told that nothing was done, and the order exists."""
    body = oms_events.OrderAccepted.FromString(history.orders[find(history.orders, "OrderAccepted")].payload)
    key = (body.terms.account_id, body.terms.client_order_id)
    numbers = {call.number for call in history.calls if call.key == key}
    # Not through a batch either.
    history.calls[:] = [call for call in history.calls if call.method != "BatchCreateOrders"]
    kept = {call.number for call in history.calls}
    history.answers[:] = [
        replace(answer, outcome="refused", reason="RISK_UNAVAILABLE", response=b"") if answer.number in numbers else answer
        for answer in history.answers
        if answer.number in kept
    ]


def missing_version(history: History) -> None:
    """A stream has a gap."""
    del history.orders[find(history.orders, "OrderRouted")]


def twice_recorded(history: History) -> None:
    """A version of a stream was recorded twice."""
    history.risk.append(history.risk[find(history.risk, "ExposureReserved")])


def log_out_of_order(history: History) -> None:
    """A stream's versions stand in the wrong order of the log."""
    index = find(history.orders, "OrderRouted")
    history.orders[index] = replace(history.orders[index], tx=1)


def risen_from_the_dead(history: History) -> None:
    """A canceled order works again."""
    stream_id = history.orders[find(history.orders, "OrderCanceled")].stream_id
    appended(history.orders, stream_id, "oms.v1.OrderStateChanged", oms_events.OrderStateChanged(state=2))  # type: ignore[arg-type]


def asked_after_the_end(history: History) -> None:
    """A cancel was taken for an order at its end."""
    stream_id = history.orders[find(history.orders, "OrderCanceled")].stream_id
    appended(history.orders, stream_id, "oms.v1.CancelRequested", oms_events.CancelRequested(venue_client_order_id="x"))


def refused_after_the_end(history: History) -> None:
    """A replace of a canceled order was recorded as refused, though its end had released everything."""
    stream_id = history.orders[find(history.orders, "OrderCanceled")].stream_id
    appended(history.orders, stream_id, "oms.v1.ReplaceRejected", oms_events.ReplaceRejected(request_id="x"))


def kill_switch(history: History, before: int, moment: float) -> None:
    event = history.orders[min(before, len(history.orders) - 1)]
    body = oms_events.KillSwitchApplied(scope="firm/*", active=True, switch_version=99)
    stop = replace(
        event, stream_id="kill-planted", version=1, type="oms.v1.KillSwitchApplied", payload=body.SerializeToString(), moment=moment
    )
    history.orders.insert(before, stop)


def sent_under_a_switch(history: History) -> None:
    """An order was persisted for sending under a kill switch."""
    index = find(history.orders, "OrderRouted")
    kill_switch(history, index, history.orders[index].moment)


def left_under_a_switch(history: History) -> None:
    """An order left for the venue long after a kill switch."""
    index, frame = next((index, frame) for index, frame in enumerate(history.frames) if frame.get(35) == "D")
    kill_switch(history, len(history.orders), history.orders[-1].moment)
    history.frames[index] = replace(frame, moment=history.orders[-1].moment + 7.0)


def number_given_twice(history: History) -> None:
    """Two messages to the venue have one number."""
    frame = next(frame for frame in history.frames if frame.get(35) == "D")
    fields = tuple((tag, "another" if tag == 11 else text) for tag, text in frame.fields)
    history.frames.append(replace(frame, fields=fields, connection=99))


def approved_above_the_limit(history: History) -> None:
    """An approval passed the limit on open exposure."""
    index = find(history.risk, "LimitUpdated", 0)
    while risk_events.LimitUpdated.FromString(history.risk[index].payload).limit.type != 5:
        index += 1
    history.risk[index] = changed(history.risk[index], risk_events.LimitUpdated, limit__value="1")


def approved_above_the_gross_limit(history: History) -> None:
    """An approval passed the limit on gross exposure."""
    index = find(history.risk, "ExposureReserved")
    history.risk[index] = changed(history.risk[index], risk_events.ExposureReserved, delta__gross_exposure="99999999")


def approved_under_a_switch(history: History) -> None:
    """An approval was made under a kill switch."""
    index = find(history.risk, "ExposureReserved")
    body = risk_events.KillSwitchChanged()
    body.kill_switch.scope, body.kill_switch.scope_id, body.kill_switch.status = 1, "*", 2  # type: ignore[assignment]
    stop = replace(
        history.risk[index], stream_id="kill-planted", version=1, type="risk.v1.KillSwitchChanged", payload=body.SerializeToString()
    )
    history.risk.insert(index, stop)


def false_sum(history: History) -> None:
    """A change of exposure does not add up."""
    index = find(history.risk, "ExposureReserved")
    history.risk[index] = changed(history.risk[index], risk_events.ExposureReserved, delta__open_notional="1")


def lost_release(history: History) -> None:
    """A reservation was never released."""
    released = risk_events.ExposureReleased
    number = 0
    while released.FromString(history.risk[index := find(history.risk, "ExposureReleased", number)].payload).delta.delta_quantity == "0":
        number += 1
    history.risk[index] = changed(history.risk[index], released, delta__delta_quantity="0", delta__delta_notional="0")


def shown_wrongly(history: History) -> None:
    """Risk shows another exposure than its log has."""
    rest = history.rests[-1]
    exposure = replace(rest.exposures[0], buy_notional="12345")
    history.rests[-1] = replace(rest, exposures=(exposure, *rest.exposures[1:]))


def counted_wrongly(history: History) -> None:
    """Risk counts reservations that are not there."""
    rest = history.rests[-1]
    exposure = replace(rest.exposures[0], reservation_count=3)
    history.rests[-1] = replace(rest, exposures=(exposure, *rest.exposures[1:]))


def left_open(history: History) -> None:
    """An order survived the cancel of everything."""
    index = find(history.orders, "OrderCanceled")
    event = history.orders[index]
    history.orders[index] = replace(event, type="oms.v1.AnomalyRecorded", payload=oms_events.AnomalyRecorded().SerializeToString())


def sent_unapproved(history: History) -> None:
    """An order reached the venue before risk had approved it."""
    history.risk[:] = [replace(event, moment=1e9) if event.type.endswith("ExposureReserved") else event for event in history.risk]


def never_accepted(history: History) -> None:
    """The venue has an order that was never accepted here."""
    event = next(event for event in history.venue if event.kind == "A" and event.fields[2] == MEMBER)
    history.venue.append(VenueEvent("A", (10**9, *event.fields[1:4], "f" * 36, *event.fields[5:])))


def sent_too_much(history: History) -> None:
    """The venue has more than was approved."""
    index, event = next((i, e) for i, e in enumerate(history.venue) if e.kind == "A" and e.fields[2] == MEMBER)
    lots = event.fields[9]
    assert isinstance(lots, int)
    history.venue[index] = VenueEvent("A", (*event.fields[:9], lots + 1, *event.fields[10:]))


def counted_twice(history: History) -> None:
    """One execution counts for two orders."""
    event = history.orders[find(history.orders, "ExecutionRecorded")]
    other = next(e.stream_id for e in history.orders if e.type.endswith("OrderAccepted") and e.stream_id != event.stream_id)
    appended(history.orders, other, event.type, ExecutionRecorded.FromString(event.payload))


def forgotten_fill(history: History) -> None:
    """The venue traded for us, and nobody here knows."""
    event = history.orders[find(history.orders, "ExecutionRecorded")]
    exec_id = ExecutionRecorded.FromString(event.payload).execution.exec_id
    index = history.orders.index(event)
    history.orders[index] = changed(event, ExecutionRecorded, execution__exec_id=exec_id + "9")


def position_off(history: History) -> None:
    """Risk's log moves a position by something else than the fill."""
    index = find(history.risk, "ExposureFilled")
    history.risk[index] = changed(history.risk[index], ExposureFilled, position_delta="1000")


def position_shown_off(history: History) -> None:
    """Risk shows another position than was traded."""
    rest = history.rests[-1]
    exposure = rest.exposures[0]
    history.rests[-1] = replace(rest, exposures=(replace(exposure, positions=(("AAPL", "777", "0", "0"),)), *rest.exposures[1:]))


def unrest(history: History) -> None:
    """The system did not come to rest."""
    history.unrest.append("something waits")


def defect(history: History) -> None:
    """A replica ended by itself."""
    history.defects.append("a replica ended")


LIES: tuple[tuple[Callable[[History], None], str], ...] = (
    (lost_order, "acknowledged-is-durable"),
    (late_commit, "acknowledged-is-durable"),
    (lost_cancel, "acknowledged-is-durable"),
    (lost_limit, "acknowledged-is-durable"),
    (two_answers, "replays-are-identical"),
    (never_resolved, "unknown-outcomes-resolve"),
    (broken_promise, "unknown-outcomes-resolve"),
    (missing_version, "streams-are-whole"),
    (twice_recorded, "streams-are-whole"),
    (log_out_of_order, "streams-are-whole"),
    (risen_from_the_dead, "terminal-states-stay"),
    (asked_after_the_end, "terminal-states-stay"),
    (refused_after_the_end, "terminal-states-stay"),
    (sent_under_a_switch, "killed-orders-are-not-sent"),
    (left_under_a_switch, "killed-orders-are-not-sent"),
    (number_given_twice, "one-number-one-message"),
    (approved_above_the_limit, "limits-hold"),
    (approved_above_the_gross_limit, "limits-hold"),
    (approved_under_a_switch, "limits-hold"),
    (false_sum, "ledger-adds-up"),
    (lost_release, "reservations-end"),
    (counted_wrongly, "reservations-end"),
    (shown_wrongly, "exposures-are-open-orders"),
    (left_open, "exposures-are-open-orders"),
    (sent_unapproved, "approval-comes-first"),
    (never_accepted, "approval-comes-first"),
    (sent_too_much, "approval-comes-first"),
    (counted_twice, "fills-count-once"),
    (forgotten_fill, "fills-count-once"),
    (position_off, "positions-are-fills"),
    (position_shown_off, "positions-are-fills"),
    (unrest, "comes-to-rest"),
    (defect, "no-defects"),
)


@pytest.mark.parametrize(("lie", "rule"), LIES, ids=[lie.__name__ for lie, _ in LIES])
def test_a_planted_violation_is_caught(good: History, lie: Callable[[History], None], rule: str) -> None:
    planted = copy.deepcopy(good)
    lie(planted)
    assert rule in {violation.rule for violation in audit(planted)}, lie.__doc__


def test_a_good_run_is_left_in_peace(good: History) -> None:
    assert audit(copy.deepcopy(good)) == []
