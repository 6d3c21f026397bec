"""Builds the load generator and runs it against sockets."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SOURCE = Path(__file__).parent / "generator"
GO = Path(sys.prefix) / "go" / "go" / "bin" / "go"


class GeneratorError(Exception):
    """The generator could not be built or run; the text says what to do."""


@dataclass(frozen=True, slots=True)
class LoadResult:
    """What one run of the generator measured. Rates are per second, latencies in microseconds."""

    mode: str
    calls: int
    orders: int
    accepted: int
    rejected: int
    errors: int
    first_error: str
    calls_per_second: float
    orders_per_second: float
    p50_us: float
    p99_us: float
    generator_cpu_seconds: float


@dataclass(frozen=True, slots=True)
class Load:
    """What the generator offers: how many calls or stream messages are in flight, and for how long."""

    concurrency: int
    warmup_seconds: int
    duration_seconds: int
    accounts: Sequence[str]
    instruments: Sequence[str]
    batch_size: int = 100


class Generator:
    """The built generator. Orders of one instance never repeat a client_order_id."""

    def __init__(self, binary: Path, run_id: str) -> None:
        self.binary = binary
        self._run_id = run_id
        self._runs = 0

    @classmethod
    def build(cls, folder: Path, run_id: str) -> "Generator":
        """Compiles the generator into a folder.

        Raises:
            GeneratorError: no Go toolchain, or the source does not compile.
        """
        if not GO.is_file():
            raise GeneratorError(f"no Go toolchain in {GO.parent}; `make bench` installs it")
        binary = folder / "generator"
        built = subprocess.run([str(GO), "build", "-o", str(binary), "."], cwd=SOURCE, capture_output=True, text=True, check=False)
        if built.returncode:
            raise GeneratorError(f"the load generator does not build:\n{built.stderr}")
        return cls(binary, run_id)

    def run(
        self,
        mode: str,
        targets: Sequence[str],
        headers: Mapping[str, Mapping[str, str]],
        load: Load,
        *,
        authority: Path | None = None,
    ) -> LoadResult:
        """Runs one mode against UNIX sockets or `tls:host:port`, each with its own headers; `authority` signs what TLS targets show.

        Raises:
            GeneratorError: a connection broke or an answer could not be read.
        """
        self._runs += 1
        with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
            json.dump(headers, file)
            file.flush()
            arguments = {
                "-targets": ",".join(targets),
                "-mode": mode,
                "-concurrency": str(load.concurrency),
                "-batch": str(load.batch_size),
                "-warmup": f"{load.warmup_seconds}s",
                "-duration": f"{load.duration_seconds}s",
                "-headers": file.name,
                "-run": f"{self._run_id}-{self._runs}",
                "-accounts": ",".join(load.accounts),
                "-instruments": ",".join(load.instruments),
            }
            if authority is not None:
                arguments["-ca"] = str(authority)
            command = [str(self.binary), *(part for pair in arguments.items() for part in pair)]
            bound_seconds = load.warmup_seconds + load.duration_seconds + 60
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=bound_seconds)
        if done.returncode:
            raise GeneratorError(f"{mode} failed: {done.stderr.strip()}")
        return _result(json.loads(done.stdout))


def _result(report: dict[str, Any]) -> LoadResult:
    return LoadResult(
        mode=report["mode"],
        calls=report["calls"],
        orders=report["orders"],
        accepted=report["accepted"],
        rejected=report["rejected"],
        errors=report["errors"],
        first_error=report.get("first_error", ""),
        calls_per_second=report["calls_per_second"],
        orders_per_second=report["orders_per_second"],
        p50_us=report["p50_us"],
        p99_us=report["p99_us"],
        generator_cpu_seconds=report["generator_cpu_seconds"],
    )
