"""Whatever is told in whatever order: a position is what its fills, as they count now, make of it, and money is neither made nor lost.

The model below is a venue's own list of fills with the terms in force, and a FIFO of its own; it shares no code with the domain.
"""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from typing import NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from svc_portfolio.domain.executions import Execution, Side, effective_fills, rooted
from svc_portfolio.domain.position import FLAT, Book, Fold, Position, fold
from svc_portfolio.domain.valuation import Mark, MarkSource, market_value, unrealised
from tests.unit.portfolio.make import Told, bust, correction, execution

QUANTITIES = st.integers(1, 60).map(lambda tenths: str(Decimal(tenths) / 10))
SIGNED = st.tuples(st.sampled_from(["", "-"]), QUANTITIES).map("".join)
PRICES = st.decimals("-5", "200", places=2).map(lambda price: f"{price:f}")
CHOICES = st.integers(0, 10_000)
MARKS = st.decimals("0.01", "300", places=2)


class Terms(NamedTuple):
    """A fill as the venue has it now; quantity below zero is a sale, None is busted."""

    quantity: Fraction | None
    price: Fraction


class Model:
    """What FIFO makes of fills, in fractions."""

    def __init__(self, fills: list[Terms]) -> None:
        self.lots: list[list[Fraction]] = []
        self.realised = self.cash = Fraction(0)
        for quantity, price in fills:
            if quantity is not None:
                self.cash -= quantity * price
                self._take(quantity, price)

    def _take(self, quantity: Fraction, price: Fraction) -> None:
        while quantity and self.lots and (self.lots[0][0] > 0) is not (quantity > 0):
            lot = self.lots[0]
            closed = min(abs(quantity), abs(lot[0])) * (1 if lot[0] > 0 else -1)
            self.realised += closed * (price - lot[1])
            lot[0] -= closed
            quantity += closed
            if not lot[0]:
                self.lots.pop(0)
        if quantity:
            self.lots.append([quantity, price])


class Positions(RuleBasedStateMachine):
    """A position that is told fills, busts and corrections, and is stored and opened again in between."""

    def __init__(self) -> None:
        super().__init__()
        self.told = Told()
        self.fills: list[Execution] = []
        self.latest: list[Execution] = []
        self.terms: list[Terms] = []
        self.number = 0

    def _next(self) -> int:
        self.number += 1
        return self.number

    @rule(quantity=SIGNED, price=PRICES)
    def fill(self, quantity: str, price: str) -> None:
        fill = execution(self._next(), quantity, price)
        self.fills.append(fill)
        self.latest.append(fill)
        self.terms.append(Terms(Fraction(quantity), Fraction(price)))
        self.told.tell(fill)

    @precondition(lambda self: self.fills)
    @rule(choice=CHOICES)
    def bust(self, choice: int) -> None:
        index = choice % len(self.fills)
        self.told.tell(bust(self._next(), self.latest[index]))
        self.terms[index] = self.terms[index]._replace(quantity=None)

    @precondition(lambda self: self.fills)
    @rule(choice=CHOICES, quantity=QUANTITIES, price=PRICES)
    def correct(self, choice: int, quantity: str, price: str) -> None:
        index = choice % len(self.fills)
        corrected = correction(self._next(), self.latest[index], quantity, price)
        self.latest[index] = corrected
        sign = 1 if self.fills[index].side is Side.BUY else -1
        self.terms[index] = Terms(sign * Fraction(quantity), Fraction(price))
        self.told.tell(corrected)

    @rule()
    def store_and_open(self) -> None:
        position, folded = fold(self.told.history)
        assert position == self.told.book.position
        self.told.book = Book(position, folded.open_lots, list(self.told.history))

    @invariant()
    def is_what_the_fills_make_of_it(self) -> None:
        model, position = Model(self.terms), self.told.book.position
        assert position.quantity == sum((terms.quantity for terms in self.terms if terms.quantity is not None), Fraction(0))
        assert position.quantity == sum((lot[0] for lot in model.lots), Fraction(0))
        assert position.cost == sum((lot[0] * lot[1] for lot in model.lots), Fraction(0))
        assert position.realised == model.realised
        assert position.version == len(self.told.history)
        _, folded = fold(self.told.history)
        signed = [lot.remaining if lot.side is Side.BUY else -lot.remaining for lot in folded.open_lots]
        assert [(Fraction(quantity), Fraction(lot.price)) for quantity, lot in zip(signed, folded.open_lots, strict=True)] == [
            tuple(lot) for lot in model.lots
        ]

    @invariant()
    def lots_and_matches_add_up(self) -> None:
        position, folded = fold(self.told.history)
        assert position.realised == sum(match.realised for match in folded.matches)
        for lot in folded.touched.values():
            closed = sum(match.quantity for match in folded.matches if match.lot == lot.key)
            assert lot.quantity == closed + lot.remaining
        assert len({(match.lot, match.closing) for match in folded.matches}) == len(folded.matches)

    @invariant()
    def profit_is_cash_and_value(self) -> None:
        model, position = Model(self.terms), self.told.book.position
        for price in ("0.01", "73.5", "200"):
            mark = Mark(Decimal(price), MarkSource.MID, None, stale=False)
            assert position.realised + unrealised(position, mark) == model.cash + Fraction(market_value(position, mark))


Positions.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestPositions = Positions.TestCase

FILLS = st.lists(st.tuples(SIGNED, PRICES), min_size=1, max_size=12)


def told(*executions: Execution) -> tuple[Position, Fold]:
    return fold(Told().tell(*executions).history)


def outcome(position: Position, folded: Fold) -> tuple[object, ...]:
    return position.quantity, position.cost, position.realised, folded.open_lots, folded.matches


@given(fills=FILLS, choice=CHOICES, when=CHOICES)
def test_a_busted_fill_never_happened_whenever_the_bust_comes(fills: list[tuple[str, str]], choice: int, when: int) -> None:
    executions = [execution(10 * number, *fill) for number, fill in enumerate(fills, start=1)]
    index = choice % len(executions)
    place = index + when % (len(executions) - index)
    with_bust = [*executions[: place + 1], bust(10 * (place + 1) + 5, executions[index]), *executions[place + 1 :]]
    without = executions[:index] + executions[index + 1 :]
    assert outcome(*told(*with_bust)) == outcome(*told(*without))


@given(fills=FILLS, choice=CHOICES, when=CHOICES, quantity=QUANTITIES, price=PRICES)
def test_a_corrected_fill_always_had_its_terms(fills: list[tuple[str, str]], choice: int, when: int, quantity: str, price: str) -> None:
    executions = [execution(10 * number, *fill) for number, fill in enumerate(fills, start=1)]
    index = choice % len(executions)
    place = index + when % (len(executions) - index)
    later = correction(10 * (place + 1) + 5, executions[index], quantity, price)
    corrected = [*executions[: place + 1], later, *executions[place + 1 :]]
    sign = "" if executions[index].side is Side.BUY else "-"
    from_the_beginning = [*executions]
    from_the_beginning[index] = execution(10 * (index + 1), sign + quantity, price)
    assert outcome(*told(*corrected)) == outcome(*told(*from_the_beginning))


@given(fills=FILLS, choices=st.lists(st.tuples(CHOICES, st.none() | QUANTITIES), max_size=6), cut=CHOICES)
def test_every_prefix_is_a_position_of_its_own(fills: list[tuple[str, str]], choices: list[tuple[int, str | None]], cut: int) -> None:
    executions = [execution(number, *fill) for number, fill in enumerate(fills, start=1)]
    for number, (choice, quantity) in enumerate(choices, start=len(executions) + 1):
        target = executions[choice % len(fills)]
        executions.append(bust(number, target) if quantity is None else correction(number, target, quantity, "7"))
    whole = Told().tell(*executions)
    upto = cut % len(executions) + 1
    prefix = Told().tell(*executions[:upto])
    assert whole.changes[upto - 1].after == prefix.book.position
    history = [rooted(item, {other.key: other for other in whole.history}) for item in whole.history[:upto]]
    assert sum((fill.signed_quantity for fill in effective_fills(history)), Decimal(0)) == prefix.book.position.quantity
    assert fold(())[0] == FLAT
