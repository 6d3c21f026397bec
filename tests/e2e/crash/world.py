"""A mesh to break, its accounts, and its databases as their superuser sees them."""

from __future__ import annotations

import asyncio
import os
import random
import secrets
import signal
import sys
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field

import asyncpg

from mesh.local import seed
from mesh.local.embedded import ADDRESS_FILE
from mesh.local.harness import LocalMesh
from mesh.local.operator import Caller
from mesh.local.parts import POSTGRES
from mesh.local.postgres import DATABASE
from mesh.local.seed_data import TENANT, SeedAccount
from tests.e2e.crash.load import ACCOUNTS
from trademesh.risk.v1 import limit_pb2, risk_service_pb2

SEED_KEY = "TRADEMESH_TEST_SEED"
TRADER = Caller("crash-trader", TENANT, ("trader", "viewer"), ACCOUNTS)
_OFFICER = Caller("crash-officer", TENANT, ("admin", "risk-officer", "viewer"))

_ACCOUNT, _TRADER, _INSTRUMENT = limit_pb2.LIMIT_SCOPE_ACCOUNT, limit_pb2.LIMIT_SCOPE_TRADER, limit_pb2.LIMIT_SCOPE_INSTRUMENT
_WIDE = "1000000000000"
_LIMITS = (
    *(
        (_ACCOUNT, account, kind, value)
        for account in ACCOUNTS
        for kind, value in (
            (limit_pb2.LIMIT_TYPE_MAX_NOTIONAL, _WIDE),
            (limit_pb2.LIMIT_TYPE_OPEN_EXPOSURE, _WIDE),
            (limit_pb2.LIMIT_TYPE_GROSS_EXPOSURE, _WIDE),
            (limit_pb2.LIMIT_TYPE_MESSAGE_RATE, "1000000"),
        )
    ),
    (_TRADER, TRADER.principal, limit_pb2.LIMIT_TYPE_MESSAGE_RATE, "1000000"),
    (_INSTRUMENT, "*", limit_pb2.LIMIT_TYPE_PRICE_COLLAR, "0.6"),
    (_INSTRUMENT, "*", limit_pb2.LIMIT_TYPE_PRICE_COLLAR_PRIOR_CLOSE, "0.6"),
)

_AWAY = (OSError, asyncpg.PostgresConnectionError, asyncpg.CannotConnectNowError, asyncpg.AdminShutdownError, asyncpg.CrashShutdownError)
"""A database that is gone, or on its way back."""

_PROGRESS = """
WITH log (source, tx, position) AS (
    (SELECT 'oms', tx::text::bigint, position FROM svc_oms.event ORDER BY event.tx DESC, position DESC LIMIT 1) UNION ALL
    (SELECT 'risk', tx::text::bigint, position FROM svc_risk.event ORDER BY event.tx DESC, position DESC LIMIT 1) UNION ALL
    (SELECT 'custody', tx::text::bigint, position FROM svc_custody.event ORDER BY event.tx DESC, position DESC LIMIT 1)
), cursor AS (
    SELECT 'svc_risk' AS reader, * FROM svc_risk.projection_cursor UNION ALL
    SELECT 'svc_custody', * FROM svc_custody.projection_cursor UNION ALL
    SELECT 'svc_portfolio', * FROM svc_portfolio.projection_cursor UNION ALL
    SELECT 'svc_reporting', * FROM svc_reporting.projection_cursor
), wanted (reader, projection, source) AS (VALUES
    ('svc_risk', 'reservations', 'oms'),
    ('svc_custody', 'executions', 'oms'), ('svc_custody', 'reference-data', 'risk'),
    ('svc_portfolio', 'positions', 'oms'), ('svc_portfolio', 'reference-data', 'risk'),
    ('svc_reporting', 'reports', 'oms'), ('svc_reporting', 'reports', 'risk'), ('svc_reporting', 'reports', 'custody')
)
SELECT (SELECT count(*) FROM svc_oms.venue_request) AS unanswered,
       (SELECT count(*) FROM svc_oms.orders WHERE state = 11) AS unknown,
       (SELECT string_agg(concat_ws(' ', w.reader, w.projection, w.source), ', ')
        FROM wanted w JOIN log l USING (source) LEFT JOIN cursor c USING (reader, projection, source)
        WHERE (c.tx, c.position) IS DISTINCT FROM (l.tx, l.position)
          AND coalesce((c.tx, c.position) < (l.tx, l.position), true)) AS unread,
       (SELECT count(*) FROM svc_risk.reservation WHERE status = 1 OR (status = 2 AND pending IS NOT NULL)) AS unsettled,
       (SELECT count(*) FROM svc_custody.settlement, svc_custody.business_date d
        WHERE state = 1 OR (state IN (2, 4) AND (cycle_days = 0 OR settlement_date <= d.business_date)
                            AND (state = 2 OR retry OR attempt_date IS DISTINCT FROM d.business_date))) AS undelivered,
       (SELECT count(*) FROM svc_custody.parked_execution) AS parked
"""

_LEFT = """
SELECT u.what, u.order_id, u.number, o.state, o.version,
       (SELECT string_agg(replace(e.type, 'oms.v1.', '') || to_char(e.recorded_at, '@MI:SS.MS'), ' ' ORDER BY e.version)
        FROM svc_oms.event e WHERE e.stream_id = 'order-' || u.order_id) AS events
FROM (
    SELECT 'request' AS what, order_id, venue_client_order_id AS number FROM svc_oms.venue_request
    UNION ALL
    SELECT 'reservation', order_id::text, concat_ws(' ', status, pending::text, reserved_at)
    FROM svc_risk.reservation
    WHERE status = 1 OR (status = 2 AND pending IS NOT NULL)
) u
LEFT JOIN svc_oms.orders o USING (order_id)
LIMIT 8
"""


@dataclass(frozen=True)
class World:
    """A running mesh under test. `seed` draws everything that is drawn; `notes` are printed when the test fails."""

    mesh: LocalMesh
    seed: int
    random: random.Random
    notes: list[str] = field(default_factory=list)

    def note(self, text: str) -> None:
        """Keep a line for whoever reads a failure."""
        line = f"{time.strftime('%H:%M:%S', time.gmtime())} {text}"
        if not self.notes or self.notes[-1] != line:
            self.notes.append(line)

    def kill(self, *names: str, number: signal.Signals = signal.SIGKILL) -> dict[str, int]:
        """Send instances a signal and return the process ids that they had."""
        pids = {name: self.mesh.kill(name, number) for name in names}
        self.note(f"{number.name} to {', '.join(names)}")
        return pids

    async def restarted(self, pids: dict[str, int]) -> None:
        """Return once all of these are ready under other process ids, and the mesh is whole."""
        for name, pid in pids.items():
            await asyncio.to_thread(self.mesh.await_restart, name, pid)
        await asyncio.to_thread(self.mesh.await_ready)

    @asynccontextmanager
    async def database(self) -> AsyncIterator[asyncpg.Connection]:
        """Connect to PostgreSQL as its superuser."""
        connection = await asyncpg.connect((self.mesh.layout.private(POSTGRES) / ADDRESS_FILE).read_text().strip(), database=DATABASE)
        try:
            yield connection
        finally:
            await connection.close(timeout=5.0)

    async def sql(self, query: str, *arguments: object) -> list[asyncpg.Record]:
        """Read as the superuser."""
        async with self.database() as connection:
            return list(await connection.fetch(query, *arguments))

    async def settled(self, *, timeout_seconds: float = 60.0) -> None:
        """Return once the mesh has come to rest: nothing unsent, unanswered, unknown, unread, unconfirmed, or due and untried.

        Raises:
            TimeoutError: not in time; says what is left.
        """
        began, left, last = time.monotonic(), dict[str, object](), ""

        async def rests() -> bool:
            nonlocal last
            (row,) = await self.sql(_PROGRESS)
            left.update(row)
            last = ", ".join(f"{name} {value}" for name, value in row.items() if value) or last
            return not any(row.values())

        try:
            await self.until(rests, timeout_seconds=timeout_seconds)
        except TimeoutError:
            found = [f"\n  {dict(row)}" for row in await self.sql(_LEFT)]
            raise TimeoutError(f"the mesh did not come to rest in {timeout_seconds:g} s: {left}{''.join(found)}") from None
        self.note(f"at rest after {time.monotonic() - began:.1f} s; the last to rest: {last or 'nothing'}")

    async def until(self, condition: Callable[[], Awaitable[bool]], *, timeout_seconds: float) -> None:
        """Return once a condition holds. A database that is on its way back is no answer.

        Raises:
            TimeoutError: not in time.
        """
        async with asyncio.timeout(timeout_seconds):
            while True:
                try:
                    if await condition():
                        return
                except _AWAY as error:
                    self.note(f"the database: {type(error).__name__}")
                await asyncio.sleep(0.05)


@contextmanager
def world(mesh: LocalMesh | None = None, *, seed: int | None = None) -> Iterator[World]:
    """Start a mesh with wide limits. At the end, print the seed and what was done; on a failure, the ends of all logs too.

    `TRADEMESH_TEST_SEED` repeats a run's choices, unless a seed is given; the machine's timing stays its own.
    """
    chosen = int(os.environ.get(SEED_KEY) or secrets.randbelow(2**32)) if seed is None else seed
    with mesh or LocalMesh() as mesh:
        running = World(mesh, chosen, random.Random(chosen))
        try:
            _widen(mesh)
            yield running
        finally:
            # pytest shows it of a test that failed, and of any with -s.
            sys.stderr.write("".join(f"{line}\n" for line in (f"{SEED_KEY}={chosen}", *running.notes)))


def _widen(mesh: LocalMesh) -> None:
    """Create the accounts and set limits that bind none of them, as an operator would."""
    with mesh.operator(_OFFICER) as operator:
        seed.seed(operator, accounts=[SeedAccount(account, "Crash test") for account in ACCOUNTS])
        for scope, scope_id, kind, value in _LIMITS:
            request = risk_service_pb2.UpdateLimitRequest(
                scope=scope, scope_id=scope_id, type=kind, value=value, request_id=str(uuid.uuid4()), comment="crash test"
            )
            path = "/trademesh.risk.v1.RiskService/UpdateLimit"
            operator.call("svc_risk", path, request, risk_service_pb2.UpdateLimitResponse, repeatable=False)
