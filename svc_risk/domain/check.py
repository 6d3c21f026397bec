"""Checks and their outcomes."""

from __future__ import annotations

from decimal import Decimal
from typing import NamedTuple

from kernel.errors import FieldViolation, Reason
from svc_risk.domain.exposure import Held, InstrumentExposure
from svc_risk.domain.vocabulary import CheckKind, OrderType, Side, TimeInForce


class OrderCheck(NamedTuple):
    """Asks whether an order may be sent.

    `request_id` names the request: the order id itself for a new order. `payload_hash` is SHA-256 of the normalised command.
    `quantity` is in total, also in a replace. `duplicate_key` stands for (account, instrument, side, quantity, price), 63 bits.
    """

    kind: CheckKind
    order_id: str
    request_id: str
    payload_hash: bytes
    principal: str
    tenant: str
    may_trade: bool
    account_id: str
    instrument_id: str
    side: Side
    type: OrderType
    time_in_force: TimeInForce
    quantity: Decimal
    limit_price: Decimal | None
    duplicate_key: int


class Breach(NamedTuple):
    """A rule that an order broke: whose limit, the limit and the value it would have reached as decimal text (empty: none)."""

    reason: Reason
    scope: str
    limit: str
    actual: str
    text: str


class Approval(NamedTuple):
    """The order may be sent. `held` is what it holds reserved from now on, `price` what that was reckoned with per unit, `exposure` the
    instrument's with it.
    """

    held: Held
    price: Decimal
    reference: Decimal
    venue: str
    tenant: str
    exposure: InstrumentExposure


class Refusal(NamedTuple):
    """The order broke rules: all of them, in precedence order, at least one."""

    breaches: tuple[Breach, ...]
    venue: str
    tenant: str


class Invalidity(NamedTuple):
    """The order is malformed for this account and instrument. Nothing is recorded."""

    reason: Reason
    violations: tuple[FieldViolation, ...]
    text: str


class Undecided(NamedTuple):
    """Risk cannot decide now. Nothing is recorded."""

    reason: Reason
    text: str


class FirstAnswer(NamedTuple):
    """The same request was decided before; the answer, as it was encoded then, is given again."""

    answer: bytes


Outcome = Approval | Refusal | Invalidity | Undecided | FirstAnswer
