"""Staff of operations, through the edge: deposits, business dates, reports, each asked for under its key until it is answered."""

from __future__ import annotations

import asyncio
import random
import uuid
from collections.abc import Sequence
from decimal import Decimal
from types import TracebackType
from typing import Self

from cli import rpcs
from cli.access import entrance
from cli.edge import EdgeTransport
from cli.rpcs import Request, Response, Rpc
from kernel.errors import AbortedError, DeadlineExceededError, OutcomeUnknownError, ResourceExhaustedError, UnavailableError
from mesh.local.harness import LocalMesh
from mesh.local.operator import Caller
from mesh.local.seed_data import TENANT
from tests.e2e.crash.holdings_audit import CURRENCY, Deposits
from tests.e2e.crash.holdings_record import CASH, SECURITY, Asset, Deposit
from tests.e2e.crash.load import ACCOUNTS
from trademesh.custody.v1 import custody_service_pb2, ledger_pb2
from trademesh.reporting.v1 import reporting_service_pb2

OPERATIONS = Caller("crash-operations", TENANT, ("operations", "compliance", "viewer"), ACCOUNTS)
ANSWER_SECONDS_MAX = 60.0
CALL_SECONDS = 5.0
RETRY_SECONDS = 0.2

_RETRIED = (UnavailableError, OutcomeUnknownError, DeadlineExceededError, ResourceExhaustedError, AbortedError)
_TYPES = {CASH: ledger_pb2.ASSET_TYPE_CASH, SECURITY: ledger_pb2.ASSET_TYPE_SECURITY}
_AMOUNTS = {
    Asset(CASH, CURRENCY): ("1000", "2500000.5", "900000000"),
    Asset(SECURITY, "AAPL"): ("10", "25000"),
    Asset(SECURITY, "BTC-USD"): ("0.5", "300"),
}


class OperationsDesk:
    """Puts in deposits and moves the date; `deposits` and `days` are what it knows of them. An async context manager.

    Args:
        mesh: a running one.
        source: all chance comes from here.
    """

    def __init__(self, mesh: LocalMesh, source: random.Random) -> None:
        self._edge = EdgeTransport(entrance(mesh.layout, OPERATIONS, None), timeout_seconds=CALL_SECONDS)
        self._random = source
        self.deposits = Deposits()
        self.days: list[tuple[str, str]] = []
        self.retried = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._edge.close()

    def drawn(self, count: int) -> list[Deposit]:
        """Return deposits as the seed draws them: some are large enough to settle with, most are not."""
        assets = [self._random.choice(tuple(_AMOUNTS)) for _ in range(count)]
        return [Deposit(self._random.choice(ACCOUNTS), asset, Decimal(self._random.choice(_AMOUNTS[asset]))) for asset in assets]

    async def deposit(self, wanted: Sequence[Deposit]) -> None:
        """Have deposits booked, one after the other."""
        for deposit in wanted:
            key = str(uuid.UUID(int=self._random.getrandbits(128), version=4))
            self.deposits.asked[key] = deposit
            request = custody_service_pb2.CreateDepositRequest(
                account_id=deposit.account_id,
                asset_type=_TYPES[deposit.asset.type],
                asset_id=deposit.asset.asset_id,
                amount=f"{deposit.amount:f}",
                comment="crash test",
                request_id=key,
            )
            self.deposits.answers[key] = (await self.call(rpcs.CREATE_DEPOSIT, request)).deposit_id

    async def advance(self) -> None:
        """Have the sandbox's business date moved, once."""
        request = custody_service_pb2.AdvanceBusinessDateRequest(request_id=str(uuid.UUID(int=self._random.getrandbits(128), version=4)))
        moved = await self.call(rpcs.ADVANCE_BUSINESS_DATE, request)
        self.days.append((moved.previous_date, moved.business_date))

    async def download(self, report_id: str) -> bytes:
        """Return a complete report's content."""
        request = reporting_service_pb2.DownloadReportRequest(report_id=report_id)

        def read() -> bytes:
            return b"".join(part.data for part in self._edge.stream(rpcs.DOWNLOAD_REPORT, request))

        return await asyncio.to_thread(read)

    async def call(self, rpc: Rpc[Request, Response], request: Request) -> Response:
        """Call until there is an answer.

        Raises:
            TrademeshError: it is a refusal.
            TimeoutError: there is none.
        """
        async with asyncio.timeout(ANSWER_SECONDS_MAX):
            while True:
                try:
                    return (await asyncio.to_thread(self._edge.call, rpc, request)).message
                except _RETRIED:
                    self.retried += 1
                    await asyncio.sleep(RETRY_SECONDS)
