"""Worked examples: lots first in first out, average cost, flips, busts and corrections that come late."""

from __future__ import annotations

from decimal import Decimal

from kernel.ports import LogPosition
from svc_portfolio.domain.executions import ExecutionKey, effective_fills, rooted
from svc_portfolio.domain.position import FLAT, Book, fold
from tests.unit.portfolio.make import DAY, Told, bust, correction, execution, facts


def lots(told: Told) -> list[tuple[str, str, str]]:
    """Return the open lots as (exec id, remaining, price)."""
    _, folded = fold(told.history)
    return [(lot.key.exec_id, f"{lot.remaining:f}", f"{lot.price:f}") for lot in folded.open_lots]


def test_bought_twice_and_sold_in_part() -> None:
    told = Told().tell(execution(1, "100", "10"), execution(2, "50", "13"))
    position = told.book.position
    assert facts(position.quantity, position.cost, position.average_cost) == (150, 1650, 11)
    told.tell(execution(3, "-120", "12"))
    position = told.book.position
    # FIFO: 100 x (12 - 10) + 20 x (12 - 13). The average-cost method would say 120 x (12 - 11) = 120.
    assert position.realised == 180
    assert facts(position.quantity, position.cost) == (30, 390)
    assert position.average_cost == 13, "the mean of the lots that are open, not of all that were"
    assert lots(told) == [("e2", "30", "13")]
    assert [facts(m.lot.exec_id, m.closing.exec_id, m.quantity, m.realised) for m in told.book.matches] == [
        ("e1", "e3", 100, 200),
        ("e2", "e3", 20, -20),
    ]


def test_a_short_position_earns_when_it_is_bought_back_lower() -> None:
    told = Told().tell(execution(1, "-10", "50"), execution(2, "-10", "52"), execution(3, "15", "49"))
    position = told.book.position
    assert facts(position.quantity, position.cost, position.average_cost) == (-5, -260, 52)
    assert position.realised == 10 * (50 - 49) + 5 * (52 - 49)


def test_a_fill_through_zero_closes_and_opens() -> None:
    told = Told().tell(execution(1, "10", "100"), execution(2, "-25", "104"))
    position = told.book.position
    assert facts(position.quantity, position.cost, position.realised) == (-15, -1560, 40)
    assert lots(told) == [("e2", "15", "104")]
    (lot,) = [lot for lot in told.book.lots if lot.remaining]
    assert lot.quantity == 15, "the part that opened"
    told.tell(execution(3, "15", "100"))
    assert facts(told.book.position.quantity, told.book.position.cost, told.book.position.realised) == (0, 0, 100)
    assert told.book.position.average_cost is None


def test_a_late_bust_leaves_what_would_have_been() -> None:
    busted = execution(1, "100", "10")
    told = Told().tell(busted, execution(2, "100", "12"), execution(3, "-100", "15"))
    assert told.book.position.realised == 500
    told.tell(bust(4, busted))
    position = told.book.position
    assert facts(position.quantity, position.realised, position.version) == (0, 300, 4)
    assert lots(told) == []
    change = told.changes[-1]
    assert change.restated
    assert facts(change.before.quantity, change.after.quantity, change.after.realised - change.before.realised) == (100, 0, -200)


def test_the_bust_of_an_opening_fill_can_turn_its_closing_into_an_opening() -> None:
    opened = execution(1, "10", "100")
    told = Told().tell(opened, execution(2, "-10", "110"), bust(3, opened))
    assert facts(told.book.position.quantity, told.book.position.cost, told.book.position.realised) == (-10, -1100, 0)
    assert lots(told) == [("e2", "10", "110")]


def test_a_correction_counts_at_the_fills_own_place() -> None:
    first = execution(1, "100", "10")
    told = Told().tell(first, execution(2, "100", "20"), execution(3, "-50", "30"))
    assert told.book.position.realised == 1000
    told.tell(correction(4, first, "40", "11"))
    # 40 of the corrected lot and 10 of the second one.
    assert told.book.position.realised == 40 * 19 + 10 * 10
    assert lots(told) == [("e2", "90", "20")]


def test_a_correction_of_a_correction_and_a_bust_of_it_amend_the_same_fill() -> None:
    first = execution(1, "100", "10")
    corrected = correction(2, first, "90", "10")
    again = correction(3, corrected, "80", "9")
    told = Told().tell(first, corrected, again)
    assert facts(told.book.position.quantity, told.book.position.cost) == (80, 720)
    told.tell(bust(4, again))
    assert facts(told.book.position.quantity, told.book.position.cost) == (0, 0)
    told.tell(correction(5, first, "70", "8"))
    assert facts(told.book.position.quantity, told.book.position.cost) == (70, 560), "a correction brings a busted fill back, as in svc_oms"


def test_a_reference_is_looked_for_on_its_day_then_among_the_orders_other_days() -> None:
    monday, tuesday = execution(1, "5", "1", exec_id="x"), execution(2, "6", "1", exec_id="x", trade_date="2026-03-03")
    foreign = execution(3, "7", "1", exec_id="y", order_id="order-2")
    known = {item.key: item for item in (monday, tuesday, foreign)}
    assert rooted(bust(9, monday), known).root == monday.key
    assert rooted(bust(9, foreign), known).root == ExecutionKey("XSIM", DAY, "e9"), "another order's"
    del known[monday.key]
    assert rooted(bust(9, monday), known).root == tuesday.key
    assert not effective_fills([bust(9, foreign)]), "a bust of nothing busts nothing"


def test_a_fill_that_is_told_twice_counts_once() -> None:
    fill = execution(1, "10", "5")
    assert [item.quantity for item in effective_fills([fill, fill])] == [10]


def test_amounts_are_exact() -> None:
    tiny, price = "0.000000000000000001", "12345678901.000000000000000001"
    told = Told().tell(execution(1, tiny, price), execution(2, tiny, price), execution(3, f"-{tiny}", "1"))
    assert told.book.position.cost == Decimal(tiny) * Decimal(price)
    assert told.book.position.realised == Decimal(tiny) * (1 - Decimal(price))


def test_a_book_goes_on_from_a_position_and_its_open_lots() -> None:
    told = Told().tell(execution(1, "10", "1"), execution(2, "10", "2"), execution(3, "-5", "3"))
    position, folded = fold(told.history)
    assert position == told.book.position
    book = Book(position, folded.open_lots)
    change = book.add(execution(4, "-10", "4"))
    assert facts(change.after.quantity, change.after.realised, change.after.log_position) == (5, 10 + 15 + 10, LogPosition(4, 1))
    assert [facts(lot.key.exec_id, lot.remaining) for lot in book.lots] == [("e1", 0), ("e2", 5)]
    assert not book.restated


def test_nothing_is_flat() -> None:
    assert fold(())[0] == FLAT
