"""Compares what a runner saw with what the table wants, and holds every stream to what the contract says of all streams."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

_ABSENT = object()


def complaints(row: Mapping[str, Any], report: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with a runner's report of a row; nothing where all is as the table wants it."""
    if report.get("error"):
        return [f"the runner gave up: {report['error']}"]
    steps, seen = row["steps"], report["steps"]
    if len(seen) != len(steps):
        return [f"{len(steps)} steps, but {len(seen)} were reported"]
    found = []
    saved: dict[str, Any] = {}
    for number, (step, outcome) in enumerate(zip(steps, seen, strict=True), start=1):
        if "save" in step:
            saved[step["save"]] = outcome
        for path, wanted in step.get("expect", {}).items():
            actual = look(outcome, path)
            if not _meets(actual, wanted, saved):
                shown = "nothing" if actual is _ABSENT else repr(actual)
                found.append(f"step {number} ({step['verb']}): {path} is {shown}, not {wanted!r}; seen: {outcome}")
    streams = {step["stream"] for step in steps if "stream" in step}
    for stream in sorted(streams):
        told = [outcome for step, outcome in zip(steps, seen, strict=True) if step.get("stream") == stream]
        messages = [message for outcome in told for message in outcome.get("messages", [])]
        found += [f"stream {stream}: {complaint}" for complaint in (*_gaps(messages), *_steps_back(messages))]
    return found


def look(value: Any, path: str) -> Any:
    """Return what stands at a dotted path; `*` stands for every item of a list."""
    first, _, rest = path.partition(".")
    if first == "*":
        return [look(item, rest) if rest else item for item in value] if isinstance(value, list) else _ABSENT
    found = value.get(first, _ABSENT) if isinstance(value, dict) else _ABSENT
    return look(found, rest) if rest and found is not _ABSENT else found


def _meets(actual: Any, wanted: Any, saved: Mapping[str, Any]) -> bool:
    if isinstance(wanted, dict) and len(wanted) == 1:
        ((operation, value),) = wanted.items()
        if operation == "same_as":
            return actual is not _ABSENT and bool(actual == look(saved, value))
        if operation == "in":
            return actual in value
        if operation == "excludes":
            return isinstance(actual, list) and value not in actual
    return bool(actual == wanted)


def _gaps(messages: list[Mapping[str, Any]]) -> Iterator[str]:
    """Contiguous from 1 over all messages but heartbeats, over every break; a heartbeat names the last one (`stream.proto`)."""
    last = 0
    for message in messages:
        if message["kind"] == "heartbeat":
            if message["last_sequence"] != last:
                yield f"a heartbeat says {message['last_sequence']} after {last}"
        else:
            if message["sequence"] != last + 1:
                yield f"{message['kind']} {message['sequence']} after {last}"
            last = message["sequence"]


def _steps_back(messages: list[Mapping[str, Any]]) -> Iterator[str]:
    """No two events show an order at one version, or at an earlier one than before.

    A snapshot does not count: right behind it a stream may be resumed with events that it has shown already, so clients go by version.
    """
    told: dict[str, int] = {}
    for message in messages:
        for key, version in message.get("versions", {}).items() if message["kind"] == "event" else ():
            if version <= told.get(key, 0):
                yield f"event {message['sequence']} shows version {version} of {key} after {told[key]}"
            told[key] = version
