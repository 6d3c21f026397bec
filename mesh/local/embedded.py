"""Holds one embedded part as a process of its own: `python -m mesh.local.embedded postgres|redis STATE_DIR PRIVATE_DIR`.

It ends when the part ends, and the part ends with it, so the supervisor sees an embedded part as it sees any other process.
In PRIVATE_DIR it writes `address` (with its password, mode 0600) and then `ready` (its own process id).
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from types import FrameType

import psutil

from mesh.local.child import ChildError, log_tail
from mesh.local.postgres import EmbeddedPostgres
from mesh.local.priority import ASK_AGAIN_SECONDS
from mesh.local.redis import EmbeddedRedis
from mesh.local.sessions import Sessions
from mesh.local.state import LocalStateError

ADDRESS_FILE = "address"
READY_FILE = "ready"
PREDECESSOR_SECONDS_MAX = 60.0

Part = EmbeddedPostgres | EmbeddedRedis

_LOOK_SECONDS = 1.0
_POLL_SECONDS = 0.05
_STOPPING = {signal.SIGTERM, signal.SIGINT}


def hold(part: Part, private: Path) -> int:
    """Run the part until it ends or we are asked to; return the exit code, 0 when asked."""
    ready = private / READY_FILE
    ready.unlink(missing_ok=True)
    with part:
        address = part.superuser_dsn() if isinstance(part, EmbeddedPostgres) else part.url
        write_private(private / ADDRESS_FILE, address.reveal())
        ready.write_text(str(os.getpid()))
        # Blocked only now: a child would inherit the mask.
        signal.pthread_sigmask(signal.SIG_BLOCK, {*_STOPPING, signal.SIGCHLD})
        sessions = Sessions(part.pid, os.getpriority(os.PRIO_PROCESS, 0)) if isinstance(part, EmbeddedPostgres) else None
        while True:
            settled = sessions is None or sessions.yield_to_others()
            received = signal.sigtimedwait({*_STOPPING, signal.SIGCHLD}, _LOOK_SECONDS if settled else ASK_AGAIN_SECONDS)
            if received is not None and received.si_signo in _STOPPING:
                return 0
            part.pid  # noqa: B018 (raises once the part has ended)


def await_predecessor(data: Path, *, timeout_seconds: float = PREDECESSOR_SECONDS_MAX) -> None:
    """Wait for the end of a server whose holder was killed: it writes its last checkpoint, and until then no other one may start.

    Returns also when the time is over; the new server then refuses, and says why.
    """
    deadline = time.monotonic() + timeout_seconds
    while time.monotonic() < deadline:
        try:
            pid = int((data / "postmaster.pid").read_text().split(maxsplit=1)[0])
            # The number may be another process's by now.
            if psutil.Process(pid).name() != "postgres":
                return
        except (OSError, ValueError, IndexError, psutil.Error):
            return
        time.sleep(_POLL_SECONDS)


def write_private(path: Path, text: str) -> None:
    """Write a file that only this user can read, replacing it whole."""
    scratch = path.with_name(f"{path.name}.new")
    scratch.unlink(missing_ok=True)
    descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    scratch.replace(path)


def main(arguments: list[str]) -> int:
    """Hold the named part."""
    kind, state, private = arguments[0], Path(arguments[1]), Path(arguments[2])
    signal.signal(signal.SIGTERM, _leave)
    part: Part
    if kind == "postgres":
        part = EmbeddedPostgres(state)
        await_predecessor(part.data)
    elif kind == "redis":
        part = EmbeddedRedis(state)
    else:
        raise SystemExit(f"no embedded part is called {kind!r}")
    try:
        return hold(part, private)
    except (ChildError, LocalStateError) as error:
        sys.stderr.write(f"{kind}: {error}\n{log_tail(part.log)}")
        return 1


def _leave(number: int, frame: FrameType | None) -> None:
    raise SystemExit(0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
