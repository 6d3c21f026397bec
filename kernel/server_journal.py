"""The canonical log line and the statistics of every RPC, written down in batches.

A call leaves a tuple behind and goes on; lines and histograms are made of many tuples at once. On a busy server a piece of code that runs
once per call finds the processor's caches full of gRPC and costs five to ten times what it costs in a loop.
"""

from __future__ import annotations

import asyncio
import time
from bisect import bisect_left
from collections.abc import Iterator

from kernel.identity import Identity
from kernel.logs import LineWriter, quote
from kernel.telemetry import Sample

DURATION_BOUNDS_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
"""Upper bounds of the latency histogram's buckets; the last bucket is open."""

FLUSH_CALLS = 128
FLUSH_SECONDS = 0.1
_NOBODY = '"peer":""'


class MethodStats:
    """Calls by code and a latency histogram of one method."""

    __slots__ = ("buckets", "codes", "method", "method_json", "seconds_total")

    def __init__(self, method: str) -> None:
        self.method = method
        self.method_json = quote(method)
        self.codes: dict[str, int] = {}
        self.buckets = [0] * (len(DURATION_BOUNDS_SECONDS) + 1)
        self.seconds_total = 0.0

    def record(self, code: str, seconds: float) -> None:
        """Count one call."""
        self.codes[code] = self.codes.get(code, 0) + 1
        self.buckets[bisect_left(DURATION_BOUNDS_SECONDS, seconds)] += 1
        self.seconds_total += seconds

    def samples(self) -> Iterator[Sample]:
        """Yield the counters: calls by code, then the cumulative histogram as Prometheus counts it (`le` is the bucket's upper bound)."""
        for code, count in self.codes.items():
            yield Sample("rpc_server_calls_total", count, (("method", self.method), ("code", code)))
        cumulative = 0
        for bound, count in zip((*DURATION_BOUNDS_SECONDS, None), self.buckets, strict=True):
            cumulative += count
            le = "+Inf" if bound is None else str(bound)
            yield Sample("rpc_server_seconds_bucket", cumulative, (("method", self.method), ("le", le)))
        yield Sample("rpc_server_seconds_sum", self.seconds_total, (("method", self.method),))


class RpcJournal:
    """Takes what is to be said of each RPC: one canonical line (method, principal, tenant, peer, code, reason, duration, batch size, trace
    id; never a payload, never a header) and one count. Both are made after 128 calls or 0.1 s.
    """

    def __init__(self, writer: LineWriter, *, service: str, instance: str) -> None:
        self._writer = writer
        self._head = f',"level":"info","service":{quote(service)},"instance":{quote(instance)},"message":"rpc","method":'
        self._entries: list[tuple[MethodStats, Identity | None, str, str, float, float, int, str]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._stats: dict[str, MethodStats] = {}

    def stats(self, method: str) -> MethodStats:
        """Return the statistics of a method, by path."""
        return self._stats.setdefault(method, MethodStats(method))

    def record(
        self, stats: MethodStats, identity: Identity | None, code: str, reason: str, started: float, batch_size: int, trace_id: str
    ) -> None:
        """Note a call that ends now.

        `started` is of `time.perf_counter`; `code`, `reason` and `trace_id` consist of letters, digits and underscores. A `batch_size` of
        0 and empty texts are left out of the line.
        """
        entries = self._entries
        entries.append((stats, identity, code, reason, started, time.perf_counter(), batch_size, trace_id))
        if len(entries) >= FLUSH_CALLS:
            self.flush()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(FLUSH_SECONDS, self.flush)

    def flush(self) -> None:
        """Make the lines and counts of all calls noted so far."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        entries, self._entries = self._entries, []
        wall, clock, head = time.time(), time.perf_counter(), self._head
        for stats, identity, code, reason, started, ended, batch_size, trace_id in entries:
            seconds = ended - started
            stats.record(code, seconds)
            moment = wall - (clock - ended)
            caller = _NOBODY if identity is None else identity.log_fields
            why = f',"reason":"{reason}"' if reason else ""
            batch = f',"batch_size":{batch_size}' if batch_size else ""
            trace = f',"trace_id":"{trace_id}"' if trace_id else ""
            stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(moment))
            self._writer.write(
                f'{{"time":"{stamp}.{int(moment % 1 * 1000):03d}Z"{head}{stats.method_json},{caller},"code":"{code}"{why},'
                f'"duration_ms":{seconds * 1000:.3f}{batch}{trace}}}'
            )

    def samples(self) -> list[Sample]:
        """Return the counters of every method, current to this moment."""
        self.flush()
        return [sample for stats in self._stats.values() for sample in stats.samples()]
