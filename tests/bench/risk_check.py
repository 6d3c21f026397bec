"""What a check costs: `python -m tests.bench.risk_check [batch sizes] [--profile]` asks for new orders over 50 accounts, on an embedded
PostgreSQL.

Everything between the bytes of a CheckOrders and the bytes of its answer is measured, with the demands that `svc_risk.main` makes of the
method; gRPC itself is left out. For each batch size it prints orders a second, and the CPU time that an order takes in Python and in
PostgreSQL.
"""

from __future__ import annotations

import cProfile
import pstats
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, cast

import psutil
import uvloop
from google.protobuf.timestamp_pb2 import Timestamp

from kernel.clock import SystemClock
from kernel.config import Secret
from kernel.identity import Identity
from kernel.paging import PageTokens
from kernel.postgres import Database, migrate
from kernel.process import quiet_collector
from kernel.server_context import CallContext
from kernel.server_policy import BoundMethod, bound_methods
from kernel.server_streams import decode
from kernel.values import use_exact_decimals
from mesh.local.postgres import EmbeddedPostgres
from svc_risk.codec.amounts import text
from svc_risk.domain.check import OrderCheck
from svc_risk.domain.vocabulary import LimitScope, LimitType
from svc_risk.main import bindings, open_stores
from svc_risk.servicer.pre_trade import PreTradeServicer
from svc_risk.store import MIGRATIONS
from svc_risk.store.ledger import ROW_TYPES
from tests.integration.risk.world import DEFAULT_LIMITS, buy, populate, sell
from trademesh.risk.v1 import pre_trade_service_pb2
from trademesh.type.v1 import user_pb2

ORDERS = 20_000
ACCOUNTS = [f"ACC-{number}" for number in range(1, 51)]
INSTRUMENTS = ["AAPL", "MSFT", "NVDA", "TSLA", "SPY", "BTC-USD", "ETH-USD"]
LIMITS = DEFAULT_LIMITS | {
    (LimitScope.ACCOUNT, LimitType.OPEN_EXPOSURE): "100000000000",
    (LimitScope.ACCOUNT, LimitType.GROSS_EXPOSURE): "100000000000",
    (LimitScope.ACCOUNT, LimitType.DUPLICATE_WINDOW): "0.05",
    (LimitScope.TRADER, LimitType.MESSAGE_RATE): "1000000",
}
TRADER = user_pb2.User(principal="ada", tenant="north", roles=["trader"])


def orders(count: int) -> list[OrderCheck]:
    """Return new orders, each with terms of its own."""
    made = []
    for number in range(count):
        place = buy if number % 2 else sell
        price = f"{100 + number % 400 / 100:.2f}"
        made.append(place(str(1 + number % 97), price, account=ACCOUNTS[number % 50], instrument=INSTRUMENTS[number % 7]))
    return made


def question(checks: list[OrderCheck], receive_time: Timestamp) -> bytes:
    """Return the request as it comes off the wire."""
    request = pre_trade_service_pb2.CheckOrdersRequest()
    for check in checks:
        assert check.limit_price is not None
        request.orders.add(
            kind=check.kind.value,
            order_id=check.order_id,
            request_id=check.request_id,
            payload_hash=check.payload_hash,
            user=TRADER,
            account_id=check.account_id,
            instrument_id=check.instrument_id,
            side=check.side.value,
            type=check.type.value,
            time_in_force=check.time_in_force.value,
            quantity=text(check.quantity),
            limit_price=text(check.limit_price),
            receive_time=receive_time,
        )
    return request.SerializeToString()


async def answer(method: BoundMethod, data: bytes) -> bytes:
    """Serve one request as `kernel.server_pipeline` does."""
    context = CallContext(Identity("svc-oms", None, ""))
    response = await method.handler(decode(method, data), context)
    return cast("bytes", response.SerializeToString())


def _server_seconds(pid: int) -> float:
    server = psutil.Process(pid)
    return sum(sum(process.cpu_times()[:2]) for process in (server, *server.children()))


async def measure(server: EmbeddedPostgres, batch: int, profile: cProfile.Profile | None) -> str:
    """Ask for all orders in batches of one size, one after the other, and return a line of figures."""
    service = server.provision(f"bench_{batch}")
    await migrate(service.owner_dsn, service.role, MIGRATIONS)
    await populate(service.owner_dsn, accounts=ACCOUNTS, instruments=INSTRUMENTS, limits=LIMITS)
    database = await Database.open(service.dsn)
    await database.warm(ROW_TYPES)
    clock = SystemClock()
    stores = open_stores(database, clock, "bench")
    servicer = PreTradeServicer(stores.checks, clock)
    services = bindings(stores, cast("Any", None), servicer, PageTokens(Secret("k" * 32)), "firm")
    (method,) = (method for service in services for method in bound_methods(service) if method.path.endswith("/CheckOrders"))
    made, now = orders(ORDERS), Timestamp()
    now.GetCurrentTime()
    questions = [question(made[start : start + batch], now) for start in range(0, ORDERS - batch + 1, batch)]
    quiet_collector()
    for data in questions[:5]:
        await answer(method, data)
    started, python, postgres = time.perf_counter(), time.process_time(), _server_seconds(server.pid)
    if profile is not None:
        profile.enable()
    answers = [await answer(method, data) for data in questions[5:]]
    if profile is not None:
        profile.disable()
    seconds, python, postgres = time.perf_counter() - started, time.process_time() - python, _server_seconds(server.pid) - postgres
    results = [result for data in answers for result in pre_trade_service_pb2.CheckOrdersResponse.FromString(data).results]
    await servicer.close()
    await stores.log.close()
    await database.close()
    count = len(results)
    return (
        f"batch {batch:>4}: {count / seconds:>8.0f} orders/s  {1e6 * python / count:>6.1f} us Python  "
        f"{1e6 * postgres / count:>6.1f} us PostgreSQL  {sum(result.HasField('approval') for result in results)} of {count} approved"
    )


def main() -> None:
    """Measure every batch size that the command line names."""
    use_exact_decimals()
    profile = cProfile.Profile() if "--profile" in sys.argv else None
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o711)
        with EmbeddedPostgres(Path(folder) / "postgres") as server:
            for batch in [int(argument) for argument in sys.argv[1:] if argument.isdigit()] or [64, 100, 200]:
                print(uvloop.run(measure(server, batch, profile)))
    if profile is not None:
        pstats.Stats(profile).sort_stats("tottime").print_stats(40)


if __name__ == "__main__":
    main()
