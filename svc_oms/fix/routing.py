"""What the router does with an order, as pure decisions: send, wait, refuse, mark unknown, resend, ask the venue.

The bounds, and why:

- A request that was never persisted for sending is certainly not at the venue: a new order or replace that waited `UNSENT_SECONDS_MAX`
  is refused. A cancel waits on: giving it up would leave an order working that somebody wants dead.
- A request that was persisted for sending may be at the venue, sent or not: without an answer for `UNANSWERED_SECONDS_MAX` it is
  UNKNOWN, never rejected, and the venue is asked.
- What a venue does not know is evidence only once it has processed everything up to the order's message (`is_evidence`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import Enum
from typing import Final, NamedTuple

from kernel.errors import Reason
from kernel.fix import tags
from kernel.fix.fieldtypes import parse_timestamp
from kernel.fix.steps import StoredMessage
from svc_oms.domain import Action, Order, OrderState, unsent
from svc_oms.fix.requests import body_fields

UNSENT_SECONDS_MAX: Final = 5.0
UNANSWERED_SECONDS_MAX: Final = 10.0
STATUS_RETRY_SECONDS: Final = 10.0


class Choice(Enum):
    """What to do with a request that waits to be sent."""

    SEND = "send"
    WAIT = "wait"
    REFUSE = "refuse"
    DROP = "drop"
    """It need not be sent any more: sent already, answered, or its order is at its end."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """A choice; `reason` and `text` for `RefuseUnsent` where it is REFUSE."""

    choice: Choice
    reason: Reason | None = None
    text: str = ""


_SEND = Verdict(Choice.SEND)
_WAIT = Verdict(Choice.WAIT)
_DROP = Verdict(Choice.DROP)
_KILLED = Verdict(Choice.REFUSE, Reason.KILLED_BEFORE_SEND, "the kill switch was set before the order was sent")
_TOO_LATE = Verdict(Choice.REFUSE, Reason.NOT_SENT_IN_TIME, f"the venue could not be reached within {UNSENT_SECONDS_MAX:g} s")


class Waiting(NamedTuple):
    """A request that waits to be sent, since `since`. `venue_client_order_id` is the order's id for the order itself."""

    action: Action
    venue_client_order_id: str
    since: datetime


def judge_waiting(order: Order, waiting: Waiting, *, can_send: bool, killed: bool, now: datetime) -> Verdict:
    """Decide under the lock of the order and of the kill switch, immediately before sending. `killed`: a switch covers the order."""
    if not unsent(order, waiting.action, waiting.venue_client_order_id):
        return _DROP
    if waiting.action is Action.CANCEL:
        # A cancel of an order that was never sent ends it without the venue; one that is being sent has to follow it.
        return _SEND if can_send and order.routed else _WAIT
    if killed:
        return _KILLED
    if (now - waiting.since).total_seconds() >= UNSENT_SECONDS_MAX:
        return _TOO_LATE
    if waiting.action is Action.REPLACE and not order.routed:
        return _WAIT
    return _SEND if can_send else _WAIT


def is_overdue(sent_time: datetime, now: datetime) -> bool:
    """Whether a request that was persisted for sending at `sent_time` has gone unanswered for too long: `MarkUnknown`."""
    return (now - sent_time).total_seconds() >= UNANSWERED_SECONDS_MAX


def resend(message: StoredMessage, order: Order | None, *, killed: bool, now: datetime) -> bool:
    """Whether a stored message that the venue missed is sent again; otherwise its number is gap-filled.

    `order` is the order as it is now, None where there is none. A cancel goes again while it is open. A new order or a replace goes
    again only while it is what everybody still wants: not answered, not being cancelled, not killed, and not older than
    `UNSENT_SECONDS_MAX`; otherwise the gap makes the venue certain not to have it, and a status request resolves it. Status requests
    are asked afresh.
    """
    if order is None or order.terminal:
        return False
    fresh = not killed and (now - parse_timestamp(message.sent_time)).total_seconds() < UNSENT_SECONDS_MAX
    cancelling = any(request.action is Action.CANCEL for request in order.requests)
    if message.msg_type == tags.NEW_ORDER_SINGLE:
        return fresh and not cancelling and order.state is OrderState.PENDING_NEW
    if message.msg_type not in (tags.ORDER_CANCEL_REQUEST, tags.ORDER_CANCEL_REPLACE_REQUEST):
        return False
    request = order.request(body_fields(message)[tags.CL_ORD_ID])
    if request is None or not request.sent:
        return False
    return request.action is Action.CANCEL or (fresh and not cancelling and order.state is not OrderState.UNKNOWN)


def in_doubt(order: Order, sent_before: int) -> bool:
    """Whether only the venue can say how the order stands.

    That is so while it is UNKNOWN, and after a logon for what was sent before it (our numbers below `sent_before`) and not answered.
    """
    if not order.routed or (order.terminal and not order.reopening):
        return False
    if order.state is OrderState.UNKNOWN or (order.reopening and any(request.overdue for request in order.requests)):
        return True
    unanswered = order.state is OrderState.PENDING_NEW or any(request.sent for request in order.requests)
    return unanswered and order.message_sequence < sent_before


def is_evidence(order: Order, confirmed_sequence: int) -> bool:
    """Whether "unknown order" counts: the venue has processed our messages up to `confirmed_sequence`, the order's own included."""
    return order.routed and order.message_sequence <= confirmed_sequence


class LinkView(NamedTuple):
    """The session as the router sees it. `generation` counts logons; sequences are ours (FIX 34)."""

    generation: int
    ready: bool
    synchronised: bool
    next_sequence: int
    confirmed_sequence: int


@dataclass(frozen=True, slots=True)
class Reconciliation:
    """How far the questions of one logon have come.

    `sent_before` is our next number when the logon was first seen, `confirm_sequence` that of the TestRequest whose answer is awaited
    (0: none yet) since `confirm_asked`, `asked` when each order in doubt was last asked for.
    """

    generation: int = 0
    sent_before: int = 0
    confirm_sequence: int = 0
    confirm_asked: datetime | None = None
    mass_asked: bool = False
    asked: Mapping[str, datetime] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Questions:
    """What to ask now: a TestRequest that confirms all that was sent, a mass status, and single orders, in this order."""

    synchronise: bool = False
    mass_status: bool = False
    order_ids: tuple[str, ...] = ()


NOTHING: Final = Questions()


def reconcile(state: Reconciliation, link: LinkView, orders: Sequence[Order], now: datetime) -> tuple[Reconciliation, Questions]:
    """After each logon, and then whenever an order is in doubt: first make sure of what the venue has processed, then ask.

    Asking earlier would let the venue answer "unknown" to an order that it is about to process. `orders` are the routed orders that
    are not at their end, or at least those among them that may be in doubt. A mass status goes out once per logon where there is any
    order; each order in doubt is asked for by itself, again every `STATUS_RETRY_SECONDS` until it no longer is.
    """
    if not (link.ready and link.synchronised):
        return state, NOTHING
    if link.generation != state.generation:
        state = Reconciliation(generation=link.generation, sent_before=link.next_sequence)
    doubtful = [order for order in orders if in_doubt(order, state.sent_before)]
    mass = bool(orders) and not state.mass_asked
    if not doubtful and not mass:
        return (replace(state, asked={}) if state.asked else state), NOTHING
    needed = max([state.confirm_sequence, *(order.message_sequence for order in doubtful)])
    if not state.confirm_sequence or link.confirmed_sequence < needed:
        # A TestRequest that was lost is gap-filled, hence never answered: after a while another one asks.
        if state.confirm_sequence >= needed > 0 and not is_due(state.confirm_asked, now):
            return state, NOTHING
        return replace(state, confirm_sequence=link.next_sequence, confirm_asked=now), Questions(synchronise=True)
    due = tuple(order.order_id for order in doubtful if is_due(state.asked.get(order.order_id), now))
    if not due and not mass:
        return state, NOTHING
    kept = {order.order_id: state.asked[order.order_id] for order in doubtful if order.order_id in state.asked}
    return replace(state, mass_asked=True, asked={**kept, **dict.fromkeys(due, now)}), Questions(mass_status=mass, order_ids=due)


def is_due(asked: datetime | None, now: datetime) -> bool:
    """Whether a question is to be asked (again): never asked, or `STATUS_RETRY_SECONDS` ago."""
    return asked is None or (now - asked).total_seconds() >= STATUS_RETRY_SECONDS
