"""The disk under PostgreSQL is full: reads live, writes are refused in typed words, nothing is half done.

The data directory lies on a small memory file system; a ballast file takes what is left of it. The write-ahead log begins a fresh segment
first, so that the full disk meets tables, which a statement outlives, and not the log, which no server does.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from mesh.local.parts import POSTGRES
from tests.chaos.fault import Fault
from tests.chaos.pulse import DEPOSIT, ORDER, POSITIONS, QUOTES, READ, REPORTS
from tests.chaos.scene import Scene
from tests.chaos.stage import Stage

DISK_MIB = 1_024
BALLAST = "ballast"
WRITES, READS = (ORDER, DEPOSIT), (READ, POSITIONS, QUOTES, REPORTS)
FULL_SECONDS_MAX = 30.0
LOOK_SECONDS = 0.05
REFUSED_SECONDS = 4.0
TYPED = "DATABASE_UNAVAILABLE"


@contextmanager
def _file_system(path: Path, mib: int) -> Iterator[None]:
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={mib}m,mode=711", "tmpfs", str(path)], check=True, capture_output=True)
    try:
        yield
    finally:
        subprocess.run(["umount", str(path)], check=True, capture_output=True)


@contextmanager
def small_disk() -> Iterator[Path | None]:
    """Make a state directory with PostgreSQL's part on a disk of its own."""
    root = Path(tempfile.mkdtemp(prefix="tmc-"))
    # PostgreSQL runs under a uid of its own and has to pass through.
    root.chmod(0o711)
    disk = root / POSTGRES
    disk.mkdir()
    try:
        with _file_system(disk, DISK_MIB):
            yield root
    finally:
        shutil.rmtree(root, ignore_errors=True)


def mountable() -> str:
    """Say why no file system can be mounted here."""
    if os.geteuid() != 0:
        return "only root mounts file systems"
    directory = Path(tempfile.mkdtemp(prefix="tmc-"))
    try:
        with _file_system(directory, 1):
            return ""
    except (OSError, subprocess.CalledProcessError) as error:
        return f"no memory file system can be mounted ({error})"
    finally:
        directory.rmdir()


@asynccontextmanager
async def full(scene: Scene, target: str) -> AsyncIterator[None]:
    """Fill the disk, and make room again."""
    disk = scene.world.mesh.layout.data(target)
    await scene.world.sql("SELECT pg_switch_wal()")
    ballast = disk / BALLAST
    taken = _fill(ballast)
    scene.note(f"{taken >> 20} MiB of ballast")
    try:
        yield
    finally:
        ballast.unlink()


def _fill(ballast: Path) -> int:
    """Take all the room there is, while others take some too; return how much it was, in bytes."""
    taken = 0
    with ballast.open("wb") as file:
        for step in (1 << 20, 1 << 12):
            with contextlib.suppress(OSError):
                while True:
                    os.posix_fallocate(file.fileno(), taken, step)
                    taken += step
    return taken


async def writes_refused(scene: Scene, target: str) -> list[str]:
    """Orders and deposits are refused as the database's fault, and reads go on."""
    began = time.monotonic()
    while not all(any(TYPED in beat.failure for beat in scene.pulse.since(kind, began)) for kind in WRITES):
        if time.monotonic() > began + FULL_SECONDS_MAX:
            return [f"not every write met the full disk: {scene.pulse.failures(began)}"]
        await asyncio.sleep(LOOK_SECONDS)
    refused = time.monotonic()
    scene.note(f"writes are refused after {refused - began:.2f} s")
    await asyncio.sleep(REFUSED_SECONDS)
    findings = []
    for kind in WRITES:
        failures = {beat.failure for beat in scene.pulse.since(kind, began) if beat.failure}
        # Who had no answer in time was not refused either.
        words = {failure for failure in failures if TYPED not in failure and not failure.startswith("DEADLINE_EXCEEDED")}
        findings += [f"{kind} was refused in other words: {text}" for text in sorted(words)]
    for kind in READS:
        beats = scene.pulse.since(kind, began)
        findings += [f"{kind} failed: {beat.failure}" for beat in beats if beat.failure]
        findings += [] if beats else [f"{kind} was not tried"]
    return findings


FAULTS = (
    Fault(
        name="disk-full",
        what="the disk under PostgreSQL's data directory is full",
        expectation=f"reads live; writes are refused as {TYPED}, whole; all is well once there is room",
        inject=full,
        targets=(POSTGRES,),
        objective_seconds=15.0,
        during=writes_refused,
        stage=Stage("small disk", ground=small_disk),
        permitted=mountable,
    ),
)
