"""Turns what the parts of a run wrote (tables, a journal, bytes on wires) into the plain records of a history."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path

from tests.fakes.postgres.server import MemoryPostgres
from tests.simulation.chain.history import FixFrame, LogEvent, VenueEvent
from tests.simulation.chain.network import Frame
from trademesh.oms.v1.events_pb2 import OrderAccepted, OrderRejected

_FRAME = struct.Struct("<II")
_HEADER = struct.Struct("<I")
_BEGINS: dict[str, type[OrderAccepted] | type[OrderRejected]] = {
    "oms.v1.OrderAccepted": OrderAccepted,
    "oms.v1.OrderRejected": OrderRejected,
}
_END_OF_MESSAGE = b"\x0110="


def log_events(server: MemoryPostgres) -> list[LogEvent]:
    """Return a service's log in the order of commits."""
    return [
        LogEvent(
            record.number,
            record.moment,
            event.position.tx,
            event.position.position,
            event.stream_id,
            event.version,
            event.type,
            event.payload,
        )
        for record in server.commits
        for event in record.events
    ]


def last_change(server: MemoryPostgres, account_id: str) -> tuple[int, int]:
    """Return where the newest event of an account's orders stands, transaction and position; zeros if there is none."""
    accounts, last = dict[str, str](), (0, 0)
    for event in server.log.ordered:
        begins = _BEGINS.get(event.type)
        if begins is not None:
            accounts[event.stream_id] = begins.FromString(event.payload).terms.account_id
        if accounts.get(event.stream_id) == account_id:
            last = max(last, (event.position.tx, event.position.position))
    return last


def venue_events(journal: Path) -> list[VenueEvent]:
    """Return the events of an exchange's journal as they stand on disk (`sandbox/exchange/README.md` has the format)."""
    return [
        VenueEvent(kind, tuple(fields))
        for path in sorted(journal.glob("journal-*.log"))
        for header in _headers(path.read_bytes())
        for kind, fields in header["e"]
    ]


def _headers(data: bytes) -> Iterator[dict[str, list[tuple[str, list[object]]]]]:
    offset = data.index(b"\n") + 1
    while offset < len(data):
        length, _ = _FRAME.unpack_from(data, offset)
        start = offset + _FRAME.size
        (header_length,) = _HEADER.unpack_from(data, start)
        yield json.loads(data[start + _HEADER.size : start + _HEADER.size + header_length])
        offset = start + length


def fix_frames(tape: Iterable[Frame]) -> list[FixFrame]:
    """Return the FIX messages that were written between the order service and the venue, one by one."""
    found = []
    for frame in tape:
        ends = (frame.sender.partition("-")[0], frame.receiver.partition("-")[0])
        if ends not in (("oms", "venue"), ("venue", "oms")):
            continue
        rest = frame.data
        while rest:
            end = rest.index(b"\x01", rest.index(_END_OF_MESSAGE) + 1) + 1
            fields = (field.partition("=") for field in rest[:end].decode("latin-1").split("\x01") if field)
            named = tuple((int(tag), text) for tag, _, text in fields)
            found.append(FixFrame(frame.moment, frame.sender, frame.connection, named))
            rest = rest[end:]
    return found
