"""What a person sees of a local mesh: progress, the status table, the screen after the start."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import psutil
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mesh.local.report import InstanceReport, MeshReport, Phase, State

_WIDTH_MAX = 1_000
_MEBIBYTE = 1024 * 1024
_STYLES = {
    State.READY: "green",
    State.DONE: "green",
    State.STARTING: "yellow",
    State.WAITING: "dim",
    State.NOT_READY: "yellow",
    State.BACKOFF: "yellow",
    State.CRASH_LOOP: "red",
    State.GIVEN_UP: "bold red",
}


def console(*, stderr: bool = False) -> Console:
    """Return a console that never cuts a table: a narrow terminal wraps lines, and half a path is no path."""
    return Console(highlight=False, width=_WIDTH_MAX, stderr=stderr)


@dataclass(frozen=True)
class InstanceView:
    """One instance as it is now: what the supervisor said, and what the operating system says of its processes."""

    instance: str
    service: str
    state: str
    pid: int | None
    restarts: int
    uptime_seconds: float | None
    rss_mib: float | None
    address: str
    log: str
    note: str


def view(report: MeshReport, *, now: float | None = None) -> list[InstanceView]:
    """Return every instance with its uptime, and its resident memory in MiB, that of its children included."""
    now = time.time() if now is None else now
    return [_view_one(item, now) for item in report.instances]


def _view_one(item: InstanceReport, now: float) -> InstanceView:
    uptime_seconds = None if item.started_at is None or item.pid is None else round(max(0.0, now - item.started_at), 1)
    note = item.last_end if item.state not in (State.DONE, State.STOPPED) else ""
    if item.retry_at is not None and item.state in (State.BACKOFF, State.CRASH_LOOP):
        note += f"; starts again in {max(0.0, item.retry_at - now):.1f} s"
    rss_mib = None if item.pid is None else resident_mib(item.pid)
    return InstanceView(
        item.name, item.service, item.state.value, item.pid, item.restarts, uptime_seconds, rss_mib, item.address, item.log, note
    )


def resident_mib(pid: int) -> float | None:
    """Return the resident memory of a process and its children in MiB, memory that they share counted once; None when it is gone.

    PostgreSQL's processes share their buffers, so the sum of what each maps would count the buffers once per connection.
    """
    try:
        process = psutil.Process(pid)
        family = [process, *process.children(recursive=True)]
        if len(family) == 1:
            return round(process.memory_info().rss / _MEBIBYTE, 1)
        return round(sum(member.memory_full_info().pss for member in family) / _MEBIBYTE, 1)
    except psutil.Error:
        return None


def status_document(report: MeshReport | None, *, running: bool) -> dict[str, Any]:
    """Return the status as a JSON document."""
    if report is None or not running:
        return {"phase": Phase.STOPPED.value, "running": False, "instances": []}
    document: dict[str, Any] = {"phase": report.phase.value, "running": True, "supervisor_pid": report.supervisor_pid}
    document |= {"ready_seconds": report.ready_seconds, "failure": report.failure, "facts": report.facts}
    document["instances"] = [asdict(item) for item in view(report)]
    return document


def status_table(items: Sequence[InstanceView]) -> Table:
    """Return the status as a table."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for column in ("instance", "state", "pid", "restarts", "uptime", "RSS MiB", "address", "note"):
        table.add_column(
            column, justify="right" if column in ("pid", "restarts", "uptime", "RSS MiB") else "left", no_wrap=column != "note"
        )
    for item in items:
        style = _STYLES.get(State(item.state), "")
        table.add_row(
            item.instance,
            f"[{style}]{item.state}[/]" if style else item.state,
            "" if item.pid is None else str(item.pid),
            str(item.restarts),
            "" if item.uptime_seconds is None else duration(item.uptime_seconds),
            "" if item.rss_mib is None else f"{item.rss_mib:.0f}",
            escape(item.address),
            escape(item.note),
        )
    return table


def duration(seconds: float) -> str:
    """Return a duration in two units at most: `4s`, `3m 20s`, `5h 02m`, `2d 4h`."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3_600:
        return f"{whole // 60}m {whole % 60:02}s"
    if whole < 86_400:
        return f"{whole // 3_600}h {whole % 3_600 // 60:02}m"
    return f"{whole // 86_400}d {whole % 86_400 // 3_600}h"


class ProgressView:
    """Shows a start as it goes: one line per change, so that it reads the same on a terminal and in a file."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._seen: dict[str, State] = {}

    def update(self, report: MeshReport) -> None:
        """Write what changed since the last report."""
        for item in report.instances:
            if self._seen.get(item.name) is item.state:
                continue
            self._seen[item.name] = item.state
            if item.state in (State.READY, State.DONE):
                elapsed = max(0.0, time.time() - report.started_at)
                done = sum(state in (State.READY, State.DONE) for state in self._seen.values())
                what = "ready" if item.state is State.READY else "done"
                self._console.print(f"  [green]{done:2}/{len(report.instances)}[/]  {elapsed:5.1f} s  {item.name:14} {what}")
            elif item.state in (State.BACKOFF, State.CRASH_LOOP, State.GIVEN_UP):
                self._console.print(f"  [red]  --[/]   {'':5}   {item.name:14} {item.state.value}: {escape(item.last_end)}")
