"""Checks, decided and recorded in one transaction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from kernel.errors import AbortedError, AlreadyExistsError, Reason, UnavailableError
from kernel.ports import LogPosition
from kernel.postgres import Database
from svc_risk.codec.checks import ResultWriter
from svc_risk.domain.check import OrderCheck
from svc_risk.domain.vocabulary import CheckKind
from svc_risk.store.ledger import Ledger, Wanted
from trademesh.risk.v1 import pre_trade_service_pb2

ATTEMPTS_MAX = 3
RETRY_SECONDS = 0.05


class Answer(NamedTuple):
    """The answer to one check, encoded, and the log position that shows it; None where nothing was recorded now."""

    encoded: bytes
    position: LogPosition | None

    @property
    def result(self) -> pre_trade_service_pb2.OrderCheckResult:
        """Return the answer as a message."""
        return pre_trade_service_pb2.OrderCheckResult.FromString(self.encoded)


class CheckStore:
    """Decides batches of checks on durable state."""

    def __init__(self, database: Database, ledger: Ledger) -> None:
        self._database = database
        self._ledger = ledger

    async def decide(self, checks: Sequence[OrderCheck]) -> list[Answer]:
        """Decide checks in their order and record the answers, all in one transaction.

        Raises:
            UnavailableError: nothing was recorded.
            OutcomeUnknownError: the commit's fate could not be read back; asking again gives the recorded answers, if there are any.
        """
        for _ in range(ATTEMPTS_MAX):
            try:
                return await self._decide(checks)
            except (AbortedError, AlreadyExistsError):
                # Somebody else decided the same request, or PostgreSQL chose us to yield: what they left decides now.
                continue
        raise UnavailableError(
            Reason.DATABASE_UNAVAILABLE, f"gave way {ATTEMPTS_MAX} times to other transactions", retry_after_seconds=RETRY_SECONDS
        )

    async def _decide(self, checks: Sequence[OrderCheck]) -> list[Answer]:
        async with self._database.transaction() as transaction:
            book = await self._ledger.open(transaction, _wanted(checks))
            write, results = ResultWriter().write, list[bytes]()
            recorded: list[bytes] = []
            for check in checks:
                result = write(check.request_id, book.check(check))
                results.append(result)
                if len(book.decided) > len(recorded):
                    recorded.append(result)
            position = await self._ledger.write(transaction, book, recorded)
        return [Answer(result, position) for result in results]


def _wanted(checks: Sequence[OrderCheck]) -> Wanted:
    new = [check for check in checks if check.kind is CheckKind.NEW]
    return Wanted(
        accounts={check.account_id for check in checks},
        traders={check.principal for check in checks},
        positions={(check.account_id, check.instrument_id) for check in checks},
        orders={check.order_id for check in checks},
        replaces=[check.request_id for check in checks if check.kind is CheckKind.REPLACE],
        duplicates={check.duplicate_key for check in new},
        instruments={check.instrument_id for check in checks},
    )
