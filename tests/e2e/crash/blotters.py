"""Trade blotters, asked for while reporting dies and read once the mesh rests: every execution up to their position, each once."""

from __future__ import annotations

import asyncio
import csv
import hashlib
import io
import random
import uuid
from collections.abc import AsyncIterator

from cli import rpcs
from tests.e2e.crash.load import ACCOUNTS
from tests.e2e.crash.operations_desk import ANSWER_SECONDS_MAX, OperationsDesk
from tests.e2e.crash.order_record import OrderRecord
from trademesh.reporting.v1 import report_pb2, reporting_service_pb2

_UNDER_WAY = (report_pb2.REPORT_STATE_PENDING, report_pb2.REPORT_STATE_RUNNING)
_POLL_SECONDS = 0.2


async def ask_for_blotter(desk: OperationsDesk, source: random.Random) -> str:
    """Ask for a blotter of all accounts under one key until that is answered; return the report's id."""
    request = reporting_service_pb2.CreateReportRequest(
        request_id=str(uuid.UUID(int=source.getrandbits(128), version=4)),
        kind=report_pb2.REPORT_KIND_TRADE_BLOTTER,
        format=report_pb2.REPORT_FORMAT_CSV,
        account_ids=ACCOUNTS,
    )
    return (await desk.call(rpcs.CREATE_REPORT, request)).name.rpartition("/")[2]


async def blotters(desk: OperationsDesk, report_ids: list[str], orders: OrderRecord) -> AsyncIterator[str]:
    """Each was written, whoever died over it, and has the executions that its own position says."""
    told = sorted((item.place, order.order_id, item.exec_id) for order in orders.histories.values() for item in order.told)
    for report_id in report_ids:
        made = await _completed(desk, report_id)
        if made.state != report_pb2.REPORT_STATE_COMPLETED:
            yield f"blotter {report_id} ended as {made}"
            continue
        content = await desk.download(report_id)
        at = made.parameters.data_positions.oms
        wanted = [(order_id, exec_id) for place, order_id, exec_id in told if place <= (at.tx, at.position)]
        rows = [(row["order_id"], row["exec_id"]) for row in csv.DictReader(io.StringIO(content.decode(), newline=""))]
        if sorted(rows) != sorted(wanted):
            yield f"blotter {report_id} has {len(rows)} executions, up to {at.tx}.{at.position} there are {len(wanted)}"
        if hashlib.sha256(content).hexdigest() != made.sha256 or made.row_count != len(rows):
            yield f"blotter {report_id} is not what was reported: {made.row_count} rows, {made.content_bytes} bytes"


async def _completed(desk: OperationsDesk, report_id: str) -> report_pb2.Report:
    async with asyncio.timeout(ANSWER_SECONDS_MAX):
        while True:
            found = (await desk.call(rpcs.GET_REPORT, reporting_service_pb2.GetReportRequest(report_id=report_id))).report
            if found.state not in _UNDER_WAY:
                return found
            await asyncio.sleep(_POLL_SECONDS)
