"""Database spans: inside a recorded call only, and never with parameters."""

from __future__ import annotations

import json
from pathlib import Path

from opentelemetry.trace import SpanKind

from kernel.postgres import Database
from kernel.telemetry import Telemetry, TelemetryConfig
from mesh.local.provision import ServiceDatabase


async def test_only_queries_of_a_recorded_call_leave_spans(tmp_path: Path, service_database: ServiceDatabase) -> None:
    telemetry = Telemetry(TelemetryConfig("svc-oms", "svc-oms-0", folder=tmp_path))
    telemetry.start()
    assert telemetry.tracing is not None
    tracer = telemetry.tracing._provider.get_tracer("test")
    database = await Database.open(service_database.dsn)
    try:
        await database.fetchval("SELECT 1 -- in the background")
        with tracer.start_as_current_span("call", kind=SpanKind.SERVER):
            await database.fetchval("SELECT $1::int -- in a call", 4711)
            async with database.transaction() as transaction:
                await transaction.execute("SELECT 3 -- in its transaction")
        await database.fetchval("SELECT 4 -- after it")
    finally:
        await database.close()
        await telemetry.stop()
    text = (tmp_path / "svc-oms-0.traces.jsonl").read_text()
    spans = [json.loads(line) for line in text.splitlines()]
    statements = [span["attributes"].get("db.statement", "") for span in spans if span["kind"] == "SpanKind.CLIENT"]
    assert [statement for statement in statements if "--" in statement] == [
        "SELECT $1::int -- in a call",
        "SELECT 3 -- in its transaction",
    ]
    assert "4711" not in text
    assert {span["context"]["trace_id"] for span in spans} == {spans[0]["context"]["trace_id"]}
