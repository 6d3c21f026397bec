"""A real process of reporting is killed while it writes; another one ends the report with the same bytes."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from mesh.local.provision import ServiceDatabase
from tests.integration.reporting.replica import AUDIT_TRAIL, JSON, Replica, asking
from tests.integration.reporting.world import BUY, trading_day
from trademesh.reporting.v1 import report_pb2

ORDERS = 6_000
ROOT = Path(__file__).resolve().parents[3]


async def until(condition: Callable[[], Coroutine[Any, Any, bool]], seconds: float) -> None:
    """Wait for a condition, by deadline."""
    deadline = time.monotonic() + seconds
    while not await condition():
        assert time.monotonic() < deadline, "the condition was never met"
        await asyncio.sleep(0.01)


@pytest.fixture
def folder(scratch: Path) -> Path:
    """Return a private directory with a short path."""
    made = scratch / f"r-{secrets.token_hex(3)}"
    made.mkdir(mode=0o700)
    return made


@asynccontextmanager
async def process(database: ServiceDatabase, folder: Path, name: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run `python -m svc_reporting`; the logs that it follows answer nobody."""
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": f"{ROOT}:{ROOT / 'gen'}",
        "TRADEMESH_INSTANCE": name,
        "TRADEMESH_SOCKET_PATH": str(folder / f"{name}.sock"),
        "TRADEMESH_SIDECAR_SECRET": secrets.token_hex(16),
        "TRADEMESH_DATABASE_DSN": database.dsn.reveal(),
        "TRADEMESH_TOKEN_KEY": secrets.token_hex(32),
        "TRADEMESH_OMS_TARGETS": f"unix:{folder / 'nobody.sock'}",
        "TRADEMESH_RISK_TARGETS": f"unix:{folder / 'nobody.sock'}",
    }
    with (folder / f"{name}.log").open("wb") as log:
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "svc_reporting", cwd=folder, env=environment, stdout=log, stderr=log
        )
        try:
            yield child
        finally:
            if child.returncode is None:
                child.send_signal(signal.SIGTERM)
            await child.wait()


async def test_a_killed_writer_is_replaced_and_the_bytes_are_the_same(
    one: Replica, reporting_database: ServiceDatabase, sql: asyncpg.Connection[asyncpg.Record], folder: Path
) -> None:
    world = trading_day()
    for number in range(ORDERS):
        world.order(BUY, "1").fill(f"B-{number}", "1", "100", state=4)
    await one.follow(world)
    async with process(reporting_database, folder, "first") as first:
        operation = await one.ask(asking(AUDIT_TRAIL, JSON))

        async def writing() -> bool:
            assert first.returncode is None, (folder / "first.log").read_text()
            return bool(await sql.fetchval("SELECT bool_or(state = 2 AND row_count > 0) FROM report"))

        await until(writing, 30)
        first.kill()
        await first.wait()
    assert (await one.report(operation.name)).state == report_pb2.REPORT_STATE_RUNNING, "killed before it had ended"
    async with process(reporting_database, folder, "second") as second:

        async def complete() -> bool:
            assert second.returncode is None, (folder / "second.log").read_text()
            return (await one.report(operation.name)).state == report_pb2.REPORT_STATE_COMPLETED

        await until(complete, 60)
    assert await sql.fetchval("SELECT epoch FROM report") == 2
    assert await one.download(operation.name) == await one.make(asking(AUDIT_TRAIL, JSON))
