"""Rows of both reports, from facts alone."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal

import pytest

from kernel.errors import InvalidArgumentError
from kernel.ports import LogPosition
from svc_reporting.domain import audit_trail, blotter
from svc_reporting.domain.blotter import BlotterEntry, Settlement
from svc_reporting.domain.cells import Cell, CellKind
from svc_reporting.domain.fills import NOTHING, Fill, TradeKey
from svc_reporting.domain.orders import Execution, OrderTerms, OrderView
from svc_reporting.domain.report import DataVector, Parameters, content_type, file_name
from svc_reporting.domain.rules import RULES, rule_of
from svc_reporting.domain.vocabulary import ExecutionType, OrderState, ReportFormat, ReportKind, Side, name_of

WIDEST = Decimal("99999999999999999999.999999999999999999")
EXECUTION = Execution(
    exec_id="E-1", type=ExecutionType.TRADE, exec_ref_id="", quantity=Decimal("4"), price=Decimal("99.5"), filled_quantity=Decimal("4"),
    average_price=Decimal("99.5"), venue="XSIM", trade_date=date(2026, 3, 2), transact_time=datetime(2026, 3, 2, tzinfo=UTC), late=False,
)  # fmt: skip
TERMS = OrderTerms(order_id="o-1", client_order_id="c-1", account_id="ACC-1", instrument_id="AAPL", side=Side.SELL, venue="XSIM")
ENTRY = BlotterEntry(
    position=LogPosition(7, 3),
    record_time=datetime(2026, 3, 2, 15, tzinfo=UTC),
    order_version=3,
    execution=EXECUTION,
    trade=TradeKey("XSIM", date(2026, 3, 2), "E-1"),
    before=NOTHING,
    order=OrderView(terms=TERMS, state=OrderState.FILLED, quantity=Decimal("4"), limit_price=None, filled_quantity=Decimal("4")),
    currency="USD",
    settlement=Settlement("S-1", date(2026, 3, 3), "SETTLED"),
)


def shown(entry: BlotterEntry) -> dict[str, Cell]:
    return {column.name: cell for column, cell in zip(blotter.COLUMNS, blotter.cells(entry), strict=True)}


def test_a_sale_takes_from_position_and_cost() -> None:
    row = shown(ENTRY)
    assert (row["side"], row["gross_amount"], row["net_quantity"], row["net_amount"]) == ("SELL", "398", "-4", "-398")
    assert (row["settlement_state"], row["settlement_date"], row["log_position"]) == ("SETTLED", "2026-03-03", "7.3")


def test_a_bust_takes_back_what_counted_whatever_the_venue_says_of_it() -> None:
    execution = replace(EXECUTION, type=ExecutionType.TRADE_CANCEL, quantity=Decimal("5"))
    row = shown(replace(ENTRY, execution=execution, before=Fill(Decimal("4"), Decimal("99.5"))))
    assert (row["exec_type"], row["quantity"], row["net_quantity"], row["net_amount"]) == ("BUST", "5", "4", "398")


def test_the_widest_numbers_are_exact() -> None:
    execution = replace(EXECUTION, type=ExecutionType.TRADE_CORRECT, quantity=WIDEST, price=WIDEST)
    row = shown(replace(ENTRY, execution=execution, before=Fill(WIDEST, Decimal(1).scaleb(-18))))
    gross = Decimal(str(row["gross_amount"]))
    assert str(row["gross_amount"]).endswith("000000000000000001")
    assert len(str(row["gross_amount"])) == 77, "40 digits, a point and 36 more"
    assert gross.is_finite()


def test_numbers_that_are_newer_than_this_code_show_as_numbers() -> None:
    assert (name_of(Side, 0), name_of(Side, 1), name_of(Side, 77)) == ("", "BUY", "77")


def test_what_others_wrote_is_text_and_what_we_write_is_not() -> None:
    for columns in (blotter.COLUMNS, audit_trail.COLUMNS):
        texts = {column.name for column in columns if column.kind is CellKind.TEXT}
        assert {"client_order_id", "exec_id", "venue_order_id", "principal"} <= texts
        assert texts.isdisjoint({"net_quantity", "limit_price", "trade_date", "side"})
        assert len({column.name for column in columns}) == len(columns)


def test_the_rules_of_a_kind() -> None:
    assert rule_of(ReportKind.TRADE_BLOTTER, "").version == "blotter/1"
    assert rule_of(ReportKind.ORDER_AUDIT_TRAIL, "audit-trail/1") is RULES["audit-trail/1"]
    for kind, version in ((ReportKind.TRADE_BLOTTER, "audit-trail/1"), (ReportKind.TRADE_BLOTTER, "blotter/9")):
        with pytest.raises(InvalidArgumentError, match="rule_version"):
            rule_of(kind, version)


def test_names_and_types_of_content() -> None:
    parameters = Parameters(
        kind=ReportKind.ORDER_AUDIT_TRAIL, format=ReportFormat.JSON, rule_version="audit-trail/1", account_ids=(), span=None,
        positions=DataVector(),
    )  # fmt: skip
    assert file_name(parameters, "r-1") == "order-audit-trail-r-1.ndjson"
    assert content_type(parameters) == "application/x-ndjson"
    assert content_type(replace(parameters, format=ReportFormat.CSV)).startswith("text/csv")
