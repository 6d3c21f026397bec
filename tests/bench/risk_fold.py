"""What following svc_oms's log costs: `python -m tests.bench.risk_fold [round sizes]` folds accepted orders over 50 accounts.

All that the mesh does for it but gRPC itself is measured, for each size of a round: reading pages and encoding the answer (svc_oms),
decoding it and folding it into reservations (svc_risk), and PostgreSQL under both.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import psutil
import uvloop

from kernel.clock import SystemClock
from kernel.event_records import from_record
from kernel.eventlog_servicer import EventLogServicer
from kernel.events.postgres import PostgresEventStore
from kernel.ports import Commit, HeldLease, NewEvent, RecordedEvent
from kernel.postgres import KERNEL_MIGRATIONS, Database, migrate
from kernel.server_context import CallContext
from kernel.values import use_exact_decimals
from mesh.local.postgres import EmbeddedPostgres
from mesh.local.provision import ServiceDatabase
from svc_risk.consumer.orders import NAME, SOURCE, Reservations
from svc_risk.domain.check import OrderCheck
from svc_risk.main import Stores, open_stores
from svc_risk.store import MIGRATIONS
from svc_risk.store.ledger import ROW_TYPES
from tests.bench.risk_check import ACCOUNTS, INSTRUMENTS, LIMITS, orders
from tests.integration.risk.orders import accepted
from tests.integration.risk.world import populate
from trademesh.type.v1 import event_log_service_pb2

ORDERS = 10_000
CHECKS_BATCH = 200


class Meter:
    """CPU seconds of this process and of PostgreSQL, since the last look."""

    def __init__(self, pid: int) -> None:
        self._server = psutil.Process(pid)
        self._last = self._now()

    def _now(self) -> tuple[float, float]:
        return time.process_time(), sum(sum(process.cpu_times()[:2]) for process in (self._server, *self._server.children()))

    def lap(self) -> tuple[float, float]:
        """Return what was used since the last call, in microseconds an order: Python, PostgreSQL."""
        now = self._now()
        used = tuple(1e6 * (after - before) / ORDERS for before, after in zip(self._last, now, strict=True))
        self._last = now
        return used[0], used[1]


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
    line = await _follow(oms, stores, checks, size, Meter(server.pid))
    await stores.log.close()
    await database.close()
    return line


async def _follow(oms: ServiceDatabase, stores: Stores, checks: list[OrderCheck], size: int, meter: Meter) -> str:
    database = await Database.open(oms.dsn)
    log = PostgresEventStore(database)
    for start in range(0, ORDERS, CHECKS_BATCH):
        events = [accepted(check) for check in checks[start : start + CHECKS_BATCH]]
        await log.commit([Commit.single(event.stream_id, 0, NewEvent(event.type, event.payload)) for event in events])
    await log.close()
    servicer, context = EventLogServicer(log), CallContext.__new__(CallContext)
    lease = await stores.leases.acquire("bench")
    assert lease is not None
    meter.lap()
    pages = await _read(servicer, context, size)
    read = meter.lap()
    rounds = [_decode(page) for page in pages]
    decoded = meter.lap()
    started = time.perf_counter()
    applied = await _fold(stores, lease, rounds)
    seconds = time.perf_counter() - started
    folded = meter.lap()
    await database.close()
    assert applied == ORDERS
    return (
        f"rounds of {size:>4}: reading {read[0]:>5.1f} us Python {read[1]:>5.1f} us PostgreSQL, decoding {decoded[0]:>5.1f} us Python, "
        f"folding {folded[0]:>5.1f} us Python {folded[1]:>5.1f} us PostgreSQL; all {sum((*read, *decoded, *folded)):>5.1f} us an order, "
        f"{1e3 * seconds / len(rounds):.1f} ms a round"
    )


async def _read(servicer: EventLogServicer, context: CallContext, size: int) -> list[bytes]:
    pages: list[bytes] = []
    request = event_log_service_pb2.ReadEventsRequest(page_size=size)
    while True:
        response = await servicer.ReadEvents(request, context)
        if not response.events:
            return pages
        pages.append(response.SerializeToString())
        request = event_log_service_pb2.ReadEventsRequest(page_size=size, after=response.next)


def _decode(page: bytes) -> list[RecordedEvent]:
    return [from_record(record) for record in event_log_service_pb2.ReadEventsResponse.FromString(page).events]


async def _fold(stores: Stores, lease: HeldLease, rounds: list[list[RecordedEvent]]) -> int:
    model = Reservations(stores.facts)
    applied = 0
    for events in rounds:
        applied += await stores.projections.apply(lease, NAME, SOURCE, events[-1].position, events, model)
    return applied


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
