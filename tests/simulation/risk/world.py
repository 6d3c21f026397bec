"""Risk and a svc_oms of two replicas, event by event from a seed: answers are lost, replicas die between approval and append, requests are
sent twice, order events come late and more than once, and orphans are settled.

The decisions are risk's own (`Book`); what surrounds them is made up here. The auditor below shares no code with them.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from typing import Any

from svc_risk.domain import reservation as r
from svc_risk.domain.book import Book, Remembered
from svc_risk.domain.check import Approval, FirstAnswer, OrderCheck
from svc_risk.domain.exposure import no_exposure
from svc_risk.domain.policy import Policy
from svc_risk.domain.reference_price import PriceSource, ReferencePrice
from svc_risk.domain.vocabulary import LimitType, OrderState, Side
from tests.unit.risk.parts import ACCOUNT_LIMITS, NOW, account_policy, instrument_policy, order, trader_bounds

ACCOUNTS = ("ACC-1", "ACC-2", "ACC-3")
OPEN_MAX = Decimal(30_000)
BOUND_SECONDS = 30.0
APPEND_SECONDS_MAX = 10.0
"""A transaction of svc_oms is cut after this time; risk's bound is three times as long."""


@dataclass
class Stream:
    """An order at svc_oms: its facts in order, and where the venue has it."""

    check: OrderCheck
    facts: list[tuple[r.OrderFact, str]] = field(default_factory=list)
    filled: Decimal = Decimal(0)
    state: OrderState | None = None

    def append(self, make: Callable[[int], r.OrderFact], cause: str, state: OrderState) -> None:
        self.facts.append((make(len(self.facts) + 1), cause))
        self.state = state


class World:
    """One run. `time` is in seconds since its start."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.time = 0.0
        self.queue: list[tuple[float, int, Callable[[], None]]] = []
        self.numbers = itertools.count()
        limits = ACCOUNT_LIMITS | {
            LimitType.OPEN_EXPOSURE: str(OPEN_MAX),
            LimitType.MESSAGE_RATE: "1000000",
            LimitType.DUPLICATE_WINDOW: "0",
        }
        self.policy = Policy(
            {name: account_policy(limits, account_id=name) for name in ACCOUNTS}, {"ada": trader_bounds()}, {"AAPL": instrument_policy()}
        )
        self.accounts = {name: no_exposure(NOW) for name in ACCOUNTS}
        self.positions: dict[Any, Any] = {}
        self.reservations: dict[str, r.Reservation] = {}
        self.reserved_at: dict[str, float] = {}
        self.answers: dict[str, Remembered] = {}
        self.streams: dict[str, Stream] = {}
        self.told: dict[str, int] = {}
        self.approvals: dict[str, int] = {}
        self.opened: list[tuple[str, Decimal]] = []

    def later(self, seconds: float, work: Callable[[], None]) -> None:
        heapq.heappush(self.queue, (self.time + seconds, next(self.numbers), work))

    def soon(self, work: Callable[[], None], most: float = 1.0) -> None:
        self.later(self.chance.random() * most, work)

    def run(self, orders: int) -> None:
        """Place orders, and go on until nothing is left to happen."""
        for number in range(orders):
            self.later(self.chance.random() * 60, lambda number=number: self.place(number))  # type: ignore[misc]  # a default binds the number
        for second in range(0, 240, 5):
            self.later(float(second), self.sweep)
        while self.queue:
            self.time, _, work = heapq.heappop(self.queue)
            work()

    def book(self) -> Book:
        references = {"AAPL": ReferencePrice(Decimal(100), PriceSource.MID, True)}
        return Book(
            moment=NOW + timedelta(seconds=self.time),
            policy=self.policy,
            accounts=self.accounts,
            positions=self.positions,
            reservations=self.reservations,
            references=references,
            remembered=self.answers,
        )

    def place(self, number: int) -> None:
        side, quantity = self.chance.choice(list(Side)), self.chance.randint(1, 60)
        name = f"o-{number}"
        changes = {"order_id": name, "request_id": name, "account_id": self.chance.choice(ACCOUNTS), "duplicate_key": number}
        check = order(side, str(quantity), "100", **changes)
        # A client that heard nothing asks again, maybe at the other replica, maybe long after.
        for _ in range(self.chance.choice((1, 1, 1, 2, 3))):
            self.soon(lambda: self.ask(check), 40)

    def ask(self, check: OrderCheck) -> None:
        """One replica of svc_oms asks risk, which commits its answer; what becomes of the answer is another matter."""
        if check.order_id in self.streams:
            return
        book = self.book()
        outcome = book.check(check)
        if book.decided:
            approved = isinstance(outcome, Approval)
            self.answers[check.request_id] = Remembered(check.payload_hash, b"approved" if approved else b"refused")
            if approved:
                self.approvals[check.order_id] = self.approvals.get(check.order_id, 0) + 1
                self.reserved_at[check.order_id] = self.time
                self.opened.append((check.account_id, book.accounts[check.account_id].open_notional))
        if isinstance(outcome, Approval) or (isinstance(outcome, FirstAnswer) and outcome.answer == b"approved"):
            fate = self.chance.random()
            if fate > 0.25:
                self.soon(lambda: self.accept(check), APPEND_SECONDS_MAX if fate > 0.9 else 0.1)

    def accept(self, check: OrderCheck) -> None:
        """Append the first event, unless another replica or an abandonment was first."""
        if check.order_id in self.streams:
            return
        stream = self.streams[check.order_id] = Stream(check)
        terms = r.OrderTerms(check.order_id, check.account_id, check.instrument_id, check.side, check.quantity, check.limit_price)
        stream.append(lambda version: r.Accepted(version, terms), "oms.v1.OrderAccepted", OrderState.NEW)
        self.tell(stream)
        for _ in range(self.chance.randint(0, 4)):
            self.soon(lambda: self.report(stream), 30)

    def report(self, stream: Stream) -> None:
        """The venue says something of an order: a fill, its end, a late fill or a bust."""
        check, kind = stream.check, self.chance.random()
        ended = stream.state in (OrderState.CANCELED, OrderState.EXPIRED)
        if kind < 0.7:
            room = int(check.quantity - stream.filled)
            stream.filled += self.chance.randint(0, room)
        elif kind < 0.8:
            stream.filled = Decimal(self.chance.randint(0, int(stream.filled)))
        elif not ended and stream.state is not OrderState.FILLED:
            stream.append(r.Ended, "oms.v1.OrderCanceled", OrderState.CANCELED)
            self.tell(stream)
            return
        state = stream.state if ended and stream.state else OrderState.PARTIALLY_FILLED
        if not ended and stream.filled == check.quantity:
            state = OrderState.FILLED
        filled = stream.filled
        stream.append(lambda version: r.Executed(version, f"x-{version}", Decimal(100), filled, state), "oms.v1.ExecutionRecorded", state)
        self.tell(stream)

    def tell(self, stream: Stream) -> None:
        """Risk's projection reads on, sooner or later, from where it stands or from before."""
        self.soon(lambda: self.fold(stream), 8)
        if self.chance.random() < 0.3:
            self.soon(lambda: self.fold(stream, again=True), 50)

    def fold(self, stream: Stream, *, again: bool = False) -> None:
        name = stream.check.order_id
        start = 0 if again else self.told.get(name, 0)
        book = self.book()
        for fact, cause in stream.facts[start:]:
            book.apply(name, fact, cause)
        self.told[name] = len(stream.facts)

    def sweep(self) -> None:
        """Ask svc_oms of reservations that nobody confirmed within the bound; it gives up those that it does not know."""
        for name, reservation in list(self.reservations.items()):
            old = self.time - self.reserved_at.get(name, self.time) > BOUND_SECONDS
            if reservation.status is r.ReservationStatus.UNCONFIRMED and old:
                book = self.book()
                if name in self.streams:
                    book.confirm(name)
                else:
                    # The name is taken from now on: no accept can follow.
                    self.streams[name] = Stream(order(order_id=name))
                    self.streams[name].append(r.Ended, "oms.v1.OrderAbandoned", OrderState.ABANDONED)
                    book.apply(name, r.Ended(1), "oms.v1.OrderAbandoned")


def audit(world: World) -> None:
    """Check the rules that carry money from svc_oms's own record: nothing orphaned, nothing counted twice, no approval above the limit."""
    assert all(count == 1 for count in world.approvals.values()), "an order was reserved twice"
    assert all(open_notional <= OPEN_MAX for _, open_notional in world.opened), "an approval passed the limit"
    for account_id in ACCOUNTS:
        open_sum, position = Decimal(0), Decimal(0)
        for name, stream in world.streams.items():
            if stream.state is OrderState.ABANDONED or stream.check.account_id != account_id:
                continue
            position += stream.filled if stream.check.side is Side.BUY else -stream.filled
            if stream.state in (OrderState.NEW, OrderState.PARTIALLY_FILLED):
                open_sum += (stream.check.quantity - stream.filled) * 100
            assert world.approvals.get(name), "an order was accepted without an approval"
        assert world.accounts[account_id].open_notional == open_sum, f"{account_id}: reserved is not what is open"
        held = world.positions.get((account_id, "AAPL"))
        assert (held.position if held is not None else 0) == position, f"{account_id}: the position is not the sum of fills"
