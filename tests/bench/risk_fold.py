"""What following svc_oms's log costs: `python -m tests.bench.risk_fold [round sizes]` folds orders over 50 accounts.

First their acceptances, the commonest events by far, and then a fill of each. All that the mesh does for it but gRPC itself is measured,
for each size of a round: reading pages and encoding the answer (svc_oms), decoding it and folding it into reservations (svc_risk), and
PostgreSQL under both.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import psutil
import uvloop

from kernel.clock import SystemClock
from kernel.event_records import from_position, from_record, to_position
from kernel.eventlog_servicer import EventLogServicer
from kernel.events.postgres import PostgresEventStore
from kernel.identity import Identity
from kernel.ports import LOG_START, Commit, HeldLease, LogPosition, NewEvent, RecordedEvent
from kernel.postgres import KERNEL_MIGRATIONS, Database, migrate
from kernel.server_context import CallContext
from kernel.values import use_exact_decimals
from mesh.local.postgres import EmbeddedPostgres
from mesh.local.provision import ServiceDatabase
from svc_risk.consumer.orders import NAME, SOURCE, Reservations
from svc_risk.domain.check import OrderCheck
from svc_risk.domain.vocabulary import OrderState
from svc_risk.main import Stores, open_stores
from svc_risk.store import MIGRATIONS
from svc_risk.store.ledger import ROW_TYPES
from tests.bench.risk_check import ACCOUNTS, INSTRUMENTS, LIMITS, orders
from tests.integration.risk.orders import accepted, filled
from tests.integration.risk.world import populate
from trademesh.type.v1 import event_log_service_pb2

ORDERS = 10_000
CHECKS_BATCH = 200


class Figures(NamedTuple):
    """CPU microseconds an event, and what a round takes."""

    reading: float
    reading_postgres: float
    decoding: float
    folding: float
    folding_postgres: float
    round_ms: float

    def line(self, kind: str, size: int) -> str:
        """Return the figures as a line."""
        python, postgres = self.reading + self.decoding + self.folding, self.reading_postgres + self.folding_postgres
        return (
            f"{kind} in rounds of {size:>4}: {python + postgres:>5.1f} us each. Python: reading {self.reading:.1f}, "
            f"decoding {self.decoding:.1f}, folding {self.folding:.1f}; "
            f"PostgreSQL: reading {self.reading_postgres:.1f}, folding {self.folding_postgres:.1f}; "
            f"{self.round_ms:.1f} ms a round"
        )


async def measure(server: EmbeddedPostgres, size: int) -> str:
    """Fold all orders in rounds of one size, and return a line of figures."""
    risk, oms = server.provision(f"risk_{size}"), server.provision(f"oms_{size}")
    await migrate(risk.owner_dsn, risk.role, MIGRATIONS)
    await migrate(oms.owner_dsn, oms.role, [KERNEL_MIGRATIONS])
    await populate(risk.owner_dsn, accounts=ACCOUNTS, instruments=INSTRUMENTS, limits=LIMITS)
    database = await Database.open(risk.dsn)
    await database.warm(ROW_TYPES)
    stores = open_stores(database, SystemClock(), "bench")
    checks = orders(ORDERS)
    for start in range(0, ORDERS, CHECKS_BATCH):
        await stores.checks.decide(checks[start : start + CHECKS_BATCH])
    line = await _follow(oms, stores, checks, size, server.pid)
    await stores.log.close()
    await database.close()
    return line


async def _follow(oms: ServiceDatabase, stores: Stores, checks: list[OrderCheck], size: int, pid: int) -> str:
    database = await Database.open(oms.dsn)
    log = PostgresEventStore(database)
    lines, after = [], LOG_START
    for kind, tell in (("accepted", accepted), ("filled", _filled)):
        for start in range(0, ORDERS, CHECKS_BATCH):
            events = [tell(check) for check in checks[start : start + CHECKS_BATCH]]
            await log.commit([Commit.single(event.stream_id, event.version - 1, NewEvent(event.type, event.payload)) for event in events])
        figures, after = await _measured(log, stores, after, size, pid)
        lines.append(figures.line(kind, size))
    await log.close()
    await database.close()
    return "\n".join(lines)


def _filled(check: OrderCheck) -> RecordedEvent:
    return filled(check, 2, str(check.quantity), OrderState.FILLED, price=str(check.limit_price), exec_id=check.order_id)


async def _measured(log: PostgresEventStore, stores: Stores, after: LogPosition, size: int, pid: int) -> tuple[Figures, LogPosition]:
    python, postgres = time.process_time(), _server_seconds(pid)
    pages, through = await _read(EventLogServicer(log), after, size)
    reading, reading_postgres = time.process_time() - python, _server_seconds(pid) - postgres
    # Anew each time: it lives for seconds.
    lease = await stores.leases.acquire("bench")
    assert lease is not None
    postgres, started = _server_seconds(pid), time.perf_counter()
    decoding, folding = await _fold(stores, lease, pages)
    seconds, folding_postgres = time.perf_counter() - started, _server_seconds(pid) - postgres
    each = 1e6 / ORDERS
    figures = Figures(
        each * reading, each * reading_postgres, each * decoding, each * folding, each * folding_postgres, 1e3 * seconds / len(pages)
    )
    return figures, through


async def _read(servicer: EventLogServicer, after: LogPosition, size: int) -> tuple[list[bytes], LogPosition]:
    pages: list[bytes] = []
    context = CallContext(Identity("svc-risk", None, ""))
    request = event_log_service_pb2.ReadEventsRequest(page_size=size, after=to_position(after))
    while True:
        response = await servicer.ReadEvents(request, context)
        if not response.events:
            return pages, from_position(response.next)
        pages.append(response.SerializeToString())
        request = event_log_service_pb2.ReadEventsRequest(page_size=size, after=response.next)


async def _fold(stores: Stores, lease: HeldLease, pages: list[bytes]) -> tuple[float, float]:
    """Fold all pages; return the CPU seconds that decoding and folding took here."""
    model, decoding, folding, applied = Reservations(stores.facts), 0.0, 0.0, 0
    for page in pages:
        began = time.process_time()
        events = [from_record(record) for record in event_log_service_pb2.ReadEventsResponse.FromString(page).events]
        decoded = time.process_time()
        applied += await stores.projections.apply(lease, NAME, SOURCE, events[-1].position, events, model)
        decoding, folding = decoding + decoded - began, folding + time.process_time() - decoded
    assert applied == ORDERS
    return decoding, folding


def _server_seconds(pid: int) -> float:
    server = psutil.Process(pid)
    return sum(sum(process.cpu_times()[:2]) for process in (server, *server.children()))


def main() -> None:
    """Measure every size of a round that the command line names."""
    use_exact_decimals()
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o711)
        with EmbeddedPostgres(Path(folder) / "postgres") as server:
            for size in [int(argument) for argument in sys.argv[1:]] or [50, 200, 1_000]:
                print(uvloop.run(measure(server, size)))


if __name__ == "__main__":
    main()
