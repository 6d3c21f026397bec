"""What the machine and the processes cost: CPU seconds, resident memory, the disk's fsync."""

import os
import statistics
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

import psutil

_FSYNC_ROUNDS = 200
_BLOCK_BYTES = 8192


def fsync_us(folder: Path) -> int:
    """The median time of appending 8 KiB and fdatasync, in microseconds: what one commit costs at least."""
    durations = []
    with tempfile.TemporaryFile(dir=folder) as file:
        for _ in range(_FSYNC_ROUNDS):
            started = time.perf_counter_ns()
            os.write(file.fileno(), bytes(_BLOCK_BYTES))
            os.fdatasync(file.fileno())
            durations.append(time.perf_counter_ns() - started)
    return round(statistics.median(durations) / 1000)


def cpu_seconds(pids: Iterable[int]) -> float:
    """User and system CPU seconds used so far by processes and all their descendants that still run."""
    total = 0.0
    for process in _family(pids):
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system
    return total


def rss_mb(pid: int) -> float:
    """Resident memory of one process in MiB."""
    return float(psutil.Process(pid).memory_info().rss) / 2**20


def _family(pids: Iterable[int]) -> list[psutil.Process]:
    found: dict[int, psutil.Process] = {}
    for pid in pids:
        parent = psutil.Process(pid)
        for process in (parent, *parent.children(recursive=True)):
            found[process.pid] = process
    return list(found.values())
