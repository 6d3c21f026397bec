"""Orders offered at a rate that does not wait for answers, through the edge, and what came of each: for the table and for the auditor.

The generator is the benchmark's Go program: two cores that also run the mesh leave a Python client no room to offer ten times its load.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from cli.access import LocalUsers
from mesh.local.harness import LocalMesh
from mesh.local.outside import door
from tests.bench.load import GO, Generator
from tests.e2e.crash.client import Failure, Ledger
from tests.e2e.crash.load import ACCOUNTS, Cancel, Command, Create
from tests.e2e.crash.world import TRADER
from trademesh.oms.v1 import order_pb2

CONNECTIONS = 32
"""The edge takes 256 requests at a time on one, so this many never hold an offer back while answers come within a second."""
CANCELS_PER_SECOND = 20.0
PATIENCE_SECONDS = 5.0
WARMUP_SECONDS = 1
INSTRUMENTS = ("AAPL:232.5:0.01", "MSFT:505:0.01", "NVDA:180:0.01", "BTC-USD:108000:0.5")
END_SECONDS = 30.0

_OK, _EXHAUSTED = "0", "8"
_STATE_REFUSED = ("9 ", "FAILED_PRECONDITION")
"""As the two generators tell it."""
_CODES = {"2": "UNKNOWN", "4": "DEADLINE_EXCEEDED", "9": "FAILED_PRECONDITION", "14": "UNAVAILABLE"}
_REFUSED = frozenset({"FAILED_PRECONDITION", "RESOURCE_EXHAUSTED"})


@dataclass(frozen=True, slots=True)
class Answers:
    """What became of one kind of call. Rates are a second, latencies milliseconds; `others` counts what was neither answered nor shed."""

    offered: float
    held_back: float
    ok: float
    shed: float
    hinted: float
    others: dict[str, int]
    p50_ms: float
    p99_ms: float

    def decided(self, seconds: float) -> float:
        """How many a second a service has decided, the ones that it refused for the order's state among them."""
        return self.ok + sum(count for text, count in self.others.items() if text.startswith(_STATE_REFUSED)) / seconds


@dataclass(frozen=True, slots=True)
class Offered:
    """What became of orders, and of cancels beside them."""

    orders: Answers
    cancels: Answers
    generator_cpu_seconds: float


class Offer:
    """Offers load to one mesh.

    Args:
        binary: the built generator.
        folder: for its files.
        mesh: a running one.
        name: begins the keys of all orders.
        ledger: gets every command and what its client was told.
    """

    def __init__(self, binary: Path, folder: Path, mesh: LocalMesh, name: str, ledger: Ledger) -> None:
        self._binary, self._folder, self._mesh, self._name, self._ledger = binary, folder, mesh, name, ledger
        self._runs = 0

    async def orders(self, rate: float, seconds: int) -> Offered:
        """Offer so many orders a second.

        Raises:
            RuntimeError: the generator failed.
        """
        self._runs += 1
        entrance, journal, headers = door(self._mesh.layout), self._folder / "journal", self._folder / "headers.json"
        target = f"tls:{entrance.edge}"
        token = await asyncio.to_thread(LocalUsers(self._mesh.layout).token, TRADER)
        headers.write_text(json.dumps({target: {"authorization": f"Bearer {token.text}"}}))
        arguments = {
            "-targets": ",".join([target] * CONNECTIONS),
            "-rate": f"{rate:g}",
            "-cancel-rate": f"{CANCELS_PER_SECOND:g}",
            "-patience": f"{PATIENCE_SECONDS:g}s",
            "-warmup": f"{WARMUP_SECONDS}s",
            "-duration": f"{seconds}s",
            "-headers": str(headers),
            "-ca": str(entrance.authority_file),
            "-run": f"{self._name}-{self._runs}",
            "-accounts": ",".join(ACCOUNTS),
            "-instruments": ",".join(INSTRUMENTS),
            "-journal": str(journal),
        }
        pipe = asyncio.subprocess.PIPE
        command = [str(self._binary), *(part for pair in arguments.items() for part in pair)]
        process = await asyncio.create_subprocess_exec(*command, stdout=pipe, stderr=pipe)
        try:
            async with asyncio.timeout(seconds + PATIENCE_SECONDS + END_SECONDS):
                told, complaints = await process.communicate()
        except BaseException:
            process.kill()
            await process.wait()
            raise
        if process.returncode:
            raise RuntimeError(f"the generator failed: {complaints.decode().strip()}")
        with journal.open() as lines:
            for line in lines:
                _learn(self._ledger, line.rstrip("\n").split("\t"))
        report = json.loads(told)
        return Offered(_answers(report["orders"]), _answers(report["cancels"]), report["generator_cpu_seconds"])


@contextmanager
def offer(mesh: LocalMesh, name: str, ledger: Ledger) -> Iterator[Offer]:
    """Build the generator.

    Raises:
        GeneratorError: it does not build.
    """
    with TemporaryDirectory(prefix="tmo-") as folder:
        generator = Generator.build(Path(folder), name)
        yield Offer(generator.binary, Path(folder), mesh, name, ledger)


def generator_missing() -> str:
    """Say why there can be no such load here; nothing where there can."""
    return "" if GO.is_file() else f"no Go toolchain in {GO.parent}; `make bench` installs it"


def _answers(report: dict[str, Any]) -> Answers:
    seconds = report["seconds"]
    return Answers(
        offered=report["offered"] / seconds,
        held_back=report["held_back"] / seconds,
        ok=report["ok"] / seconds,
        shed=report["shed"] / seconds,
        hinted=report["shed_with_retry_info"] / seconds,
        others=report["others"],
        p50_ms=report["p50_us"] / 1e3,
        p99_ms=report["p99_us"] / 1e3,
    )


def _learn(ledger: Ledger, line: list[str]) -> None:
    """Enter one call of the generator's journal. What was refused must not be there, what was answered must, the rest may."""
    kind, status, message, sent, answered = line
    request = (Cancel if kind == "cancel" else Create).FromString(bytes.fromhex(sent))
    key = request.account_id, request.request_id if isinstance(request, Cancel) else request.client_order_id
    ledger.commands[key] = Command(*key, request, patient=False)
    if status == _OK and answered:
        ledger.answers[key] = order_pb2.Order.FromString(bytes.fromhex(answered))
        return
    code = "RESOURCE_EXHAUSTED" if status == _EXHAUSTED else _CODES.get(status, "UNKNOWN")
    told = ledger.refused if code in _REFUSED else ledger.lost
    told[key] = Failure(code, "", message)
