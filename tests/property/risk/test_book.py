"""Whatever happens in whatever order: exposures are the sum of reservations and positions, and no approval passes a limit.

The machine is a venue and a svc_oms that make up facts, also absurd ones, and a model that adds up orders from scratch.
"""

from __future__ import annotations

import random
from datetime import timedelta
from decimal import Decimal
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule

from svc_risk.domain import events as e
from svc_risk.domain import reservation as r
from svc_risk.domain.book import Book
from svc_risk.domain.check import Approval, Invalidity, OrderCheck, Refusal
from svc_risk.domain.exposure import FLAT, marked, no_exposure
from svc_risk.domain.policy import Policy
from svc_risk.domain.reference_price import PriceSource, ReferencePrice
from svc_risk.domain.vocabulary import CheckKind, LimitType, OrderState, Side
from tests.unit.risk.parts import ACCOUNT_LIMITS, NOW, account_policy, instrument_policy, order, trader_bounds

ACCOUNTS, INSTRUMENTS = ("ACC-1", "ACC-2"), ("AAPL", "MSFT")
OPEN_MAX, GROSS_MAX = Decimal(20_000), Decimal(30_000)
PRICES = st.decimals("90.00", "110.00", places=2)
QUANTITIES = st.integers(1, 200).map(Decimal)
LIVE = [OrderState.NEW, OrderState.PARTIALLY_FILLED, OrderState.DONE_FOR_DAY, OrderState.SUSPENDED, OrderState.STOPPED, OrderState.UNKNOWN]
CHANCES = st.randoms(use_true_random=False)
STATES = st.sampled_from([*LIVE, OrderState.FILLED, OrderState.CANCELED, OrderState.EXPIRED, OrderState.REJECTED])


def policy() -> Policy:
    limits = ACCOUNT_LIMITS | {
        LimitType.OPEN_EXPOSURE: str(OPEN_MAX),
        LimitType.GROSS_EXPOSURE: str(GROSS_MAX),
        LimitType.MESSAGE_RATE: "1000000",
        LimitType.DUPLICATE_WINDOW: "0",
    }
    return Policy(
        {name: account_policy(limits, account_id=name) for name in ACCOUNTS},
        {"ada": trader_bounds()},
        {name: instrument_policy(instrument_id=name) for name in INSTRUMENTS},
    )


class Exposures(RuleBasedStateMachine):
    """Each step is a transaction: a new book over the state that the one before left."""

    orders = Bundle("orders")

    @initialize()
    def begin(self) -> None:
        self.now = NOW
        self.policy = policy()
        self.state: dict[str, Any] = {
            "accounts": {name: no_exposure(NOW) for name in ACCOUNTS},
            "positions": {},
            "reservations": {},
        }
        self.prices = {name: Decimal(100) for name in INSTRUMENTS}
        self.filled: dict[str, Decimal] = {}
        self.versions: dict[str, int] = {}
        self.replaces: dict[str, dict[str, tuple[Decimal, bool]]] = {}
        self.count = 0
        self.open_sums = dict.fromkeys(ACCOUNTS, Decimal(0))

    def book(self) -> Book:
        self.now += timedelta(milliseconds=100)
        references = {name: ReferencePrice(price, PriceSource.MID, True) for name, price in self.prices.items()}
        return Book(moment=self.now, policy=self.policy, references=references, **{name: dict(part) for name, part in self.state.items()})

    def close(self, book: Book) -> None:
        """Check what the book says of itself, and fold its events as an auditor would."""
        self.state = {"accounts": book.accounts, "positions": book.positions, "reservations": book.reservations}
        for event in book.events:
            self.open_sums[event.delta.account_id] += event.delta.notional
            assert self.open_sums[event.delta.account_id] == event.delta.open_notional
        for account_id, exposure in book.accounts.items():
            assert exposure.open_notional == self.open_sums[account_id]

    def check(self, check: OrderCheck) -> Approval | Refusal | Invalidity:
        book = self.book()
        before = self.valued(check.account_id)
        outcome = book.check(check)
        assert isinstance(outcome, Approval | Refusal | Invalidity)
        after = book.accounts[check.account_id]
        if isinstance(outcome, Approval):
            event = book.events[-1]
            assert isinstance(event, e.ExposureReserved)
            assert after.open_notional <= OPEN_MAX or event.delta.notional <= 0
            assert after.gross <= GROSS_MAX or after.gross <= before
        assert book.check(check) == outcome or isinstance(outcome, Invalidity)
        self.close(book)
        return outcome

    def valued(self, account_id: str) -> Decimal:
        """The most that the gross before a check can be: each position at its last or at the present price. A price move is no approval."""
        gross = Decimal(0)
        for (owner, instrument_id), position in self.state["positions"].items():
            if owner == account_id:
                gross += max(position.gross, marked(position, self.prices[instrument_id]).gross)
        return gross

    @rule(
        target=orders,
        account=st.sampled_from(ACCOUNTS),
        instrument=st.sampled_from(INSTRUMENTS),
        side=st.sampled_from(Side),
        quantity=QUANTITIES,
        price=st.none() | PRICES,
    )
    def place(self, account: str, instrument: str, side: Side, quantity: Decimal, price: Decimal | None) -> str:
        self.count += 1
        name = f"o-{self.count}"
        text = None if price is None else str(price)
        changes = {"order_id": name, "request_id": name, "account_id": account, "instrument_id": instrument, "duplicate_key": self.count}
        self.check(order(side, str(quantity), text, **changes))
        self.filled[name], self.versions[name] = Decimal(0), 0
        return name

    @rule(name=orders, quantity=QUANTITIES, price=PRICES)
    def ask_to_replace(self, name: str, quantity: Decimal, price: Decimal) -> None:
        self.count += 1
        held = self.state["reservations"].get(name)
        if held is not None:
            changes = {
                "order_id": name,
                "request_id": f"r-{self.count}",
                "account_id": held.account_id,
                "instrument_id": held.instrument_id,
            }
            outcome = self.check(order(held.side, str(quantity), str(price), kind=CheckKind.REPLACE, **changes))
            if isinstance(outcome, Approval):
                self.replaces.setdefault(name, {})[f"r-{self.count}"] = quantity, False

    def fact(self, name: str, make: Any) -> None:
        held = self.state["reservations"].get(name)
        if held is None or held.status is r.ReservationStatus.REFUSED:
            return
        self.versions[name] += 1
        fact = make(self.versions[name])
        book = self.book()
        book.apply(name, fact, "oms.v1.Anything")
        book.apply(name, fact, "oms.v1.Anything")
        self.filled[name] = book.reservations[name].filled
        if not book.reservations[name].live:
            self.replaces.pop(name, None)
        self.close(book)

    def answered(self, name: str) -> None:
        """The venue has answered what svc_oms had recorded."""
        replaces = self.replaces.get(name, {})
        self.replaces[name] = {request_id: terms for request_id, terms in replaces.items() if not terms[1]}

    def waiting(self, name: str, chance: random.Random, *, unheard: str = "q-0") -> str:
        """A replace that was approved and not recorded, or one that risk has not heard of."""
        approved = [request_id for request_id, (_, recorded) in self.replaces.get(name, {}).items() if not recorded]
        return chance.choice([*approved, unheard])

    @rule(name=orders)
    def accept(self, name: str) -> None:
        held = self.state["reservations"].get(name)
        if held is not None and not self.versions[name]:
            terms = r.OrderTerms(name, held.account_id, held.instrument_id, held.side, held.quantity, held.price)
            self.fact(name, lambda version: r.Accepted(version, terms))

    @rule(name=orders, filled=st.integers(0, 300).map(Decimal), state=STATES, price=PRICES)
    def execute(self, name: str, filled: Decimal, state: OrderState, price: Decimal) -> None:
        self.fact(name, lambda version: r.Executed(version, f"x-{version}", price, filled, state))

    @rule(name=orders, state=STATES)
    def change_state(self, name: str, state: OrderState) -> None:
        self.fact(name, lambda version: r.StateChanged(version, state))

    @rule(name=consumes(orders))
    def end(self, name: str) -> None:
        self.fact(name, r.Ended)

    @rule(name=orders, quantity=QUANTITIES, price=st.none() | PRICES, restated=st.booleans())
    def replace(self, name: str, quantity: Decimal, price: Decimal | None, restated: bool) -> None:
        if not restated:
            self.answered(name)
        self.fact(name, lambda version: r.Replaced(version, quantity, price, restated))

    @rule(name=orders, quantity=QUANTITIES, chance=CHANCES)
    def record_replace(self, name: str, quantity: Decimal, chance: random.Random) -> None:
        held = self.state["reservations"].get(name)
        if held is not None and held.live:
            self.count += 1
            request_id = self.waiting(name, chance, unheard=f"q-{self.count}")
            replaces = self.replaces.setdefault(name, {})
            replaces[request_id] = replaces.get(request_id, (quantity, False))[0], True
            self.fact(name, lambda version: r.ReplaceAsked(version, request_id, quantity, None))

    @rule(name=orders)
    def drop_replace(self, name: str) -> None:
        self.answered(name)
        self.fact(name, lambda version: r.ReplaceDropped(version, None))

    @rule(name=orders, chance=CHANCES)
    def reject_replace(self, name: str, chance: random.Random) -> None:
        request_id = self.waiting(name, chance)
        self.replaces.get(name, {}).pop(request_id, None)
        self.fact(name, lambda version: r.ReplaceDropped(version, request_id))

    @rule(name=orders, chance=CHANCES)
    def give_up_replace(self, name: str, chance: random.Random) -> None:
        if name in self.state["reservations"]:
            request_id = self.waiting(name, chance)
            self.replaces.get(name, {}).pop(request_id, None)
            book = self.book()
            book.drop_pending(name, request_id)
            self.close(book)

    @invariant()
    def every_replace_under_way_is_covered_and_no_other(self) -> None:
        for name, held in self.state["reservations"].items() if hasattr(self, "state") else ():
            replaces = self.replaces.get(name, {})
            assert {(terms.request_id, terms.confirmed) for terms in held.pending} == {
                (request_id, recorded) for request_id, (_, recorded) in replaces.items()
            }
            most = max([held.quantity, *(quantity for quantity, _ in replaces.values())]) - held.filled
            assert held.held.quantity == (max(most, Decimal(0)) if held.live else 0)

    @rule(instrument=st.sampled_from(INSTRUMENTS), price=PRICES, account=st.sampled_from(ACCOUNTS))
    def move_price(self, instrument: str, price: Decimal, account: str) -> None:
        self.prices[instrument] = price
        book = self.book()
        book.revalue(account)
        self.close(book)

    @invariant()
    def exposures_are_the_sum_of_orders_and_fills(self) -> None:
        if not hasattr(self, "state"):
            return
        reservations = list(self.state["reservations"].values())
        for account_id in ACCOUNTS:
            account, gross = self.state["accounts"][account_id], Decimal(0)
            assert account.reservation_count == sum(one.live for one in reservations if one.account_id == account_id)
            for instrument_id in INSTRUMENTS:
                own = [one for one in reservations if (one.account_id, one.instrument_id) == (account_id, instrument_id)]
                position = self.state["positions"].get((account_id, instrument_id), FLAT)
                for side, quantity, notional in (
                    (Side.BUY, position.buy_quantity, position.buy_notional),
                    (Side.SELL, position.sell_quantity, position.sell_notional),
                ):
                    assert quantity == sum(one.held.quantity for one in own if one.side is side)
                    assert notional == sum(one.held.notional for one in own if one.side is side)
                sign = {Side.BUY: 1, Side.SELL: -1}
                assert position.position == sum(sign[one.side] * self.filled.get(one.order_id, 0) for one in own)
                value = position.position * position.mark
                gross += max(abs(value + position.buy_notional), abs(value - position.sell_notional))
            assert account.gross == gross


Exposures.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestExposures = Exposures.TestCase
