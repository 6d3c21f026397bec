"""What busts and corrections amend."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal

from svc_reporting.domain.fills import NOTHING, Counted, Fill, Fills, TradeKey
from svc_reporting.domain.orders import Execution
from svc_reporting.domain.vocabulary import ExecutionType as T

MONDAY, TUESDAY = date(2026, 3, 2), date(2026, 3, 3)


def execution(exec_id: str, kind: T, ref: str = "", quantity: str = "10", price: str = "5", day: date = MONDAY) -> Execution:
    return Execution(
        exec_id=exec_id, type=kind, exec_ref_id=ref, quantity=Decimal(quantity), price=Decimal(price), filled_quantity=Decimal(0),
        average_price=None, venue="XSIM", trade_date=day, transact_time=datetime(2026, 3, 2, tzinfo=UTC), late=False,
    )  # fmt: skip


def fill(quantity: str, price: str) -> Fill:
    return Fill(Decimal(quantity), Decimal(price))


def test_a_fill_amends_nothing() -> None:
    assert Fills().add(execution("E-1", T.TRADE)) == Counted(TradeKey("XSIM", MONDAY, "E-1"), NOTHING)


def test_a_correction_of_a_correction_amends_what_counts_and_belongs_to_the_first_fill() -> None:
    fills, trade = Fills([execution("E-1", T.TRADE)]), TradeKey("XSIM", MONDAY, "E-1")
    assert fills.add(execution("E-2", T.TRADE_CORRECT, "E-1", "8", "6")) == Counted(trade, fill("10", "5"))
    assert fills.add(execution("E-3", T.TRADE_CORRECT, "E-2", "9", "6")) == Counted(trade, fill("8", "6"))
    assert fills.add(execution("E-4", T.TRADE_CANCEL, "E-3", "9", "6")) == Counted(trade, fill("9", "6"))
    assert fills.add(execution("E-5", T.TRADE_CORRECT, "E-1", "1", "6")) == Counted(trade, fill("0", "6"))


def test_a_bust_on_another_day_finds_the_only_fill_of_that_id() -> None:
    fills = Fills([execution("E-1", T.TRADE)])
    assert fills.add(execution("E-2", T.TRADE_CANCEL, "E-1", day=TUESDAY)).trade == TradeKey("XSIM", MONDAY, "E-1")


def test_the_same_day_is_tried_first_and_two_other_days_name_none() -> None:
    fills = Fills([execution("E-1", T.TRADE), execution("E-1", T.TRADE, day=TUESDAY)])
    assert fills.add(execution("E-2", T.TRADE_CANCEL, "E-1", day=TUESDAY)).trade.trade_date == TUESDAY
    wednesday = date(2026, 3, 4)
    assert fills.add(execution("E-3", T.TRADE_CANCEL, "E-1", day=wednesday)) == Counted(TradeKey("XSIM", wednesday, "E-3"), NOTHING)
