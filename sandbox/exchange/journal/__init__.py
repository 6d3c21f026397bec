"""The venue's memory on disk: an append-only journal in segments, with a snapshot before each segment.

    journal-00000007.log     records from a point on; the first line names format and incarnation
    snapshot-00000007.json   the state at that point
    lock                     held while a venue runs here

A venue starts from the newest snapshot and folds the segments from there. Segments before it are kept for resends only, and
at most `segments_kept` of them.
"""

import contextlib
import fcntl
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kernel.fix.steps import StoredMessage
from sandbox.exchange.journal.index import Location, MessageIndex
from sandbox.exchange.journal.records import Batch, JournalError, Record, RecordReader, encode_record
from sandbox.exchange.journal.snapshots import read_snapshot, snapshot_indexes, snapshot_path, write_snapshot

__all__ = ["Batch", "Journal", "JournalError", "JournalLimits", "Record"]

_SEGMENT_NAME = re.compile(r"journal-([0-9]{8})\.log")
_SEGMENT_HEAD = re.compile(rb"TRADEMESH-EXCHANGE 1 ([0-9A-Z]{1,16})\n")
_HEAD_BYTES_MAX = 64
_SEPARATOR = b"\x01"


@dataclass(frozen=True, slots=True)
class JournalLimits:
    """Bounds of the journal.

    Attributes:
        segment_bytes_max: a segment that has grown to this is followed by a new one, below 4 GiB.
        segments_kept: older segments that stay for resends.
        messages_max: messages of one session that can be resent; older numbers are gap-filled.
    """

    segment_bytes_max: int = 128 * 1024 * 1024
    segments_kept: int = 3
    messages_max: int = 100_000


def _segment_path(directory: Path, index: int) -> Path:
    return directory / f"journal-{index:08d}.log"


def _segment_indexes(directory: Path) -> list[int]:
    return sorted(int(match.group(1)) for entry in directory.iterdir() if (match := _SEGMENT_NAME.fullmatch(entry.name)))


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class Journal:
    """One venue's journal. Stage facts in `batch`, then `commit`: only then may anybody hear of them.

    Open it, fold `recover()`, then commit. Every failure to write raises `JournalError` and ends the venue: what is on disk and
    what is in memory may differ from then on.

    Args:
        directory: made with mode 0700 if missing.
        incarnation: names a new journal, 1 to 16 capital letters and digits; an existing journal keeps its own.

    Raises:
        JournalError: another venue runs on this directory, or it is not a journal.
    """

    def __init__(self, directory: Path, incarnation: str, limits: JournalLimits | None = None) -> None:
        self._directory = directory
        self._limits = limits or JournalLimits()
        self._descriptors: dict[int, int] = {}
        self._indexes: dict[str, MessageIndex] = {}
        self._number = 0
        self.batch = Batch()
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = self._take_lock()
        segments = _segment_indexes(directory)
        self.incarnation = self._incarnation_of(segments) or incarnation
        self._segment = segments[-1] if segments else 0
        self._size = 0

    def _take_lock(self) -> int:
        lock = os.open(self._directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            raise JournalError(f"{self._directory}: another venue runs on this journal") from None
        return lock

    def _incarnation_of(self, segments: list[int]) -> str | None:
        for index in segments:
            path = _segment_path(self._directory, index)
            with path.open("rb") as file:
                head = _SEGMENT_HEAD.match(file.read(_HEAD_BYTES_MAX))
            if head is not None:
                return head.group(1).decode()
            if index != segments[-1]:
                raise JournalError(f"{path}: not a journal of this format")
        return None

    @property
    def record_count(self) -> int:
        """How many batches were ever committed here."""
        return self._number

    # Recovery.

    def recover(self) -> tuple[Mapping[str, Any] | None, Iterator[Record]]:
        """Return the newest snapshot, if there is one, and the records after it. Exhaust the iterator before committing."""
        segments = _segment_indexes(self._directory)
        start, document = 0, None
        for index in reversed(snapshot_indexes(self._directory)):
            document = read_snapshot(self._directory, index)
            if document is not None and index in segments:
                start = index
                break
            document = None
        if document is None and segments and segments[0] != 1:
            raise JournalError(f"{self._directory}: the journal's beginning is gone and no snapshot replaces it")
        if document is not None:
            self._number = document["number"]
            for comp_id, dumped in document["messages"].items():
                self._index_of(comp_id).load(dumped)
        return (document["state"] if document else None), self._replay([index for index in segments if index >= start])

    def _replay(self, segments: list[int]) -> Iterator[Record]:
        for index in segments:
            path = _segment_path(self._directory, index)
            with path.open("rb") as file:
                head = _SEGMENT_HEAD.match(file.read(_HEAD_BYTES_MAX))
            if head is None:
                if index != segments[-1]:
                    raise JournalError(f"{path}: not a journal of this format")
                path.unlink()
                self._segment -= 1
                break
            reader = RecordReader(path, head.end(), may_be_torn=index == segments[-1])
            for record in reader:
                if record.number != self._number + 1:
                    raise JournalError(f"{path}: record {record.number} follows {self._number}")
                self._number = record.number
                self._note_messages(record.batch, index, record.blobs_offset)
                yield record
            self._size = reader.end_offset
        self._open_tail()

    def _open_tail(self) -> None:
        if self._segment == 0:
            self._start_segment()
            return
        descriptor = os.open(_segment_path(self._directory, self._segment), os.O_RDWR | os.O_CLOEXEC)
        os.ftruncate(descriptor, self._size)
        os.lseek(descriptor, self._size, os.SEEK_SET)
        os.fsync(descriptor)
        self._descriptors[self._segment] = descriptor

    def _start_segment(self) -> None:
        self._segment += 1
        path = _segment_path(self._directory, self._segment)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        head = b"TRADEMESH-EXCHANGE 1 %b\n" % self.incarnation.encode()
        os.write(descriptor, head)
        os.fsync(descriptor)
        _sync_directory(self._directory)
        self._descriptors[self._segment] = descriptor
        self._size = len(head)

    def _index_of(self, comp_id: str) -> MessageIndex:
        index = self._indexes.get(comp_id)
        if index is None:
            index = self._indexes[comp_id] = MessageIndex(self._limits.messages_max)
        return index

    def _note_messages(self, batch: Batch, segment: int, offset: int) -> None:
        for comp_id in batch.resets:
            self._index_of(comp_id).clear()
        for comp_id, sequence, length in batch.messages:
            self._index_of(comp_id).add(sequence, segment, offset, length)
            offset += length

    # Writing.

    def stage_messages(self, comp_id: str, stored: Iterable[StoredMessage]) -> None:
        """Add outbound messages of a session to the batch."""
        batch = self.batch
        for message in stored:
            blob = b"%b\x01%b\x01%b" % (message.msg_type.encode(), message.sent_time.encode(), message.body)
            batch.messages.append([comp_id, message.sequence, len(blob)])
            batch.blobs.append(blob)

    def commit(self, snapshot: Callable[[], Mapping[str, Any]]) -> bool:
        """Make the batch durable; with nothing staged, do nothing. Returns whether there was something.

        Args:
            snapshot: called for the state as it is after this batch when a segment is full.

        Raises:
            JournalError: the batch may or may not be on disk; stop.
        """
        batch = self.batch
        if not batch:
            return False
        data, blobs_offset = encode_record(self._number + 1, batch)
        try:
            self._write(data)
        except OSError as error:
            raise JournalError(f"{self._directory}: {error}") from error
        self._number += 1
        self._note_messages(batch, self._segment, self._size + blobs_offset)
        self._size += len(data)
        self.batch = Batch()
        if self._size >= self._limits.segment_bytes_max:
            self._rotate(snapshot())
        return True

    def _write(self, data: bytes) -> None:
        descriptor = self._descriptors[self._segment]
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]
        os.fdatasync(descriptor)

    def _rotate(self, state: Mapping[str, Any]) -> None:
        oldest_kept = self._segment + 1 - self._limits.segments_kept
        for index in self._indexes.values():
            index.forget_before(oldest_kept)
        self._start_segment()
        messages = {comp_id: index.dump() for comp_id, index in self._indexes.items()}
        write_snapshot(self._directory, self._segment, {"number": self._number, "messages": messages, "state": state})
        _sync_directory(self._directory)
        for segment in _segment_indexes(self._directory):
            if segment < oldest_kept:
                self._close_segment(segment)
                _segment_path(self._directory, segment).unlink()
        for segment in snapshot_indexes(self._directory)[:-2]:
            snapshot_path(self._directory, segment).unlink()

    # Reading back.

    def load(self, comp_id: str, begin: int, end: int) -> Iterator[StoredMessage]:
        """Yield the committed messages of a session with sequences `begin` to `end`, both inclusive, in order."""
        for location in self._index_of(comp_id).between(begin, end):
            msg_type, sent_time, body = self._read(location).split(_SEPARATOR, 2)
            yield StoredMessage(location.sequence, msg_type.decode(), body, sent_time.decode())

    def _read(self, location: Location) -> bytes:
        descriptor = self._descriptors.get(location.segment)
        if descriptor is None:
            descriptor = os.open(_segment_path(self._directory, location.segment), os.O_RDONLY | os.O_CLOEXEC)
            self._descriptors[location.segment] = descriptor
        return os.pread(descriptor, location.length, location.offset)

    def _close_segment(self, index: int) -> None:
        descriptor = self._descriptors.pop(index, None)
        if descriptor is not None:
            os.close(descriptor)

    def close(self) -> None:
        """Let go of the files; what was not committed is gone."""
        for index in list(self._descriptors):
            self._close_segment(index)
        with contextlib.suppress(OSError):
            os.close(self._lock)


def new_incarnation(time_ns: int) -> str:
    """Name a new journal after the second in which it began, so that two journals never issue one execution id."""
    digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    number, text = time_ns // 1_000_000_000, ""
    while number:
        number, rest = divmod(number, 36)
        text = digits[rest] + text
    return text or "0"
