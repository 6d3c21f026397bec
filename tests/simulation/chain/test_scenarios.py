"""Moments that a test has to bring about on purpose: each plays on the simulated chain, and the auditor judges it as well."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest

from svc_oms.store import keys, kill_switches
from svc_oms.store import orders as orders_store
from svc_risk.domain.reservation import ReservationStatus
from tests.simulation.chain.auditor.audit import audit
from tests.simulation.chain.auditor.view import CANCELED, FILLED, REJECTED, Audited, OrderView
from tests.simulation.chain.databases import is_commit
from tests.simulation.chain.history import History
from tests.simulation.chain.hosts import Host
from tests.simulation.chain.loop import elapse
from tests.simulation.chain.market_data import MarketDataHost
from tests.simulation.chain.venue import MEMBER, VenueHost
from tests.simulation.chain.world import ACCOUNTS, World, play
from trademesh.oms.v1 import order_pb2, order_service_pb2

FAR_BELOW, FAR_ABOVE = "98", "103"


def order(client_order_id: str, *, price: str = FAR_BELOW, quantity: str = "10", side: int = 1) -> order_service_pb2.CreateOrderRequest:
    """An order of AAPL, which trades near 100."""
    return order_service_pb2.CreateOrderRequest(
        account_id=ACCOUNTS[0],
        client_order_id=client_order_id,
        instrument_id="AAPL",
        side=side,  # type: ignore[arg-type]
        type=2,  # type: ignore[arg-type]
        time_in_force=2,  # type: ignore[arg-type]
        quantity=quantity,
        limit_price=price,
    )


async def enter(world: World, request: order_service_pb2.CreateOrderRequest) -> order_pb2.Order:
    """Enter an order until its answer is known."""
    return await world.traders[0].create(request)


async def until(world: World, condition: Any, seconds: float = 60.0) -> None:
    """Wait for a condition in the simulation's time."""
    deadline = world.loop.time() + seconds
    while not condition():
        assert world.loop.time() < deadline, "the condition never came"
        await asyncio.sleep(0.01)


def events_of(world: World, order_id: str) -> list[str]:
    return [event.type.rpartition(".")[2] for event in world.oms_database.server.log.streams.get(f"order-{order_id}", ())]


def session_holder(world: World) -> Host:
    """The replica that holds the venue's session."""
    (row,) = [row for name, row in world.oms_database.server.tables["lease"].items() if str(name).startswith("venue-session")]
    return next(replica.host for replica in world.oms if replica.owner == row["owner"])


def folded(history: History) -> dict[str, OrderView]:
    assert audit(history) == []
    return Audited(history).folded()


def test_a_lease_is_taken_over_between_persisting_and_sending() -> None:
    """The holder sleeps right after it stored the order for sending; when it wakes, the session is another's, and it writes nothing."""
    seen: dict[str, Any] = {}

    async def course(world: World) -> None:
        await enter(world, order("warm-up"))
        holder = seen["holder"] = session_holder(world)

        def fall_asleep(host: Host, sql: str) -> None:
            rows = world.oms_database.server.tables["venue_request"].values()
            waits = any(row["sent_at"] is None for row in rows)
            if host is holder and sql == "COMMIT" and "slept_at" not in seen and waits:
                seen["slept_at"] = world.loop.time()
                world.loop.call_later(0.002, holder.stall, 9.0)

        world.oms_database.on_statement = fall_asleep
        seen["order"] = await enter(world, order("sleeper"))
        await until(world, lambda: "slept_at" in seen)
        world.oms_database.on_statement = None
        await until(world, lambda: session_holder(world) is not holder)
        seen["taken_at"] = world.loop.time()
        await until(world, lambda: holder.stalled_until < world.loop.time())

    history = play(11, course)
    orders = folded(history)
    holder, taken_at = seen["holder"], seen["taken_at"]
    assert [frame for frame in history.frames if frame.sender == holder.name and frame.moment > taken_at and frame.get(35) == "D"] == []
    sleeper = orders[seen["order"].order_id]
    # Sent by the new holder, resolved as never sent, or sent just before the sleep: in any case it ended once.
    assert sleeper.state in (CANCELED, REJECTED)


def test_a_commit_whose_answer_is_lost_is_settled_and_answered() -> None:
    """Every answer to a commit is lost for a while. Fates are read back, so that clients see their orders, each of them once."""
    seen: dict[str, Any] = {"lost": 0}

    async def course(world: World) -> None:
        for database in (world.oms_database, world.risk_database):
            database.weather.commit_loss_share = 1.0

        def count(_: Host, sql: str) -> None:
            seen["lost"] += is_commit(sql)

        world.oms_database.on_statement = count
        work = [asyncio.create_task(enter(world, order(f"lost-{number}", quantity=str(10 + number)))) for number in range(5)]
        await asyncio.wait(work, timeout=8.0)
        for database in (world.oms_database, world.risk_database):
            database.weather.commit_loss_share = 0.0
        world.oms_database.on_statement = None
        seen["orders"] = [await task for task in work]

    history = play(12, course)
    orders = folded(history)
    assert len({order.order_id for order in seen["orders"]}) == 5
    assert seen["lost"] > 0
    # Sent and then canceled, or given up because nobody could send it in time.
    assert all(orders[order.order_id].state in (CANCELED, REJECTED) for order in seen["orders"])


def test_a_fill_that_comes_late_and_twice_counts_once() -> None:
    """The venue fills, lets the order be canceled, and tells of the fill only then, on two numbers."""
    seen: dict[str, Any] = {}

    async def course(world: World) -> None:
        assert world.venue.control("fault.add", action="hold_fills", session=MEMBER, until_closed=True, count=100)["ok"]
        seen["order"] = created = await enter(world, order("late", price="100", quantity="60"))
        await until(world, lambda: any(world.venue.exchange._holds))  # type: ignore[union-attr]
        world.venue.control("fault.clear")
        assert world.venue.control("fault.add", action="duplicate", session=MEMBER)["ok"]
        await world.traders[0].cancel(created)
        await until(world, lambda: "ExecutionRecorded" in events_of(world, created.order_id))
        world.venue.control("fault.clear")

    history = play(13, course)
    order_id = seen["order"].order_id
    late = folded(history)[order_id]
    assert late.filled > 0
    assert late.state in (CANCELED, FILLED)
    reports = [frame.get(17) for frame in history.frames if frame.sender == "venue" and frame.get(150) == "4" and frame.get(41) == order_id]
    assert len(reports) == 2 * len(set(reports)) or late.state == FILLED


def test_cancels_are_served_at_a_look_and_under_locks_where_others_are_faster() -> None:
    """Orders are canceled while they are sent, and some while they are filled, by traders who send each cancel twice."""
    statements: Counter[str] = Counter()

    async def course(world: World) -> None:
        await enter(world, order("first"))
        world.network.weather.latency_ms = 5.0
        world.oms_database.on_statement = lambda _, sql: statements.update((sql,))
        for number in range(12):
            price = "100" if number % 2 else FAR_BELOW
            created = await enter(world, order(f"early-{number}", price=price, quantity=str(10 + number)))
            await elapse(0.02 * (number % 4))
            await asyncio.gather(world.traders[0].cancel(created), world.traders[0].cancel(created))
        world.oms_database.on_statement = None
        world.network.weather.latency_ms = 0.5

    for seed in range(30, 33):
        assert folded(play(seed, course))
    assert statements[orders_store._CHANGE] > statements[keys._WRITE] > 0


def test_a_connection_that_breaks_while_a_send_is_being_stored_keeps_its_numbers() -> None:
    """The next connection must not read the numbers before the send that was under way has ended."""

    async def course(world: World) -> None:
        await enter(world, order("first"))
        await until(world, lambda: world.oms_database.server.tables["venue_request"] == {})
        holder = session_holder(world)
        world.network.weather.latency_ms = 60.0
        dropped: list[float] = []

        def drop(host: Host, sql: str) -> None:
            # The send has locked its orders, and is about to number its messages.
            if host is holder and sql == kill_switches._ENTER_GATE and len(dropped) < 3:
                dropped.append(world.loop.time())
                world.venue.control("member.disconnect", comp_id=MEMBER)

        world.oms_database.on_statement = drop
        for number in range(4):
            # Quantities of their own: twins within half a second are duplicates.
            batch = [order(f"more-{number}-{other}", quantity=str(10 + 4 * number + other)) for other in range(4)]
            await asyncio.gather(*(enter(world, request) for request in batch))
        await until(world, lambda: len(dropped) == 3)
        world.oms_database.on_statement = None
        world.network.weather.latency_ms = 0.5

    for seed in range(14, 20):
        history = play(seed, course)
        assert folded(history)


def test_both_replicas_die_between_commit_and_answer() -> None:
    """Replicas that commit are killed before they can answer: what they had committed stands, and whoever is next answers."""
    seen: dict[str, Any] = {}

    async def course(world: World) -> None:
        world.oms_database.weather.commit_death_share = 0.5
        work: list[asyncio.Task[order_pb2.Order]] = []
        while any(replica.lives < 3 for replica in world.oms):
            assert len(work) < 200, "nobody dies"
            work.append(asyncio.create_task(enter(world, order(f"dying-{len(work)}", quantity=str(10 + len(work))))))
            start_the_dead(world)
            await elapse(0.3)
        world.oms_database.weather.commit_death_share = 0.0
        start_the_dead(world)
        seen["orders"] = [await task for task in work]

    history = play(21, course)
    orders = folded(history)
    assert len(seen["orders"]) > 1
    assert all(orders[order.order_id].state in (CANCELED, REJECTED) for order in seen["orders"])


def test_of_replaces_at_once_one_is_sent_and_the_others_are_released_at_once() -> None:
    """Risk approves several before svc_oms records one. It says of the others that they came to nothing, so no sweep has to find out."""
    seen = play_replaces(22, cancel=False)
    assert seen["events"].count("ReplaceRequested") == 1
    assert seen["events"].count("ReplaceRejected") >= seen["most"] - 1


def test_a_cancel_beside_replaces_releases_all_that_is_held_for_them() -> None:
    """Those that svc_oms refused because the order had ended have no event of their own; the order's end is theirs."""
    seen = play_replaces(23, cancel=True)
    assert seen["events"][-1] == "OrderCanceled"
    assert seen["status"] == ReservationStatus.CLOSED


def play_replaces(seed: int, *, cancel: bool) -> dict[str, Any]:
    """Play several replaces of one order at once until nothing of them is held any more."""
    seen: dict[str, Any] = {"most": 0}

    async def course(world: World) -> None:
        created = await enter(world, order("several"))
        await until(world, lambda: "OrderAcknowledged" in events_of(world, created.order_id))
        reservations = world.risk_database.server.tables["reservation"]

        def look(_: Host, sql: str) -> None:
            seen["most"] = max(seen["most"], len(reservations[created.order_id]["pending"] or ()))

        world.risk_database.on_statement = look
        trader = world.traders[0]
        replaces = [
            order_service_pb2.ReplaceOrderRequest(
                account_id=created.account_id,
                order_id=created.order_id,
                quantity=str(20 + number),
                request_id=f"00000000-0000-7000-8000-{number:012d}",
            )
            for number in range(5)
        ]
        await asyncio.gather(*(trader.replace(request) for request in replaces), *([trader.cancel(created)] if cancel else ()))
        answered = world.loop.time()
        await until(world, lambda: reservations[created.order_id]["pending"] is None)
        seen["released_after"] = world.loop.time() - answered
        seen["events"] = events_of(world, created.order_id)
        seen["status"] = reservations[created.order_id]["status"]

    history = play(seed, course)
    assert audit(history) == []
    assert seen["most"] > 1, "they were not approved at once"
    assert seen["released_after"] < 5.0
    return seen


@pytest.mark.parametrize("killed", ["venue", "market_data"])
def test_without_a_fresh_price_an_order_is_not_approved_and_with_one_it_is(killed: str) -> None:
    """Whoever prices come from, or through, dies: two seconds later no order is approved, until prices are told anew."""
    seen: dict[str, Any] = {}

    async def course(world: World) -> None:
        part: VenueHost | MarketDataHost = getattr(world, killed)
        await enter(world, order("before"))
        part.kill()
        await elapse(2.5)
        seen["from"] = world.loop.time()
        waiting = asyncio.create_task(enter(world, order("meanwhile")))
        await elapse(3.0)
        assert not waiting.done()
        seen["to"] = world.loop.time()
        started = part.start()
        if started is not None:
            await started
        seen["order"] = await waiting

    history = play(18, course)
    refused = {answer.reason for answer in history.answers if seen["from"] <= answer.moment <= seen["to"]}
    assert refused == {"REFERENCE_PRICE_STALE"}
    assert folded(history)[seen["order"].order_id].state == CANCELED


def start_the_dead(world: World) -> None:
    for replica in world.oms:
        if not replica.host.alive:
            replica.start()
