"""What reports read: rows at or below a position, page by page.

Pages go by key. A server-side cursor would need one transaction for the whole report, which no role of ours may hold open; and since rows
at or below a folded position never change, pages of different transactions fit together exactly.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta

from kernel.ports import LOG_START, LogPosition, RecordedEvent
from kernel.postgres import Database, Record
from svc_reporting.codec.orders import order_stream, read_order_event, read_view
from svc_reporting.domain.audit_trail import AuditEntry
from svc_reporting.domain.blotter import BlotterEntry, Settlement
from svc_reporting.domain.fills import Fill, TradeKey
from svc_reporting.domain.report import DateSpan, Parameters, TimeSpan

PAGE_ROWS = 250

# Account by account along its index, so that a page costs what it shows, whatever other accounts trade.
_PAGE = """
SELECT e.* FROM unnest($1::text[]) AS a (account_id) CROSS JOIN LATERAL (
    SELECT
        tx, position, order_id::text AS order_id, version, type, payload, recorded_at, view,
        trade_venue, trade_root_date, trade_exec_id, before_quantity, before_price
    FROM order_event o
    WHERE o.account_id = a.account_id AND (o.tx, o.position) > ($2, $3) AND (o.tx, o.position) <= ($4, $5) AND {selection}
    ORDER BY o.tx, o.position LIMIT $6
) e ORDER BY e.tx, e.position LIMIT $6
"""
_EXECUTIONS = _PAGE.format(
    selection="o.execution"
    " AND o.trade_date >= coalesce($7::date, '-infinity') AND o.trade_date <= coalesce($8::date, 'infinity')"
    " AND o.transact_time >= coalesce($9::timestamptz, '-infinity') AND o.transact_time < coalesce($10::timestamptz, 'infinity')"
)
_EVENTS = _PAGE.format(
    selection="o.event_time >= coalesce($7::timestamptz, '-infinity') AND o.event_time < coalesce($8::timestamptz, 'infinity')"
)
_CURRENCIES = """
SELECT DISTINCT ON (instrument_id) instrument_id, currency FROM instrument_version
WHERE instrument_id = ANY ($1::text[]) AND (tx, position) <= ($2, $3) ORDER BY instrument_id, tx DESC, position DESC
"""
_SETTLEMENTS = """
SELECT DISTINCT ON (s.venue, s.trade_date, s.exec_id) s.venue, s.trade_date, s.exec_id, s.settlement_id, s.settlement_date, s.state
FROM unnest($1::text[], $2::date[], $3::text[]) AS u (venue, trade_date, exec_id)
JOIN settlement_event s ON s.venue = u.venue AND s.trade_date = u.trade_date AND s.exec_id = u.exec_id
WHERE (s.tx, s.position) <= ($4, $5)
ORDER BY s.venue, s.trade_date, s.exec_id, s.tx DESC, s.position DESC
"""
_TENANTS = "SELECT DISTINCT account_id, tenant FROM account_version WHERE account_id = ANY ($1::text[])"


class DataStore:
    """The copies, for reading."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def tenants(self, account_ids: Iterable[str]) -> Mapping[str, str]:
        """Return the tenant of each account that is known; an account never changes hands."""
        rows = await self._database.fetch(_TENANTS, list(account_ids))
        return {row["account_id"]: row["tenant"] for row in rows}

    async def blotter(self, parameters: Parameters) -> AsyncIterator[list[BlotterEntry]]:
        """Yield the executions of a blotter in pages, in log order."""
        currencies: dict[str, str] = {}
        async for rows in self._pages(_EXECUTIONS, parameters, *_executions_between(parameters)):
            views = [read_view(row["order_id"], row["view"]) for row in rows]
            await self._learn_currencies(currencies, {view.terms.instrument_id for view in views}, parameters.positions.risk)
            settlements = await self._settlements({_trade(row) for row in rows}, parameters.positions.custody)
            page = []
            for row, view in zip(rows, views, strict=True):
                execution = read_order_event(_recorded(row)).execution
                assert execution is not None, "an execution was copied as one"
                page.append(
                    BlotterEntry(
                        position=LogPosition(row["tx"], row["position"]),
                        record_time=row["recorded_at"],
                        order_version=row["version"],
                        execution=execution,
                        trade=_trade(row),
                        before=Fill(row["before_quantity"], row["before_price"]),
                        order=view,
                        currency=currencies.get(view.terms.instrument_id, ""),
                        settlement=settlements.get(_trade(row)),
                    )
                )
            yield page

    async def audit_trail(self, parameters: Parameters) -> AsyncIterator[list[AuditEntry]]:
        """Yield the events of an audit trail in pages, in log order."""
        async for rows in self._pages(_EVENTS, parameters, *_events_between(parameters)):
            yield [
                AuditEntry(
                    position=LogPosition(row["tx"], row["position"]),
                    record_time=row["recorded_at"],
                    version=row["version"],
                    event=read_order_event(_recorded(row)),
                    order=read_view(row["order_id"], row["view"]),
                )
                for row in rows
            ]

    async def _pages(self, sql: str, parameters: Parameters, *bounds: object) -> AsyncIterator[list[Record]]:
        after, last = LOG_START, parameters.positions.oms
        while True:
            rows = await self._database.fetch(
                sql, list(parameters.account_ids), after.tx, after.position, last.tx, last.position, PAGE_ROWS, *bounds
            )
            if rows:
                yield rows
            if len(rows) < PAGE_ROWS:
                return
            after = LogPosition(rows[-1]["tx"], rows[-1]["position"])

    async def _learn_currencies(self, known: dict[str, str], wanted: set[str], at: LogPosition) -> None:
        missing = list(wanted - known.keys())
        if missing:
            # An instrument that is unknown at the position stays so for the whole report.
            known.update(dict.fromkeys(missing, ""))
            rows = await self._database.fetch(_CURRENCIES, missing, at.tx, at.position)
            known.update({row["instrument_id"]: row["currency"] for row in rows})

    async def _settlements(self, trades: set[TradeKey], at: LogPosition) -> dict[TradeKey, Settlement]:
        if at == LOG_START:
            return {}
        columns: Sequence[list[object]] = [list(column) for column in zip(*trades, strict=True)]
        rows = await self._database.fetch(_SETTLEMENTS, *columns, at.tx, at.position)
        return {TradeKey(*row[:3]): Settlement(*row[3:]) for row in (tuple(row) for row in rows)}


def _trade(row: Record) -> TradeKey:
    return TradeKey(row["trade_venue"], row["trade_root_date"], row["trade_exec_id"])


def _recorded(row: Record) -> RecordedEvent:
    position = LogPosition(row["tx"], row["position"])
    return RecordedEvent(position, order_stream(row["order_id"]), row["version"], row["type"], row["payload"], b"", row["recorded_at"])


def _executions_between(parameters: Parameters) -> tuple[object, ...]:
    span = parameters.span
    if isinstance(span, DateSpan):
        return span.start, span.end, None, None
    return (None, None, None, None) if span is None else (None, None, span.start, span.end)


def _events_between(parameters: Parameters) -> tuple[object, ...]:
    span = parameters.span
    if isinstance(span, TimeSpan):
        return span.start, span.end
    if span is None:
        return None, None
    return _midnight(span.start), None if span.end is None or span.end == date.max else _midnight(span.end + timedelta(days=1))


def _midnight(day: date | None) -> datetime | None:
    return None if day is None else datetime.combine(day, time(), UTC)
