"""Runs the bare echo as a process of its own."""

import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Self


class EchoServer:
    """The echo server on a UNIX socket; a context manager that ends the process."""

    def __init__(self, folder: Path) -> None:
        self.socket = str(folder / "echo.sock")
        self._process: subprocess.Popen[str] | None = None

    @property
    def pid(self) -> int:
        """The server's process id."""
        assert self._process is not None
        return self._process.pid

    def __enter__(self) -> Self:
        command = [sys.executable, "-m", "tests.bench.echo_server", self.socket]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        if self._process.stdout.readline() != "ready\n":
            raise RuntimeError("the echo server did not start")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait()
