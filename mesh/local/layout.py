"""Where everything of a local mesh lies, and which supervisor owns it."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self

from mesh.local.state import LocalStateError, default_state_root, own_directory, runtime_directory

DIRECTORY_KEY = "TRADEMESH_STATE_DIR"


class LocalMeshError(Exception):
    """The local mesh cannot do what was asked. The text says what happened and what to do next."""


def default_directory(environment: Mapping[str, str] | None = None) -> Path:
    """Return the state directory: what `TRADEMESH_STATE_DIR` names, else `default_state_root()`."""
    chosen = (os.environ if environment is None else environment).get(DIRECTORY_KEY)
    return Path(chosen).expanduser().absolute() if chosen else default_state_root()


@dataclass(frozen=True)
class Layout:
    """The paths of one local mesh. Data, logs and status lie under `root`; sockets and secrets in a short runtime directory of its own."""

    root: Path

    @classmethod
    def default(cls) -> Self:
        """Return the layout under `default_directory()`."""
        return cls(default_directory())

    @property
    def logs(self) -> Path:
        """One file per instance, and its rotated predecessors."""
        return self.root / "logs"

    @property
    def status_file(self) -> Path:
        """What the supervisor last said; see `report`."""
        return self.root / "status.json"

    @property
    def lock_file(self) -> Path:
        """Locked by the supervisor while it lives; holds its process id."""
        return self.root / "supervisor.lock"

    @cached_property
    def runtime(self) -> Path:
        """The directory of the instances' private directories; its path is short enough for UNIX sockets."""
        return runtime_directory(self.root)

    def log(self, instance: str) -> Path:
        """Return the current log of an instance."""
        return self.logs / f"{instance}.log"

    def private(self, instance: str) -> Path:
        """Return the private directory of an instance: socket, secret, headers files."""
        return self.runtime / instance

    def socket(self, instance: str) -> Path:
        """Return the path of an instance's gRPC socket."""
        return self.private(instance) / "grpc.sock"

    def data(self, part: str) -> Path:
        """Return where a part keeps its data."""
        return self.root / part

    def create(self) -> None:
        """Create the directories, for this user alone.

        Raises:
            LocalMeshError: one cannot be created or belongs to somebody else.
        """
        try:
            # PostgreSQL and Redis run under uids of their own when we are root; they have to pass through, not to read.
            own_directory(self.root, mode=0o711 if os.geteuid() == 0 else 0o700)
            own_directory(self.logs)
            own_directory(self.runtime)
        except (OSError, LocalStateError) as error:
            why = error.strerror if isinstance(error, OSError) else error
            raise LocalMeshError(
                f"The state directory {self.root} cannot be used: {why}.\n"
                f"Set {DIRECTORY_KEY} to a directory that you own, for example {DIRECTORY_KEY}=$HOME/trademesh-state."
            ) from error

    def create_private(self, instance: str) -> Path:
        """Create the private directory of an instance, mode 0700, and return it."""
        return own_directory(self.private(instance))


class SupervisorLock:
    """At most one supervisor per state directory. The kernel drops the lock with its owner, so no stale process id can block a start."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Take the lock and write our process id into it.

        Raises:
            LocalMeshError: a supervisor runs already.
        """
        descriptor = os.open(self._layout.lock_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = _read_pid(descriptor)
            os.close(descriptor)
            raise already_running(pid) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        self._descriptor = descriptor

    def release(self) -> None:
        """Give the lock up."""
        if self._descriptor is not None:
            os.ftruncate(self._descriptor, 0)
            os.close(self._descriptor)
            self._descriptor = None


def already_running(pid: int | None) -> LocalMeshError:
    """Return the refusal of a second supervisor."""
    return LocalMeshError(f"The mesh is already running (supervisor pid {pid}). `make status` shows it, `make down` stops it.")


def running_supervisor(layout: Layout) -> int | None:
    """Return the process id of the supervisor that owns the state directory; None when none runs, whatever a dead one left behind."""
    try:
        descriptor = os.open(layout.lock_file, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _read_pid(descriptor)
    else:
        return None
    finally:
        os.close(descriptor)


def _read_pid(descriptor: int) -> int | None:
    text = os.pread(descriptor, 32, 0).decode(errors="replace").strip()
    return int(text) if text.isdecimal() else None
