"""Where the time of a new order goes inside svc_oms, part by part: `python -m tests.bench.oms_create [ORDERS] [BATCH]`.

Risk is answered in the process and gRPC is left out, so the parts are svc_oms's own and PostgreSQL's. Microseconds per order.
"""

from __future__ import annotations

import asyncio
import contextlib
import cProfile
import pstats
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from kernel.clock import SystemClock
from kernel.postgres import migrate
from kernel.validation import check
from kernel.values import use_exact_decimals
from mesh.local.postgres import DATABASE, EmbeddedPostgres
from svc_oms.codec.events import encode
from svc_oms.codec.orders import order_message
from svc_oms.codec.requests import OrderCommand, is_plain, new_order, new_order_checks
from svc_oms.codec.scalars import timestamp
from svc_oms.domain import evolve, place
from svc_oms.domain.commands import PlaceOrder
from svc_oms.main import MIGRATIONS
from svc_oms.servicer.creates import OrderEntry
from svc_oms.store.projection import Projection
from tests.integration.oms.world import TENANT, USER, VENUE, FakeRisk, Replica, order_request
from trademesh.oms.v1 import order_service_pb2


def timed(name: str, count: int, work: Callable[[], object]) -> None:
    """Print the microseconds that one call takes."""
    started = time.perf_counter()
    for _ in range(count):
        work()
    print(f"  {name:<34}{(time.perf_counter() - started) / count * 1e6:8.2f}")


def parts(count: int = 20_000) -> None:
    """Time the pure parts of one order."""
    now = SystemClock().now()
    request = order_request()
    data = request.SerializeToString()
    item = new_order(request, USER)
    stamp = timestamp(now)
    terms = item.terms(TENANT, VENUE)
    (event,) = place(None, PlaceOrder(terms, None, now))
    order = evolve(None, event)
    message = order_message(order)
    snapshot = message.SerializeToString()
    print("pure parts, us per order")
    timed("parse the request", count, lambda: order_service_pb2.CreateOrderRequest.FromString(data))
    timed("see that it is plain", count, lambda: is_plain(request))
    timed("check its rules (if it is not)", count, lambda: check(request))
    timed("normalise, hash, derive the id", count, lambda: new_order(request, USER))
    timed("ask risk (one item)", count, lambda: new_order_checks((item,), stamp))
    timed("terms, decide, evolve", count, lambda: evolve(None, place(None, PlaceOrder(item.terms(TENANT, VENUE), None, now))[0]))
    timed("order as a message", count, lambda: order_message(order).SerializeToString())
    timed("event as a record", count, lambda: encode(event, None))
    timed("read model rows", count, lambda: Projection().add_new(order, snapshot))
    timed("answer", count, lambda: order_service_pb2.CreateOrderResponse(order=message).SerializeToString())


def _server_cpu_seconds() -> float:
    """CPU of the PostgreSQL processes below this one."""
    total = 0.0
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            total += sum(process.cpu_times()[:2])
    return total


async def whole(scratch: Path, orders: int, batch: int) -> None:
    """Time whole batches against PostgreSQL, and say whose CPU they took."""
    with EmbeddedPostgres(scratch / "postgres") as server:
        database = server.provisioner().provision("svc_oms", DATABASE)
        await migrate(database.owner_dsn, database.role, MIGRATIONS)
        async with Replica.open(database.dsn, FakeRisk()) as replica:
            entry = OrderEntry(replica.store, FakeRisk(), replica.clock)
            commands = [[OrderCommand(order_request(), USER) for _ in range(batch)] for _ in range(orders // batch)]
            for warm in commands[:5]:
                await entry.flush("orders", warm)
            rest = commands[5:]
            server_before = _server_cpu_seconds()
            profile = cProfile.Profile() if "--profile" in sys.argv else None
            wall, cpu = time.perf_counter(), time.process_time()
            if profile is not None:
                profile.enable()
            for items in rest:
                await entry.flush("orders", items)
            if profile is not None:
                profile.disable()
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            server_cpu = _server_cpu_seconds() - server_before
            done = len(rest) * batch
            print(f"batches of {batch}, us per order (fake risk included)")
            print(f"  {'wall':<34}{wall / done * 1e6:8.2f}")
            print(f"  {'svc_oms CPU':<34}{cpu / done * 1e6:8.2f}")
            print(f"  {'PostgreSQL CPU':<34}{server_cpu / done * 1e6:8.2f}")
            if profile is not None:
                pstats.Stats(profile).sort_stats("tottime").print_stats(25)


def main() -> None:
    """Print both tables."""
    use_exact_decimals()
    numbers = [int(argument) for argument in sys.argv[1:] if argument.isdigit()]
    parts()
    with tempfile.TemporaryDirectory(prefix="tmb-") as directory:
        scratch = Path(directory)
        scratch.chmod(0o711)
        asyncio.run(whole(scratch, numbers[0] if numbers else 20_000, numbers[1] if len(numbers) > 1 else 100))


if __name__ == "__main__":
    main()
