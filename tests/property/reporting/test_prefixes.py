"""A report at a position is what follows from the logs up to it, whatever was copied later, in whatever rounds, on PostgreSQL.

The expectation is computed from the events alone, without the store.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from kernel.ports import LogPosition
from kernel.postgres import migrate
from mesh.local.postgres import DATABASE
from mesh.local.provision import Provisioner
from svc_reporting.store import MIGRATIONS
from tests.integration.reporting.expectation import ACCOUNTS, Scene, expected, prefix
from tests.integration.reporting.replica import AUDIT_TRAIL, BLOTTER, CSV, Replica, asking, positions, replica
from tests.integration.reporting.world import BUY, SELL, Book, World
from trademesh.oms.v1 import events_pb2

STEPS = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 5), st.integers(1, 9)), min_size=8, max_size=40)


def play(steps: Sequence[tuple[int, int, int]]) -> World:
    """Return what these steps come to."""
    world, books, fills, instructions = World(), list[Book](), list[tuple[Book, str]](), list[str]()
    for account_id in ACCOUNTS:
        world.account(account_id)
    for step, (action, which, size) in enumerate(steps):
        if action <= 1 or not books:
            instrument = ("AAPL", "MSFT")[which % 2]
            books.append(world.order((BUY, SELL)[size % 2], str(10 * size), account=ACCOUNTS[which % 2], instrument=instrument))
            continue
        book = books[which % len(books)]
        match action:
            case 2 | 3 | 4:
                book.fill(f"E-{step}", str(size), f"99.{size}")
                fills.append((book, f"E-{step}"))
                if action > 2:
                    instructions.append(f"S-{step}")
                    world.instructed(f"S-{step}", f"E-{step}")
            case 5 if fills:
                owner, exec_id = fills[which % len(fills)]
                owner.bust(f"E-{step}", exec_id)
            case 6 if fills:
                owner, exec_id = fills[which % len(fills)]
                owner.correct(f"E-{step}", exec_id, str(size), "98.25")
                fills.append((owner, f"E-{step}"))
            case 7:
                book.tell(events_pb2.OrderReplaced(quantity=str(20 * size), limit_price="98"))
            case 8:
                world.instrument(("AAPL", "MSFT")[which % 2], ("USD", "EUR", "CHF")[size % 3])
            case 9 if instructions:
                world.settled(instructions[which % len(instructions)])
    return world


async def check(one: Replica, scene: Scene, rounds: Sequence[int]) -> None:
    """Copy up to the positions, ask, copy the rest, and ask again."""
    world, at = scene
    for source, batch in zip(("custody", "oms", "risk"), rounds, strict=True):
        await one.fold(source, prefix(world.source(source).events, at[source]), batch)
    kinds = (BLOTTER, AUDIT_TRAIL)
    wanted = [expected(scene, kind) for kind in kinds]
    assert [await one.make(asking(kind, CSV, data_positions=positions(**at))) for kind in kinds] == wanted
    await one.follow(world, rounds[0])
    assert [await one.make(asking(kind, CSV, data_positions=positions(**at))) for kind in kinds] == wanted
    now = Scene(world, {source: world.source(source).end for source in at})
    assert [await one.make(asking(kind, CSV)) for kind in kinds] == [expected(now, kind) for kind in kinds]


# Every example is a schema of its own, so one that fails is shown as it is, and not made smaller.
@settings(
    max_examples=12,
    deadline=None,
    phases=(Phase.reuse, Phase.generate),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(steps=STEPS, cuts=st.tuples(*[st.floats(0, 1)] * 2), rounds=st.tuples(*[st.sampled_from([1, 2, 3, 7, 1000])] * 3))
def test_a_report_at_a_position_follows_from_the_logs_up_to_it(
    postgres: Provisioner, steps: list[tuple[int, int, int]], cuts: tuple[float, float], rounds: tuple[int, int, int]
) -> None:
    world = play(steps)
    at = {"risk": world.risk.end}
    for source, cut in zip(("oms", "custody"), cuts, strict=True):
        events = world.source(source).events
        at[source] = events[int(cut * (len(events) - 1))].position if events else LogPosition(0, 0)
    # Accounts must be known before anybody asks; instruments need not.
    at["risk"] = world.risk.events[max(1, int(cuts[0] * (len(world.risk.events) - 1)))].position
    name = f"t_{secrets.token_hex(6)}"
    service = postgres.provision(name, DATABASE)

    async def run() -> None:
        await migrate(service.owner_dsn, service.role, MIGRATIONS)
        async with replica(service.dsn) as one:
            await check(one, Scene(world, at), rounds)

    try:
        asyncio.run(run())
    finally:
        postgres.remove(name, DATABASE)
