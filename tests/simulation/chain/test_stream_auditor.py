"""The rule about watchers under audit: each lie about what they were told must be seen for what it is."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.simulation.chain.auditor.audit import audit
from tests.simulation.chain.history import History, Watched
from trademesh.oms.v1 import events_pb2 as oms_events
from trademesh.oms.v1 import order_service_pb2


def watched(history: History, kind: str, number: int = 0) -> int:
    """Return where a message of a stream stands."""
    found = [index for index, message in enumerate(history.watched) if shown(message).WhichOneof("payload") == kind]
    return found[number]


def shown(message: Watched) -> order_service_pb2.StreamOrderEventsResponse:
    return order_service_pb2.StreamOrderEventsResponse.FromString(message.response)


def left_out(history: History) -> None:
    """A message of a stream never came."""
    del history.watched[watched(history, "event")]


def told_nothing(history: History) -> None:
    """A stream left a change out, and counted as if nothing were missing."""
    index = watched(history, "event")
    gone = history.watched.pop(index)
    for later, message in enumerate(history.watched[index:], start=index):
        if message.watcher == gone.watcher:
            response = shown(message)
            if message.opening == "fresh":
                break
            response.sequence -= 1
            history.watched[later] = replace(message, response=response.SerializeToString())


def told_twice(history: History) -> None:
    """A stream told of a change twice."""
    index = watched(history, "event")
    history.watched.insert(index, history.watched[index])


def told_falsely(history: History) -> None:
    """A stream showed an order as it never was."""
    index = watched(history, "event")
    response = shown(history.watched[index])
    response.event.order.filled_quantity = "12345"
    history.watched[index] = replace(history.watched[index], response=response.SerializeToString())


def told_too_little(history: History) -> None:
    """A stream ended before the run did."""
    last = history.watched[watched(history, "event", -1)]
    history.watched[:] = [message for message in history.watched if message.watcher != last.watcher or message.moment < last.moment]


def never_begun(history: History) -> None:
    """A snapshot was never finished."""
    for index, message in enumerate(history.watched):
        response = shown(message)
        if response.HasField("snapshot"):
            response.snapshot.complete = False
            history.watched[index] = replace(message, response=response.SerializeToString())


def snapshot_of_the_past(history: History) -> None:
    """A snapshot claims to be newer than it is, so that what happened in between is lost."""
    index = watched(history, "snapshot", -1)
    snapshot = shown(history.watched[index])
    account_id = history.watched[index].account_id
    places = [(event.tx, event.position) for event in history.orders]
    snapshot.snapshot.log_position.tx, snapshot.snapshot.log_position.position = max(places)
    del snapshot.snapshot.orders[:]
    # An order that never ended, so that only the snapshot could have shown it.
    terms = order_terms(history, account_id)
    event = replace(history.orders[-1], stream_id="order-planted", version=1, type="oms.v1.OrderAccepted", tx=1, payload=terms)
    history.orders.insert(0, event)
    history.watched[index] = replace(history.watched[index], response=snapshot.SerializeToString())


def order_terms(history: History, account_id: str) -> bytes:
    accepted = [event.payload for event in history.orders if event.type.endswith("OrderAccepted")]
    return next(payload for payload in accepted if oms_events.OrderAccepted.FromString(payload).terms.account_id == account_id)


LIES: tuple[tuple[Callable[[History], None], str], ...] = (
    (left_out, "was due"),
    (told_nothing, "was told of"),
    (told_twice, "was told of"),
    (told_falsely, "was shown at version"),
    (told_too_little, "was never told of"),
    (never_begun, "was never told of"),
    (snapshot_of_the_past, "lacks the open order planted"),
)


@pytest.mark.parametrize(("lie", "words"), LIES, ids=[lie.__name__ for lie, _ in LIES])
def test_a_planted_violation_is_caught(good: History, lie: Callable[[History], None], words: str) -> None:
    planted = copy.deepcopy(good)
    lie(planted)
    found = [violation.text for violation in audit(planted) if violation.rule == "streams-tell-everything"]
    assert any(words in text for text in found), found
