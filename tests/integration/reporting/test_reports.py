"""Reports from the first request to the last byte, on a real PostgreSQL."""

from __future__ import annotations

import csv
import hashlib
import io
import json

from tests.integration.reporting.replica import AUDIT_TRAIL, BLOTTER, CSV, JSON, Replica, asking, positions
from tests.integration.reporting.world import BUY, trading_day
from trademesh.reporting.v1 import report_pb2


def rows_of(content: bytes) -> list[dict[str, str]]:
    """Read CSV as any reader of RFC 4180 does."""
    return list(csv.DictReader(io.StringIO(content.decode(), newline="")))


async def test_a_blotter_shows_every_execution_with_what_it_adds(one: Replica) -> None:
    await one.follow(trading_day())
    rows = rows_of(await one.make(asking(BLOTTER, CSV)))
    assert [(row["exec_id"], row["exec_type"], row["net_quantity"], row["net_amount"]) for row in rows] == [
        ("E-1", "TRADE", "4", "398"),
        ("E-2", "TRADE", "6", "598.5"),
        ("E-3", "TRADE", "-7.5", "-759.75"),
        ("E-4", "CORRECTION", "0.5", "50.58"),
        ("E-5", "CORRECTION", "-0.5", "-50.655"),
        ("E-6", "BUST", "7.5", "759.825"),
        ("E-7", "TRADE", "2", "197"),
    ]
    assert [(row["settlement_id"], row["settlement_state"], row["settlement_date"]) for row in rows[:3]] == [
        ("S-1", "SETTLED", "2026-03-03"),
        ("S-2", "INSTRUCTED", "2026-03-03"),
        ("", "", ""),
    ]
    assert {row["currency"] for row in rows} == {"USD"}
    assert [row["late"] for row in rows] == ["false"] * 6 + ["true"]


async def test_an_audit_trail_shows_every_event_of_every_order_in_log_order(one: Replica) -> None:
    world = trading_day()
    await one.follow(world)
    lines = [json.loads(line) for line in (await one.make(asking(AUDIT_TRAIL, JSON))).splitlines()]
    told = [event for event in world.oms.events if event.stream_id.startswith("order-")]
    foreign = {event.stream_id for event in told if b"foreign" in event.payload}
    assert [line["log_position"] for line in lines] == [str(event.position) for event in told if event.stream_id not in foreign]
    by_type = {line["event_type"]: line for line in lines}
    assert by_type["oms.v1.OrderRejected"]["reason"] == "MAX_NOTIONAL_EXCEEDED"
    assert by_type["oms.v1.OrderReplaced"]["state"] == "NEW"
    assert by_type["oms.v1.OrderReplaced"]["quantity"] == "20"
    assert by_type["oms.v1.OrderBlessed"]["state"] == "EXPIRED", "an unknown event changes nothing, and shows"
    assert by_type["oms.v1.OrderAbandoned"]["state"] == "ABANDONED"


async def test_the_same_positions_give_the_same_bytes_after_more_trading_after_a_restart_and_on_another_replica(
    one: Replica, other: Replica
) -> None:
    world = trading_day()
    at = await one.follow(world, batch=7)
    asked = [(kind, form) for kind in (BLOTTER, AUDIT_TRAIL) for form in (CSV, JSON)]
    before = [await one.make(asking(kind, form)) for kind, form in asked]
    world.order(BUY, "5").fill("E-50", "5", "100", state=4)
    world.instructed("S-3", "E-3", account="ACC-2")
    world.settled("S-2")
    world.instrument("AAPL", "EUR")
    later = await other.follow(world)
    assert later["oms"] > at["oms"]
    for replica in (one, other):
        pinned = [await replica.make(asking(kind, form, data_positions=positions(**at))) for kind, form in asked]
        assert pinned == before
    assert len(await other.make(asking(BLOTTER, CSV))) > len(before[0])


async def test_a_report_carries_its_digest_and_its_positions(one: Replica) -> None:
    at = await one.follow(trading_day())
    operation = await one.ask(asking(BLOTTER, CSV))
    assert not operation.done
    await one.stores.writer.write_one()
    report, content = await one.report(operation.name), await one.download(operation.name)
    assert (report.sha256, report.content_bytes, report.row_count) == (hashlib.sha256(content).hexdigest(), len(content), 7)
    assert report.parameters.data_positions == positions(**at)
    assert report.parameters.rule_version == "blotter/1"
    assert report.state == report_pb2.REPORT_STATE_COMPLETED
