"""A journal cut anywhere holds every batch that was whole, and nothing else."""

import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernel.fix.steps import StoredMessage
from sandbox.exchange.journal import Journal, JournalError, JournalLimits, Record

_batches = st.lists(st.lists(st.binary(min_size=1, max_size=40), max_size=3), min_size=1, max_size=8)


def write(directory: Path, batches: list[list[bytes]], limits: JournalLimits | None = None) -> list[int]:
    """Commit batches; return the last segment's size after each."""
    journal = Journal(directory, "TEST", limits)
    _, records = journal.recover()
    list(records)
    sizes, sequence = [], 1
    for number, bodies in enumerate(batches):
        journal.batch.notes.append(["tick", number])
        stored = [StoredMessage(sequence + index, "8", body, "20260105-15:00:00.000") for index, body in enumerate(bodies)]
        journal.stage_messages("ALPHA", stored)
        sequence += len(bodies)
        assert journal.commit(dict)
        sizes.append(max(path.stat().st_size for path in directory.glob("journal-*.log")))
    journal.close()
    return sizes


def recover(directory: Path) -> tuple[Journal, list[Record]]:
    journal = Journal(directory, "OTHER")
    _, records = journal.recover()
    return journal, list(records)


@given(_batches, st.data())
@settings(max_examples=60, deadline=None)
def test_a_torn_tail_costs_only_what_was_not_committed(batches: list[list[bytes]], data: st.DataObject) -> None:
    directory = Path(tempfile.mkdtemp())
    try:
        sizes = write(directory, batches)
        path = next(directory.glob("journal-*.log"))
        cut = data.draw(st.integers(path.read_bytes().index(b"\n") + 1, sizes[-1]))
        whole = sum(size <= cut for size in sizes)
        # A crash may also leave the write's full length with blank pages in it.
        blank = data.draw(st.integers(0, sizes[whole] - cut)) if whole < len(sizes) else 0
        path.write_bytes(path.read_bytes()[:cut] + bytes(blank))
        journal, records = recover(directory)
        assert [record.batch.notes for record in records] == [[["tick", number]] for number in range(whole)]
        assert journal.incarnation == "TEST"
        bodies = [body for batch in batches[:whole] for body in batch]
        assert [message.body for message in journal.load("ALPHA", 1, 10**6)] == bodies
        journal.batch.notes.append(["tick", 99])
        journal.commit(dict)
        journal.close()
        journal, records = recover(directory)
        assert len(records) == whole + 1
        journal.close()
    finally:
        shutil.rmtree(directory)


@given(_batches.filter(lambda batches: len(batches) > 2), st.data())
@settings(max_examples=40, deadline=None)
def test_damage_in_the_middle_is_never_taken_for_a_torn_tail(batches: list[list[bytes]], data: st.DataObject) -> None:
    directory = Path(tempfile.mkdtemp())
    try:
        sizes = write(directory, batches)
        path = next(directory.glob("journal-*.log"))
        content = bytearray(path.read_bytes())
        # Within the first record's payload: its length still leads to the second record.
        position = data.draw(st.integers(content.index(b"\n") + 9, sizes[0] - 1))
        content[position] ^= 0xFF
        path.write_bytes(content)
        journal = Journal(directory, "OTHER")
        _, records = journal.recover()
        with pytest.raises(JournalError, match="damaged"):
            list(records)
        journal.close()
    finally:
        shutil.rmtree(directory)


@given(_batches, st.integers(40, 400))
@settings(max_examples=40, deadline=None)
def test_rotation_keeps_state_and_recent_messages(batches: list[list[bytes]], segment_bytes: int) -> None:
    directory = Path(tempfile.mkdtemp())
    try:
        write(directory, batches, JournalLimits(segment_bytes_max=segment_bytes, segments_kept=2))
        assert len(list(directory.glob("journal-*.log"))) <= 3
        journal, _ = recover(directory)
        bodies = [body for batch in batches for body in batch]
        kept = [message.body for message in journal.load("ALPHA", 1, 10**6)]
        assert kept == bodies[len(bodies) - len(kept) :]
        journal.close()
    finally:
        shutil.rmtree(directory)
