"""What a report must say, computed from the logs alone, without the store."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

from kernel.ports import LogPosition, RecordedEvent
from svc_reporting.codec.orders import order_of, read_order_event
from svc_reporting.codec.reference import read_instrument, read_settlement
from svc_reporting.domain import audit_trail, blotter, cells
from svc_reporting.domain.audit_trail import AuditEntry
from svc_reporting.domain.blotter import BlotterEntry, Settlement
from svc_reporting.domain.fills import Fills, TradeKey
from svc_reporting.domain.orders import OrderView, evolve
from svc_reporting.domain.vocabulary import ReportFormat
from tests.integration.reporting.replica import AUDIT_TRAIL, BLOTTER
from tests.integration.reporting.world import World

ACCOUNTS = ("ACC-1", "ACC-2")


class Scene(NamedTuple):
    """A world, and where its reports are to stand."""

    world: World
    at: dict[str, LogPosition]


def prefix(events: Sequence[RecordedEvent], at: LogPosition) -> list[RecordedEvent]:
    """Return the events at or below a position."""
    return [event for event in events if event.position <= at]


def expected(scene: Scene, kind: int, report_format: ReportFormat = ReportFormat.CSV, accounts: Collection[str] = ACCOUNTS) -> bytes:
    """Return the report that follows from the logs up to the positions."""
    world, at = scene
    currencies = dict(fact for event in prefix(world.risk.events, at["risk"]) if (fact := read_instrument(event)) is not None)
    made, settlements = dict[str, tuple[TradeKey, Settlement]](), dict[TradeKey, Settlement]()
    for event in prefix(world.custody.events, at["custody"]):
        told = read_settlement(event)
        if told is not None:
            trade = told.trade or made[told.settlement_id][0]
            date = told.settlement_date or made[told.settlement_id][1].settlement_date
            made[told.settlement_id] = trade, Settlement(told.settlement_id, date, told.state)
            settlements[trade] = made[told.settlement_id][1]
    columns = blotter.COLUMNS if kind == BLOTTER else audit_trail.COLUMNS
    content = cells.head(columns, report_format)
    views, fills = dict[str, OrderView](), dict[str, Fills]()
    for event in prefix(world.oms.events, at["oms"]):
        order_id = order_of(event.stream_id)
        if order_id is None:
            continue
        facts = read_order_event(event)
        view = views[order_id] = evolve(views.get(order_id), facts)
        if view.terms.account_id not in accounts:
            continue
        if kind == AUDIT_TRAIL:
            row = audit_trail.cells(
                AuditEntry(position=event.position, record_time=event.recorded_at, version=event.version, event=facts, order=view)
            )
        elif facts.execution is not None:
            counted = fills.setdefault(order_id, Fills()).add(facts.execution)
            row = blotter.cells(
                BlotterEntry(
                    position=event.position,
                    record_time=event.recorded_at,
                    order_version=event.version,
                    execution=facts.execution,
                    trade=counted.trade,
                    before=counted.before,
                    order=view,
                    currency=currencies.get(view.terms.instrument_id, ""),
                    settlement=settlements.get(counted.trade),
                )
            )
        else:
            continue
        content += cells.row(columns, row, report_format)
    return content
