"""What the simulation stands on: made-up time, hosts that die and stall, a database that loses answers, locks that see a deadlock."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from typing import Any

import asyncpg
import pytest

from kernel.clock import SystemClock
from kernel.errors import OutcomeUnknownError, UnavailableError
from kernel.events.postgres import PostgresEventStore
from kernel.ports import Commit, NewEvent
from tests.fakes.postgres.driver import DirectWire, Loss, MemoryDatabase
from tests.fakes.postgres.kernel_statements import STATEMENTS, TABLES
from tests.fakes.postgres.server import MemoryPostgres, Tx, UnknownStatementError
from tests.simulation.chain.hosts import Host
from tests.simulation.chain.loop import DeadlockError, SimClock, SimLoop, StepsExceededError, elapse
from tests.simulation.chain.network import Network

Main = Callable[[SimLoop], Coroutine[Any, Any, Any]]


def on_loop(main: Main, seed: int = 1, **options: Any) -> Any:
    """Run a coroutine on a loop of its own."""
    loop = SimLoop(seed, **options)
    try:
        return loop.run_until_complete(main(loop))
    finally:
        loop.close()


def test_time_jumps_and_costs_nothing() -> None:
    async def main(loop: SimLoop) -> tuple[float, float]:
        clock, began = SimClock(loop), loop.time()
        before = clock.now()
        await elapse(86_400)
        return loop.time() - began, (clock.now() - before).total_seconds()

    passed, shown = on_loop(main)
    assert passed == pytest.approx(86_400, abs=0.01)
    assert shown == pytest.approx(passed)


def test_the_seed_decides_who_runs_first() -> None:
    async def main(_: SimLoop) -> tuple[int, ...]:
        order: list[int] = []

        async def work(number: int) -> None:
            order.append(number)

        await asyncio.gather(*(work(number) for number in range(8)))
        return tuple(order)

    assert on_loop(main, 1) == on_loop(main, 1)
    assert len({on_loop(main, seed) for seed in range(10)}) > 5


def test_waiting_for_nothing_and_spinning_for_ever_are_found() -> None:
    async def waits(loop: SimLoop) -> None:
        await loop.create_future()

    async def spins(_: SimLoop) -> None:
        while True:
            await asyncio.sleep(0)

    with pytest.raises(DeadlockError):
        on_loop(waits)
    with pytest.raises(StepsExceededError):
        on_loop(spins, turns_max=1_000)


def test_a_stalled_host_misses_the_time_and_nothing_else() -> None:
    async def main(loop: SimLoop) -> list[float]:
        host, ticks = Host("a", loop), list[float]()

        async def tick() -> None:
            for _ in range(3):
                await elapse(1.0)
                ticks.append(loop.time())

        task = host.spawn(tick())
        await elapse(1.5)
        host.stall(5.0)
        await asyncio.wait({task})
        return [round(moment, 1) for moment in ticks]

    assert on_loop(main) == [1.0, 6.5, 7.5]


def test_a_killed_host_is_gone_and_its_connections_with_it() -> None:
    async def main(loop: SimLoop) -> tuple[bool, int]:
        network = Network(loop, random.Random(1))
        server, client = Host("server", loop), Host("client", loop)

        async def accept() -> None:
            await asyncio.start_server(lambda reader, writer: reader.read(), "server", 1)  # type: ignore[arg-type, return-value]

        async def connect() -> bytes:
            reader, writer = await asyncio.open_connection("server", 1)
            writer.write(b"hello")
            try:
                return await reader.read()
            except ConnectionResetError:
                return b"reset"

        await server.spawn(accept())
        waiting = client.spawn(connect())
        await elapse(1.0)
        server.kill()
        await asyncio.wait({waiting})
        with pytest.raises(ConnectionRefusedError):
            await client.spawn(connect())
        await elapse(1.0)
        assert network.tape[0].data == b"hello"
        return waiting.result() == b"reset", len(server.tasks)

    assert on_loop(main) == (True, 0)


class LossyWire(DirectWire):
    """Loses what it is told to."""

    def __init__(self) -> None:
        self.losses: dict[str, Loss] = {}
        self.up = True

    def fate(self, sql: str) -> Loss:
        return self.losses.pop(sql, Loss.NONE)

    def connects(self) -> bool:
        return self.up


def server() -> MemoryPostgres:
    clock = SystemClock()
    return MemoryPostgres(TABLES, STATEMENTS, clock.now, clock.monotonic)


EVENT = Commit.single("s", 0, NewEvent("t", b""))


async def test_a_commit_whose_answer_is_lost_is_settled_on_another_connection() -> None:
    wire, double = LossyWire(), server()
    database = MemoryDatabase(double, wire)
    log = PostgresEventStore(database)
    wire.losses["COMMIT"] = Loss.ANSWER
    async with database.transaction() as transaction:
        await log.append(transaction, [EVENT])
    assert double.log.streams["s"][0].version == 1
    await log.close()


async def test_a_commit_that_never_arrived_is_known_not_to_have_happened() -> None:
    wire, double = LossyWire(), server()
    database = MemoryDatabase(double, wire)
    log = PostgresEventStore(database)
    wire.losses["COMMIT"] = Loss.REQUEST
    with pytest.raises(UnavailableError):
        async with database.transaction() as transaction:
            await log.append(transaction, [EVENT])
    assert double.log.streams == {}
    await log.close()


async def test_a_fate_that_cannot_be_asked_for_is_unknown() -> None:
    wire, double = LossyWire(), server()
    database = MemoryDatabase(double, wire)
    database._settings = type(database._settings)(settle_timeout_seconds=0.05)
    log = PostgresEventStore(database)
    wire.losses["COMMIT"] = Loss.ANSWER
    with pytest.raises(OutcomeUnknownError):
        async with database.transaction() as transaction:
            await log.append(transaction, [EVENT])
            wire.up = False
    assert double.log.streams["s"][0].version == 1
    await log.close()


async def test_a_canceled_borrower_leaves_no_transaction_behind() -> None:
    database = MemoryDatabase(server())
    began = asyncio.Event()

    async def work() -> None:
        async with database.transaction() as transaction:
            await transaction.pin()
            began.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await began.wait()
    for _ in range(3):
        # Also in the middle of rolling back.
        task.cancel()
        await asyncio.sleep(0)
    await asyncio.gather(task, return_exceptions=True)
    async with database.transaction() as transaction:
        await transaction.pin()
    deadline = asyncio.get_running_loop().time() + 5
    while len(database.pool._server._running):
        assert asyncio.get_running_loop().time() < deadline
        await asyncio.sleep(0.01)


async def test_locks_in_opposite_order_are_a_deadlock_and_one_gives_way() -> None:
    double = server()
    one, two = Tx(double), Tx(double)
    await one.lock("lease", "a")
    await two.lock("lease", "b")
    waiting = asyncio.create_task(one.lock("lease", "b"))
    await asyncio.sleep(0)
    with pytest.raises(asyncpg.DeadlockDetectedError):
        await two.lock("lease", "a")
    double.roll_back(two)
    await waiting
    assert double.locks.deadlocks == 1


async def test_sharers_go_together_and_a_writer_waits_for_them_in_its_turn() -> None:
    double = server()
    readers, writer, late = [Tx(double), Tx(double)], Tx(double), Tx(double)
    for reader in readers:
        await reader.lock("lease", "a", exclusive=False)
    writing = asyncio.create_task(writer.lock("lease", "a"))
    await asyncio.sleep(0)
    reading = asyncio.create_task(late.lock("lease", "a", exclusive=False))
    await asyncio.sleep(0)
    double.roll_back(readers[0])
    assert not writing.done()
    double.roll_back(readers[1])
    await writing
    assert not reading.done()
    double.commit(writer)
    await reading


async def test_a_statement_without_a_double_is_an_error_and_not_an_empty_answer() -> None:
    database = MemoryDatabase(server())
    with pytest.raises(UnknownStatementError):
        await database.fetch("SELECT something new")
