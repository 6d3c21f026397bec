"""What a check costs: `python -m tests.bench.risk_check [batch sizes]` decides new orders over 50 accounts on an embedded PostgreSQL.

For each batch size it prints orders a second, and the CPU time that an order takes in Python and in PostgreSQL.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import psutil
import uvloop

from kernel.events.postgres import PostgresEventStore
from kernel.postgres import Database, migrate
from kernel.values import use_exact_decimals
from mesh.local.postgres import EmbeddedPostgres
from svc_risk.domain.check import OrderCheck
from svc_risk.domain.vocabulary import LimitScope, LimitType
from svc_risk.store import MIGRATIONS
from svc_risk.store.checks import CheckStore
from svc_risk.store.ledger import Ledger
from tests.integration.risk.world import DEFAULT_LIMITS, buy, populate, sell

ORDERS = 20_000
ACCOUNTS = [f"ACC-{number}" for number in range(1, 51)]
INSTRUMENTS = ["AAPL", "MSFT", "NVDA", "TSLA", "SPY", "BTC-USD", "ETH-USD"]
LIMITS = DEFAULT_LIMITS | {
    (LimitScope.ACCOUNT, LimitType.OPEN_EXPOSURE): "100000000000",
    (LimitScope.ACCOUNT, LimitType.GROSS_EXPOSURE): "100000000000",
    (LimitScope.ACCOUNT, LimitType.DUPLICATE_WINDOW): "0.5",
    (LimitScope.TRADER, LimitType.MESSAGE_RATE): "1000000",
}


def orders(count: int) -> list[OrderCheck]:
    """Return new orders, each with terms of its own."""
    made = []
    for number in range(count):
        place = buy if number % 2 else sell
        price = f"{100 + number % 400 / 100:.2f}"
        made.append(place(str(1 + number % 97), price, account=ACCOUNTS[number % 50], instrument=INSTRUMENTS[number % 7]))
    return made


def _server_seconds(pid: int) -> float:
    server = psutil.Process(pid)
    return sum(sum(process.cpu_times()[:2]) for process in (server, *server.children()))


async def measure(server: EmbeddedPostgres, batch: int) -> str:
    """Decide all orders in batches of one size, one after the other, and return a line of figures."""
    service = server.provision(f"bench_{batch}")
    await migrate(service.owner_dsn, service.role, MIGRATIONS)
    await populate(service.owner_dsn, accounts=ACCOUNTS, instruments=INSTRUMENTS, limits=LIMITS)
    database = await Database.open(service.dsn)
    events = PostgresEventStore(database)
    store = CheckStore(database, Ledger(events))
    checks = orders(ORDERS)
    await store.decide(checks[:batch])
    started, python, postgres = time.perf_counter(), time.process_time(), _server_seconds(server.pid)
    approved = 0
    for start in range(batch, ORDERS, batch):
        answers = await store.decide(checks[start : start + batch])
        approved += sum(answer.result.HasField("approval") for answer in answers)
    seconds, python, postgres = time.perf_counter() - started, time.process_time() - python, _server_seconds(server.pid) - postgres
    count = ORDERS - batch
    await events.close()
    await database.close()
    return (
        f"batch {batch:>4}: {count / seconds:>8.0f} orders/s  {1e6 * python / count:>6.1f} us Python  "
        f"{1e6 * postgres / count:>6.1f} us PostgreSQL  {approved} of {count} approved"
    )


def main() -> None:
    """Measure every batch size that the command line names."""
    use_exact_decimals()
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o711)
        with EmbeddedPostgres(Path(folder) / "postgres") as server:
            for batch in [int(argument) for argument in sys.argv[1:]] or [10, 50, 100, 200]:
                print(uvloop.run(measure(server, batch)))


if __name__ == "__main__":
    main()
