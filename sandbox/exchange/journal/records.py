"""Journal records: one record is one batch, whole or not at all.

    u32 length of the payload, u32 CRC-32 of the payload, payload
    payload = u32 length of the header, header (JSON), messages (raw bytes, one after the other)

Little-endian. A record is written with one write and one fdatasync, so at most the last one of a file can be torn.
"""

import json
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

_FRAME = struct.Struct("<II")
_HEADER = struct.Struct("<I")
FRAME_BYTES = _FRAME.size
PAYLOAD_BYTES_MAX = 256 * 1024 * 1024


class JournalError(Exception):
    """The journal cannot be read or written; the venue must not go on."""


@dataclass(slots=True)
class Batch:
    """What one batch brought.

    Attributes:
        events: encoded engine events, in order.
        sessions: CompID to `[next_in, next_out]`, as they stand after the batch.
        resets: CompIDs whose numbers and messages start anew, before anything else of the batch.
        messages: `[CompID, sequence, length]` of each outbound message in `blobs`.
        notes: small facts of other parts of the venue, each `[kind, …]`.
    """

    events: list[Any] = field(default_factory=list)
    sessions: dict[str, list[int]] = field(default_factory=dict)
    resets: list[str] = field(default_factory=list)
    messages: list[list[Any]] = field(default_factory=list)
    blobs: list[bytes] = field(default_factory=list)
    notes: list[list[Any]] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.events or self.sessions or self.messages or self.notes)


class Record(NamedTuple):
    """A record as read: its number, the batch without blobs, and where in the file the first blob begins."""

    number: int
    batch: Batch
    blobs_offset: int
    end_offset: int


def encode_record(number: int, batch: Batch) -> tuple[bytes, int]:
    """Return the record's bytes and where its blobs begin within them.

    Raises:
        JournalError: larger than 256 MiB.
    """
    header = json.dumps(
        {
            "n": number,
            "e": batch.events,
            "s": batch.sessions,
            "r": batch.resets,
            "m": batch.messages,
            "x": batch.notes,
        },
        separators=(",", ":"),
    ).encode()
    payload = b"".join((_HEADER.pack(len(header)), header, *batch.blobs))
    if len(payload) > PAYLOAD_BYTES_MAX:
        raise JournalError(f"a batch of {len(payload)} bytes is larger than {PAYLOAD_BYTES_MAX}")
    return _FRAME.pack(len(payload), zlib.crc32(payload)) + payload, FRAME_BYTES + _HEADER.size + len(header)


class RecordReader:
    """Iterates over the records of a file from offset `start`.

    Args:
        may_be_torn: whether a last record that is cut short, garbled or blank is the mark of a crash rather than damage.

    Raises:
        JournalError: while iterating, on damage that no torn write explains.
    """

    def __init__(self, path: Path, start: int, *, may_be_torn: bool) -> None:
        self._path = path
        self._may_be_torn = may_be_torn
        self.end_offset = start

    def __iter__(self) -> Iterator[Record]:
        """Yield records; afterwards `end_offset` is where the good part of the file ends."""
        data = self._path.read_bytes()
        while self.end_offset < len(data):
            record = _read_record(data, self.end_offset)
            if record is None:
                if self._may_be_torn and _is_torn_tail(data, self.end_offset):
                    return
                raise JournalError(f"{self._path}: damaged at byte {self.end_offset}, and not by a write that was cut short")
            yield record
            self.end_offset = record.end_offset


def _read_record(data: bytes, offset: int) -> Record | None:
    if offset + FRAME_BYTES > len(data):
        return None
    length, crc = _FRAME.unpack_from(data, offset)
    start, end = offset + FRAME_BYTES, offset + FRAME_BYTES + length
    if length < _HEADER.size or end > len(data) or zlib.crc32(memoryview(data)[start:end]) != crc:
        return None
    (header_length,) = _HEADER.unpack_from(data, start)
    blobs = start + _HEADER.size + header_length
    header = json.loads(data[start + _HEADER.size : blobs])
    batch = Batch(header["e"], header["s"], header["r"], header["m"], [], header["x"])
    return Record(header["n"], batch, blobs, end)


def _is_torn_tail(data: bytes, offset: int) -> bool:
    """Whether the bad record is the file's last: it claims to reach the end or beyond, or only blank bytes follow."""
    if offset + FRAME_BYTES > len(data):
        return True
    length, _ = _FRAME.unpack_from(data, offset)
    return offset + FRAME_BYTES + length >= len(data) or not any(data[offset:])
