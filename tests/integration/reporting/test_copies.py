"""How copies are looked up while their table is young: whatever the planner makes of it, what is looked for is read once, not per row."""

from __future__ import annotations

import uuid

import asyncpg
import pytest

from svc_reporting.store import orders

_FILL = """
INSERT INTO order_event (tx, position, order_id, version, account_id, type, payload, view, event_time, recorded_at, execution)
SELECT 1, n, md5((n / 3)::text)::uuid, 1 + n % 3, 'ACC-1', 'oms.v1.OrderAccepted', '', '', now(), now(), false
FROM generate_series(0, 2999) AS n
"""


@pytest.mark.parametrize("query", [orders._VERSIONS, orders._VIEWS, orders._EXECUTIONS])
async def test_a_young_table_is_not_searched_by_parsing_the_literal_for_every_row(
    query: str, sql: asyncpg.Connection[asyncpg.Record]
) -> None:
    await sql.execute(_FILL)
    wanted = "{" + ",".join(str(uuid.uuid4()) for _ in range(1_000)) + "}"
    plan = [row[0] for row in await sql.fetch(f"EXPLAIN (COSTS off) {query}", wanted)]
    assert not [line for line in plan if "Filter" in line and wanted[:30] in line], plan
