"""Child processes of the embedded parts: own session and uid, dead when their parent is."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from mesh.local.priority import ASK_AGAIN_SECONDS, group_yields

POSTGRES_UID = 60870
"""Uid of PostgreSQL when we are root; in a range that Linux distributions leave unused (systemd, "Users, Groups, UIDs and GIDs")."""
REDIS_UID = 60871
BOOTSTRAP_UID = 65534
"""`nobody`: initdb insists on a uid that has a name."""

_PR_SET_PDEATHSIG = 1
_POLL_SECONDS = 0.01
_PRIORITY_SECONDS_MAX = 1.0


class ChildError(Exception):
    """An embedded part did not start, did not answer in time, or ended by itself; the message has the end of its log."""


def spawn(
    argv: Sequence[str],
    *,
    uid: int | None,
    log: Path,
    directory: Path,
    death_signal: signal.Signals,
    environment: Mapping[str, str] | None = None,
) -> subprocess.Popen[bytes]:
    """Start a child that gets `death_signal` when the calling thread ends, so call from a thread that lives as long as the child should.

    Args:
        argv: absolute program path and arguments; no secrets, they are world-readable.
        uid: numeric uid and gid to run as, without further groups; None keeps ours.
        log: file that receives standard output and error.
        directory: working directory.
        death_signal: how the child is told to stop when its parent is gone.
        environment: whole environment of the child; little by default.
    """
    parent = os.getpid()
    prctl = ctypes.CDLL(None, use_errno=True).prctl

    def die_with_parent() -> None:
        # Runs after setuid, which would have cleared the signal again (prctl(2)).
        prctl(_PR_SET_PDEATHSIG, int(death_signal), 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)

    with log.open("ab") as output:
        process = subprocess.Popen(
            list(argv),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=directory,
            env=dict(environment or {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}),
            start_new_session=True,
            umask=0o077,
            preexec_fn=die_with_parent,
            user=uid,
            group=uid,
            extra_groups=None if uid is None else [],
        )
    # It has our niceness, which in a session of its own counts for nothing where sessions are scheduled as groups.
    deadline = time.monotonic() + _PRIORITY_SECONDS_MAX
    while not group_yields(process.pid, os.getpriority(os.PRIO_PROCESS, 0)) and time.monotonic() < deadline:
        time.sleep(ASK_AGAIN_SECONDS)
    return process


def await_ready(process: subprocess.Popen[bytes], ready: Callable[[], bool], *, log: Path, timeout_seconds: float) -> None:
    """Return when `ready()` is true.

    Raises:
        ChildError: the child ended, or the time is over.
    """
    deadline = time.monotonic() + timeout_seconds
    while not ready():
        if process.poll() is not None:
            raise ChildError(f"ended with status {process.returncode} before it was ready\n{log_tail(log)}")
        if time.monotonic() > deadline:
            raise ChildError(f"not ready after {timeout_seconds} s\n{log_tail(log)}")
        time.sleep(_POLL_SECONDS)


def stop(process: subprocess.Popen[bytes], sequence: Sequence[tuple[signal.Signals, float]]) -> int:
    """Send each signal in turn until the child has ended, waiting the given seconds after each; SIGKILL ends the sequence.

    Returns:
        the child's exit status.
    """
    for number, wait_seconds in sequence:
        if process.poll() is not None:
            return process.returncode
        process.send_signal(number)
        try:
            return process.wait(wait_seconds)
        except subprocess.TimeoutExpired:
            continue
    process.kill()
    return process.wait()


def log_tail(log: Path, *, bytes_max: int = 2_000) -> str:
    """Return the end of a log file; empty if there is none."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - bytes_max))
            return file.read().decode(errors="replace")
    except OSError:
        return ""
