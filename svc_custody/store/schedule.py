"""What waits for its time: instructions to affirm, and instructions to settle."""

from __future__ import annotations

from datetime import date
from typing import NamedTuple

from kernel.postgres import Database

BATCH_MAX = 200

_TO_AFFIRM = """
SELECT settlement_id::text, account_id FROM settlement
WHERE state = 1 AND affirm_time <= statement_timestamp() ORDER BY affirm_time LIMIT $1
"""
_TO_SETTLE = """
SELECT settlement_id::text, account_id FROM settlement
WHERE state IN (2, 4) AND CASE cycle_days WHEN 0 THEN '-infinity'::date ELSE settlement_date END <= $1
    AND (state = 2 OR retry OR attempt_date IS NULL OR attempt_date < $1)
ORDER BY settlement_date, create_time, account_id, sequence LIMIT $2
"""
_OPEN = "SELECT state, count(*) AS count FROM settlement WHERE state IN (1, 2, 4) GROUP BY state"


class Waiting(NamedTuple):
    """An instruction that waits."""

    settlement_id: str
    account_id: str


class ScheduleStore:
    """Finds what is due; oldest first, so that what was instructed first gets what there is."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def to_affirm(self) -> list[Waiting]:
        """Return instructions whose time to be affirmed has come."""
        return [Waiting(*row) for row in await self._database.fetch(_TO_AFFIRM, BATCH_MAX)]

    async def to_settle(self, business_date: date) -> list[Waiting]:
        """Return instructions that are due and not known to fail today."""
        return [Waiting(*row) for row in await self._database.fetch(_TO_SETTLE, business_date, BATCH_MAX)]

    async def open_counts(self) -> dict[int, int]:
        """Return how many instructions stand in each state that is not an end."""
        return {row["state"]: row["count"] for row in await self._database.fetch(_OPEN)}
