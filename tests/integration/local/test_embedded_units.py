"""PostgreSQL, Redis and the exchange under the supervisor, as the plan runs them: killed at either end, they come back alone."""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import psutil
import pytest
import redis.asyncio

from mesh.local.embedded import ADDRESS_FILE
from mesh.local.layout import Layout
from mesh.local.options import Options, Surroundings
from mesh.local.parts import EXCHANGE, POSTGRES, REDIS
from mesh.local.plan import build_plan
from mesh.local.priority import SESSION_NICENESS
from mesh.local.report import Phase
from mesh.local.supervisor import Supervisor

WAIT_SECONDS_MAX = 30.0
POSTGRES_NICENESS = 3


@pytest.fixture
def layout(scratch: Path) -> Iterator[Layout]:
    """Return a layout where the servers' own uids may go."""
    created = Layout(scratch / secrets.token_hex(4))
    created.create()
    yield created
    shutil.rmtree(created.runtime)


@asynccontextmanager
async def running(layout: Layout, *names: str) -> AsyncIterator[Supervisor]:
    plan = build_plan(layout, Options(ephemeral_ports=True), Surroundings())
    supervisor = Supervisor([unit for unit in plan.units if unit.name in names], layout)
    await supervisor.start(timeout_seconds=WAIT_SECONDS_MAX)
    try:
        yield supervisor
    finally:
        await supervisor.stop()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT_SECONDS_MAX):
        while not condition():
            await asyncio.sleep(0.02)


def pid_of(supervisor: Supervisor, name: str) -> int:
    pid = supervisor.report.instance(name).pid
    assert pid is not None
    return pid


def server_of(holder: int) -> int:
    [server] = psutil.Process(holder).children()
    return server.pid


def niceness(pid: int) -> set[int]:
    """Return a process's own, and its group's where the kernel has such groups."""
    group = Path(f"/proc/{pid}/autogroup")
    return {os.getpriority(os.PRIO_PROCESS, pid), *([int(group.read_text().split()[-1])] if group.exists() else [])}


async def select_one(layout: Layout) -> int:
    connection = await asyncpg.connect((layout.private(POSTGRES) / ADDRESS_FILE).read_text())
    try:
        value: int = await connection.fetchval("SELECT 1")
        return value
    finally:
        await connection.close()


async def test_a_killed_postgres_comes_back_and_so_does_one_whose_holder_was_killed(layout: Layout) -> None:
    async with running(layout, POSTGRES) as supervisor:
        holder = pid_of(supervisor, POSTGRES)
        server = server_of(holder)
        assert await select_one(layout) == 1
        os.kill(server, signal.SIGKILL)
        await until(lambda: supervisor.report.phase is Phase.READY and supervisor.report.instance(POSTGRES).pid not in (None, holder))
        assert await select_one(layout) == 1
        assert "PostgreSQL is not running" in layout.log(POSTGRES).read_text()
        holder = pid_of(supervisor, POSTGRES)
        server = server_of(holder)
        os.kill(holder, signal.SIGKILL)
        await until(lambda: not psutil.pid_exists(server))
        await until(lambda: supervisor.report.phase is Phase.READY and supervisor.report.instance(POSTGRES).pid not in (None, holder))
        assert await select_one(layout) == 1
        server = server_of(pid_of(supervisor, POSTGRES))
    assert not psutil.pid_exists(server)
    assert supervisor.report.instance(POSTGRES).last_end == "stopped"


async def test_a_session_yields_where_its_service_can_be_late(layout: Layout) -> None:
    async with running(layout, POSTGRES) as supervisor:
        address = (layout.private(POSTGRES) / ADDRESS_FILE).read_text()
        administration = await asyncpg.connect(address)
        await administration.execute("CREATE ROLE svc_custody LOGIN PASSWORD 'for-this-test'")
        follower = await asyncpg.connect(address, user="svc_custody", password="for-this-test")
        server = server_of(pid_of(supervisor, POSTGRES))
        wanted = dict.fromkeys([server, *(process.pid for process in psutil.Process(server).children())], POSTGRES_NICENESS)
        wanted[follower.get_server_pid()] = SESSION_NICENESS["svc_custody"]
        assert administration.get_server_pid() in wanted
        assert SESSION_NICENESS["svc_custody"] > POSTGRES_NICENESS
        await until(lambda: all(niceness(pid) == {expected} for pid, expected in wanted.items()))
        await follower.close()
        await administration.close()


async def test_redis_and_the_exchange_come_back_where_they_were(layout: Layout) -> None:
    async with running(layout, REDIS, EXCHANGE) as supervisor:
        address = supervisor.report.instance(EXCHANGE).address
        holders = {name: pid_of(supervisor, name) for name in (REDIS, EXCHANGE)}
        os.kill(server_of(holders[REDIS]), signal.SIGKILL)
        os.kill(holders[EXCHANGE], signal.SIGKILL)
        await until(
            lambda: (
                supervisor.report.phase is Phase.READY
                and all(supervisor.report.instance(name).pid not in (None, pid) for name, pid in holders.items())
            )
        )
        async with redis.asyncio.from_url((layout.private(REDIS) / ADDRESS_FILE).read_text()) as client:
            assert await client.ping()
        host, port = address.split(":")
        _, writer = await asyncio.open_connection(host, int(port))
        writer.close()
        await writer.wait_closed()
        assert supervisor.report.instance(EXCHANGE).address == address
