"""Lines arrive, in order, as JSON, whatever happens to the disk."""

from __future__ import annotations

import io
import json
import logging
import time
from collections.abc import Iterator
from typing import Any

import pytest

from kernel.identity import Identity
from kernel.logs import BUFFER_BYTES_MAX, LineWriter, configure
from kernel.server_journal import FLUSH_CALLS, RpcJournal

IDENTITY = Identity("edge", None, '"peer":"edge"')


class RefusingStream(io.BytesIO):
    """A disk that is full until it is not."""

    full = True

    def write(self, data: Any, /) -> int:
        if self.full:
            raise OSError(28, "No space left on device")
        return super().write(data)


@pytest.fixture
def root_logger() -> Iterator[logging.Logger]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield root
    root.handlers[:], root.level = handlers, level


def test_without_a_loop_lines_are_written_at_once() -> None:
    stream = io.BytesIO()
    LineWriter(stream).write("a")
    assert stream.getvalue() == b"a\n"


async def test_on_a_loop_lines_are_written_in_blocks() -> None:
    stream = io.BytesIO()
    writer = LineWriter(stream, flush_bytes=10, flush_seconds=60)
    writer.write("four")
    assert stream.getvalue() == b""
    writer.write("longer than ten bytes")
    assert stream.getvalue() == b"four\nlonger than ten bytes\n"


def test_a_full_disk_keeps_lines_within_a_bound_and_counts_the_rest() -> None:
    stream = RefusingStream()
    writer = LineWriter(stream)
    line = "x" * 1024 * 1024
    for _ in range(20):
        writer.write(line)
    assert writer.dropped_lines > 0
    assert sum(map(len, writer._lines)) <= BUFFER_BYTES_MAX
    stream.full = False
    writer.write("last")
    assert stream.getvalue().endswith(b"\nlast\n")


def test_records_are_json_with_fields_and_stack_traces(root_logger: logging.Logger) -> None:
    stream = io.BytesIO()
    configure("svc-oms", "svc-oms-0", writer=LineWriter(stream))
    logging.getLogger("x").warning("a %s\nline", "second", extra={"fields": {"count": 3, "trace_id": "ab"}})
    try:
        raise ValueError("broken")
    except ValueError:
        logging.getLogger("x").exception("failed")
    first, second = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert (first["service"], first["instance"], first["level"], first["message"]) == ("svc-oms", "svc-oms-0", "warning", "a second\nline")
    assert (first["count"], first["trace_id"]) == (3, "ab")
    assert "ValueError: broken" in second["exception"]


async def test_the_journal_writes_a_line_and_counts_a_call() -> None:
    stream = io.BytesIO()
    writer = LineWriter(stream)
    journal = RpcJournal(writer, service="svc-oms", instance="svc-oms-0")
    stats = journal.stats("/x.Y/Z")
    started = time.perf_counter() - 0.003
    for _ in range(FLUSH_CALLS - 1):
        journal.record(stats, IDENTITY, "OK", "", started, 7, "ab" * 16)
    assert stats.codes == {}
    journal.record(stats, None, "UNAUTHENTICATED", "PEER_UNAUTHENTICATED", started, 0, "")
    assert stats.codes == {"OK": FLUSH_CALLS - 1, "UNAUTHENTICATED": 1}
    writer.flush()
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert (lines[0]["method"], lines[0]["peer"], lines[0]["batch_size"], lines[0]["code"]) == ("/x.Y/Z", "edge", 7, "OK")
    assert 3 <= lines[0]["duration_ms"] < 1_000
    assert (lines[-1]["reason"], "batch_size" in lines[-1], "trace_id" in lines[-1]) == ("PEER_UNAUTHENTICATED", False, False)
    samples = {(sample.name, dict(sample.labels).get("le", "")): sample.value for sample in journal.samples()}
    assert samples["rpc_server_seconds_bucket", "0.002"] == 0
    assert samples["rpc_server_seconds_bucket", "+Inf"] == FLUSH_CALLS
