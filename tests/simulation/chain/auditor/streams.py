"""Rules about what watchers were told: a stream and its resumptions together tell everything once, in order, and as it was."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal

from tests.simulation.chain.auditor.view import ABANDONED, TERMINAL, Audited, Entry, OrderView, Violation
from tests.simulation.chain.history import Watched
from trademesh.oms.v1 import order_service_pb2

RULE = "streams-tell-everything"
Place = tuple[int, int]


@dataclass(frozen=True, slots=True)
class _Change:
    """An event of an account's order in the log, with the order's state after it."""

    place: Place
    order_id: str
    version: int
    type: str
    state: int
    filled: Decimal


@dataclass(slots=True)
class _Telling:
    """What one watcher knows so far."""

    sequence: int = 0
    place: Place = (0, 0)
    begun: bool = False
    """Whether a whole snapshot was seen."""
    parts: dict[str, int] = field(default_factory=dict)
    """The orders of an unfinished snapshot, with versions."""
    shown: dict[str, int] = field(default_factory=dict)
    """The orders of the last snapshot."""
    resumed: bool = False
    """Whether the stream was resumed since. What the snapshot had shown may be told again then: a token says where, not what."""


def streams_tell_everything(audited: Audited) -> Iterator[Violation]:
    """From its snapshot on, a watcher hears of every change of the account's orders once, in the log's order, over many streams."""
    changes = _changes(audited)
    watched: dict[tuple[str, str], list[Watched]] = defaultdict(list)
    for message in audited.history.watched:
        watched[message.watcher, message.account_id].append(message)
    for (watcher, account_id), messages in watched.items():
        yield from _follow(watcher, messages, changes[account_id])


def _changes(audited: Audited) -> dict[str, list[_Change]]:
    """Return what happened to each account's orders, in the order in which the log is read."""
    orders: dict[str, OrderView] = {}
    found: dict[str, list[_Change]] = defaultdict(list)

    def place(item: tuple[str, Entry]) -> Place:
        return item[1].event.tx, item[1].event.position

    for order_id, entry in sorted(audited.order_entries(), key=place):
        order = orders.setdefault(order_id, OrderView(order_id))
        order.apply(entry)
        if order.state != ABANDONED:
            event = entry.event
            change = _Change((event.tx, event.position), order_id, event.version, event.type, order.state, order.filled)
            found[order.account_id].append(change)
    return found


def _follow(watcher: str, messages: list[Watched], changes: list[_Change]) -> Iterator[Violation]:
    telling = _Telling()
    for message in messages:
        response = order_service_pb2.StreamOrderEventsResponse.FromString(message.response)
        if message.opening == "fresh":
            telling = _Telling()
        telling.resumed |= message.opening == "resumed"
        kind = response.WhichOneof("payload")
        expected = telling.sequence + (kind != "heartbeat")
        if response.sequence != expected:
            yield Violation(RULE, f"{watcher}: message {response.sequence} came where {expected} was due")
        telling.sequence = response.sequence
        if kind == "snapshot":
            yield from _snapshot(watcher, telling, response.snapshot, changes)
        elif kind == "event":
            yield from _event(watcher, telling, response.event, changes)
        elif kind == "resync":
            telling.begun = False
    missed = [change for change in _due(telling, changes) if telling.begun]
    if missed or not telling.begun:
        yield Violation(RULE, f"{watcher} was never told of {len(missed)} changes, the first is {missed[:1]}")


def _due(telling: _Telling, changes: list[_Change]) -> Iterator[_Change]:
    """Yield what is still to be told."""
    return (change for change in changes if change.place > telling.place and change.version > telling.shown.get(change.order_id, 0))


def _snapshot(watcher: str, telling: _Telling, snapshot: order_service_pb2.OrderSnapshot, changes: list[_Change]) -> Iterator[Violation]:
    if telling.begun:
        telling.begun = False
        telling.parts = {}
    telling.parts.update((order.order_id, order.version) for order in snapshot.orders)
    if not snapshot.complete:
        return
    telling.begun, telling.shown, telling.parts, telling.resumed = True, telling.parts, {}, False
    telling.place = snapshot.log_position.tx, snapshot.log_position.position
    latest: dict[str, _Change] = {}
    for change in changes:
        if change.place <= telling.place:
            latest[change.order_id] = change
    ended_later = {change.order_id for change in changes if change.place > telling.place and change.state in TERMINAL}
    for change in latest.values():
        shown = telling.shown.get(change.order_id)
        if shown is None and change.state not in TERMINAL and change.order_id not in ended_later:
            yield Violation(RULE, f"{watcher}: the snapshot at {telling.place} lacks the open order {change.order_id}")
        elif shown is not None and shown < change.version:
            yield Violation(RULE, f"{watcher}: the snapshot at {telling.place} shows version {shown} of {change.order_id}")


def _event(watcher: str, telling: _Telling, event: order_service_pb2.OrderEvent, changes: list[_Change]) -> Iterator[Violation]:
    order, place = event.order, (event.log_position.tx, event.log_position.position)
    due = next(_due(telling, changes), None)
    if telling.resumed and telling.place < place and (due is None or place < due.place):
        due = next((change for change in changes if change.place == place), None)
    if not telling.begun or due is None or due.place != place:
        yield Violation(RULE, f"{watcher} was told of {event.type} of {order.order_id} at {place}, due was {due}")
    elif (order.order_id, order.version, event.type) != (due.order_id, due.version, due.type):
        yield Violation(RULE, f"{watcher} was told of {event.type} of {order.order_id}, version {order.version}, in place of {due}")
    elif order.state != due.state or Decimal(order.filled_quantity) != due.filled:
        text = f"state {order.state} and {order.filled_quantity} filled"
        yield Violation(RULE, f"{watcher}: {order.order_id} was shown at version {due.version} with {text}; due was {due}")
    telling.place = place
