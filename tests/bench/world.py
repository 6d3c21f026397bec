"""The mesh that is measured: 50 accounts whose limits never bind, and the headers that the sidecar would add."""

import asyncio
import time
import uuid
from dataclasses import dataclass

import asyncpg

from mesh.local import seed
from mesh.local.harness import LocalMesh
from mesh.local.operator import Caller
from mesh.local.postgres import DATABASE
from mesh.local.seed_data import TENANT, SeedAccount
from trademesh.risk.v1 import limit_pb2, risk_service_pb2

ACCOUNTS = tuple(f"BENCH-{number:02}" for number in range(50))
TRADER = Caller("bench", TENANT, ("trader", "viewer"), ACCOUNTS)
OFFICER = Caller("bench-officer", TENANT, ("admin", "risk-officer", "viewer"))

_ACCOUNT, _TRADER, _INSTRUMENT = limit_pb2.LIMIT_SCOPE_ACCOUNT, limit_pb2.LIMIT_SCOPE_TRADER, limit_pb2.LIMIT_SCOPE_INSTRUMENT
_WIDE = "1000000000000000"
LIMITS = (
    (_ACCOUNT, limit_pb2.LIMIT_TYPE_MAX_NOTIONAL, _WIDE),
    (_ACCOUNT, limit_pb2.LIMIT_TYPE_OPEN_EXPOSURE, _WIDE),
    (_ACCOUNT, limit_pb2.LIMIT_TYPE_GROSS_EXPOSURE, _WIDE),
    (_ACCOUNT, limit_pb2.LIMIT_TYPE_MESSAGE_RATE, "1000000"),
    (_TRADER, limit_pb2.LIMIT_TYPE_MESSAGE_RATE, "1000000"),
    (_ACCOUNT, limit_pb2.LIMIT_TYPE_DUPLICATE_WINDOW, "0.05"),
    (_INSTRUMENT, limit_pb2.LIMIT_TYPE_PRICE_COLLAR, "0.5"),
    (_INSTRUMENT, limit_pb2.LIMIT_TYPE_PRICE_COLLAR_PRIOR_CLOSE, "0.5"),
)
"""Every rule is on and checked; none of them is meant to refuse."""

INSTRUMENTS = ("AAPL:232.5:0.01", "MSFT:505:0.01", "NVDA:180:0.01", "BTC-USD:108000:0.5")
DRAIN_SECONDS_MAX = 300.0

_PROGRESS = """
WITH applied AS (SELECT coalesce(min((tx, position)), (0::bigint, 0::bigint)) AS at FROM svc_risk.projection_cursor),
told AS (SELECT coalesce(min((tx, position)), (0::bigint, 0::bigint)) AS at FROM svc_oms.relay_progress)
SELECT (SELECT count(*) FROM svc_oms.venue_request) AS unanswered,
       (SELECT count(*) FROM svc_oms.event, applied WHERE (tx::text::bigint, position) > applied.at) AS unapplied,
       (SELECT count(*) FROM svc_oms.event, told WHERE (tx::text::bigint, position) > told.at) AS untold
"""


@dataclass(frozen=True)
class Progress:
    """How far the chain is behind its own log: what remains to be sent, answered, applied and told."""

    unanswered: int
    unapplied: int
    untold: int

    def drained(self, *, bus: bool) -> bool:
        """Whether nothing is left to do; without the bus nothing is told."""
        return not (self.unanswered or self.unapplied or (bus and self.untold))


def prepare(mesh: LocalMesh) -> None:
    """Create the accounts and widen the limits through the public RPCs."""
    with mesh.operator(OFFICER) as operator:
        seed.seed(operator, accounts=[SeedAccount(account, "Benchmark") for account in ACCOUNTS])
        for scope, kind, value in LIMITS:
            request = risk_service_pb2.UpdateLimitRequest(
                scope=scope, scope_id="*", type=kind, value=value, request_id=str(uuid.uuid4()), comment="benchmark"
            )
            operator.call(
                "svc_risk", "/trademesh.risk.v1.RiskService/UpdateLimit", request, risk_service_pb2.UpdateLimitResponse, repeatable=False
            )


def headers(mesh: LocalMesh) -> dict[str, dict[str, str]]:
    """Return, by the socket of each replica of the order service, the headers that its sidecar would add to the trader's calls."""
    return {
        str(endpoint.socket): {name: value if isinstance(value, str) else value.decode() for name, value in endpoint.metadata(TRADER)}
        for endpoint in mesh.endpoints("svc_oms")
    }


def sql(mesh: LocalMesh, query: str) -> list[asyncpg.Record]:
    """Read from the database as its superuser."""

    async def fetch() -> list[asyncpg.Record]:
        connection = await asyncpg.connect((mesh.layout.private("postgres") / "address").read_text().strip(), database=DATABASE)
        try:
            return list(await connection.fetch(query))
        finally:
            await connection.close()

    return asyncio.run(fetch())


def read_progress(mesh: LocalMesh) -> Progress:
    """Ask the database how far everybody is."""
    (row,) = sql(mesh, _PROGRESS)
    return Progress(row["unanswered"], row["unapplied"], row["untold"])


def await_drained(mesh: LocalMesh) -> float:
    """Wait until every order is answered (by the venue, or refused for want of one) and risk and the bus have caught up.

    Returns:
        The seconds that it took.

    Raises:
        TimeoutError: after 300 seconds.
    """
    started = time.monotonic()
    while not (progress := read_progress(mesh)).drained(bus=mesh.options.bus):
        if time.monotonic() - started > DRAIN_SECONDS_MAX:
            raise TimeoutError(f"the chain did not drain: {progress}")
        time.sleep(0.05)
    return time.monotonic() - started
