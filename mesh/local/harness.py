"""A whole mesh for tests and benchmarks: real processes in a directory of their own, killed and watched one by one.

with LocalMesh(Options(ephemeral_ports=True)) as mesh:
    operator = mesh.operator(Caller("ada", TENANT, ("trader",), ("ACC-1",)))
    ...
    old = mesh.kill("svc_oms-0")
    mesh.await_restart("svc_oms-0", old)
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from io import StringIO
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil
from rich.console import Console

from mesh.local import commands, launch, report
from mesh.local.layout import Layout, LocalMeshError, running_supervisor
from mesh.local.operator import Caller, Endpoint, Operator, endpoints
from mesh.local.options import Options
from mesh.local.parts import CONTROL_SOCKET, EXCHANGE, POSTGRES, REDIS
from mesh.local.report import InstanceReport, MeshReport, Phase, State
from mesh.local.rotation import tail
from mesh.local.venue_control import tell

WAIT_SECONDS_MAX = 60.0
_POLL_SECONDS = 0.02


class LocalMesh:
    """One mesh. A context manager, or `start` and `stop`; belongs to the main thread, with which it ends at the latest.

    Args:
        options: its shape; free ports unless given.
        directory: its state, created if absent and kept; a temporary one, removed at the end, unless given.
    """

    def __init__(self, options: Options | None = None, *, directory: Path | None = None) -> None:
        self.options = options or Options(ephemeral_ports=True)
        self._temporary = directory is None
        # Short, and open to the uids of PostgreSQL and Redis, as tests' own temporary directories are not.
        self.layout = Layout(directory or Path(tempfile.mkdtemp(prefix="tmm-")))
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> MeshReport:
        """Start the mesh and return when it is ready. After `stop`, the same mesh starts again on its data.

        Raises:
            LocalMeshError: it did not start.
        """
        self.layout.create()
        launcher = (sys.executable, "-I", "-S", launch.__file__, str(os.getpid()), str(int(signal.SIGTERM)), "0", "--")
        self._process = commands.detach(self.layout, self.options, launcher)
        return commands.await_ready(self.layout, self._process, lambda current: None)

    def stop(self) -> None:
        """Stop the mesh cleanly. Idempotent."""
        if self._process is not None:
            commands.down(self.layout, Console(file=StringIO()))
            self._process.wait()
            self._process = None

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self._discard()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is not None and not isinstance(error, KeyboardInterrupt):
            sys.stderr.write(self.log_tails())
        self.stop()
        self._discard()

    def _discard(self) -> None:
        # Nothing is left of a clean stop; of a killed supervisor its sockets are.
        shutil.rmtree(self.layout.runtime, ignore_errors=True)
        if self._temporary:
            shutil.rmtree(self.layout.root, ignore_errors=True)

    @property
    def report(self) -> MeshReport:
        """What the supervisor last said."""
        current = report.read(self.layout.status_file)
        if current is None:
            raise LocalMeshError(f"No mesh was started in {self.layout.root}.")
        return current

    def instance(self, name: str) -> InstanceReport:
        """Return one instance, such as `svc_oms-0`, `exchange` or `postgres`."""
        return self.report.instance(name)

    def instances(self, service: str) -> list[InstanceReport]:
        """Return the replicas of a service."""
        return [item for item in self.report.instances if item.service == service]

    def pids(self, service: str) -> list[int]:
        """Return the process ids of a service's running replicas."""
        return [item.pid for item in self.instances(service) if item.pid is not None]

    def endpoints(self, service: str) -> list[Endpoint]:
        """Return the running replicas of a service with their sockets and the headers that they take calls with."""
        return endpoints(self.layout, service)

    def operator(self, caller: Caller) -> Operator:
        """Return a blocking client of all services for one user; the caller closes it."""
        return Operator(self.layout, caller)

    def kill(self, name: str, number: signal.Signals = signal.SIGKILL) -> int:
        """Send an instance a signal and return the process id that it had. Of an embedded part, the server itself is hit."""
        pid = self.instance(name).pid
        if pid is None:
            raise LocalMeshError(f"{name} does not run.")
        if name in (POSTGRES, REDIS):
            servers = psutil.Process(pid).children()
            assert len(servers) == 1, f"{name} is held by {pid} with {len(servers)} servers"
            os.kill(servers[0].pid, number)
        else:
            os.kill(pid, number)
        return pid

    def kill_supervisor(self) -> None:
        """Kill the supervisor with SIGKILL; the kernel ends all instances. `start` starts the mesh anew."""
        assert self._process is not None, "start first"
        self._process.kill()
        self._process.wait()
        self._process = None

    def await_restart(self, name: str, old_pid: int, *, timeout_seconds: float = WAIT_SECONDS_MAX) -> InstanceReport:
        """Return the instance once it is ready under another process id.

        Raises:
            LocalMeshError: not in time.
        """

        def restarted() -> bool:
            item = self.instance(name)
            return item.state is State.READY and item.pid not in (None, old_pid)

        self._await(restarted, f"{name} is not back", timeout_seconds)
        return self.instance(name)

    def await_ready(self, *, timeout_seconds: float = WAIT_SECONDS_MAX) -> MeshReport:
        """Return once every instance is ready.

        Raises:
            LocalMeshError: not in time.
        """
        self._await(lambda: self.report.phase is Phase.READY, "the mesh is not whole", timeout_seconds)
        return self.report

    def _await(self, condition: Callable[[], bool], complaint: str, timeout_seconds: float) -> None:
        deadline = time.monotonic() + timeout_seconds
        while not condition():
            if running_supervisor(self.layout) is None:
                raise LocalMeshError(f"{complaint}: the supervisor has ended.\n{self.log_tails()}")
            if time.monotonic() > deadline:
                raise LocalMeshError(f"{complaint} after {timeout_seconds:g} s.\n{self.log_tails()}")
            time.sleep(_POLL_SECONDS)

    def exchange(self, operation: str, **fields: Any) -> dict[str, Any]:
        """Tell the exchange something by its operator's line protocol, such as `exchange("flow.pause")`, and return its answer.

        Raises:
            LocalMeshError: it refused.
        """
        return tell(self.layout.private(EXCHANGE) / CONTROL_SOCKET, operation, **fields)

    def log_tails(self, *, lines_max: int = 15) -> str:
        """Return the end of every log, for a failure's message."""
        parts = []
        with suppress(OSError):
            for path in sorted(self.layout.logs.glob("*.log")):
                parts.append("".join(f"{path.stem} | {line}\n" for line in tail(path, lines_max=lines_max)))
        return "".join(parts)
