"""A run told in order of time, for whoever has to find out what went wrong."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

from google.protobuf import text_format

from tests.simulation.chain.history import History, LogEvent
from trademesh.oms.v1 import events_pb2 as oms_events
from trademesh.risk.v1 import events_pb2 as risk_events

_LINE_LENGTH_MAX = 400
_ENVELOPE = frozenset({8, 9, 10, 49, 56})


def tell(history: History, text: str) -> Iterator[str]:
    """Yield what chaos did, and every event, message and call that mentions a text; without a text only the former."""
    lines = [(moment, f"chaos  {what}") for moment, what in history.hurts]
    if text:
        lines += [line for line in _all(history) if text in line[1]]
    for moment, line in sorted(lines, key=lambda item: item[0]):
        yield f"{moment:10.4f}  {line}"[:_LINE_LENGTH_MAX]


def digest(history: History) -> str:
    """Return a hash of everything that happened: equal for equal runs."""
    return hashlib.sha256(repr(history).encode()).hexdigest()


def _all(history: History) -> Iterator[tuple[float, str]]:
    for name, log, module in (("oms ", history.orders, oms_events), ("risk", history.risk, risk_events)):
        for event in log:
            yield event.moment, f"{name}   {event.stream_id}@{event.version} {event.type.rpartition('.')[2]} {_payload(event, module)}"
    for frame in history.frames:
        fields = " ".join(f"{tag}={text}" for tag, text in frame.fields if tag not in _ENVELOPE)
        yield frame.moment, f"fix    {frame.sender} connection {frame.connection}: {fields}"
    for call in history.calls:
        yield call.moment, f"call   {call.number} {call.client} {call.method} {call.key}"
    calls = {call.number: call for call in history.calls}
    for answer in history.answers:
        call = calls[answer.number]
        yield answer.moment, f"answer {call.number} {call.client} {call.method} {call.key}: {answer.outcome} {answer.reason}"


def _payload(event: LogEvent, module: Any) -> str:
    message = getattr(module, event.type.rpartition(".")[2]).FromString(event.payload)
    return text_format.MessageToString(message, as_one_line=True)
