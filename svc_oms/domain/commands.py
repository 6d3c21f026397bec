"""What may be asked of an order, and what a venue may say of it. Time and ids arrive here; the domain has neither clock nor source."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from kernel.errors import Reason
from svc_oms.domain.state import ExecutionKey, Reject, Terms
from svc_oms.domain.vocabulary import Action, OrderState, ReportKind


@dataclass(frozen=True, slots=True)
class PlaceOrder:
    """Place an order that risk has checked; `reject` is risk's refusal."""

    terms: Terms
    reject: Reject | None
    time: datetime


@dataclass(frozen=True, slots=True)
class AbandonOrder:
    """Give up an order that was never accepted, so that no late accept can follow."""

    order_id: str
    account_id: str
    time: datetime


@dataclass(frozen=True, slots=True)
class RequestCancel:
    """Ask to cancel. `request_id` is the client's key, a UUID."""

    principal: str
    request_id: str
    time: datetime


@dataclass(frozen=True, slots=True)
class RequestReplace:
    """Ask for new terms; None keeps the old. `etag` empty means any version. `reject` is risk's refusal, None its approval."""

    principal: str
    request_id: str
    quantity: Decimal | None
    limit_price: Decimal | None
    command_hash: bytes
    etag: str
    reject: Reject | None
    time: datetime


@dataclass(frozen=True, slots=True)
class RouteRequest:
    """Record that a request was persisted for the venue session as message number `message_sequence` (FIX 34)."""

    action: Action
    venue_client_order_id: str
    message_sequence: int
    time: datetime


@dataclass(frozen=True, slots=True)
class RefuseUnsent:
    """Give up a request that will not be sent: too late, or killed. `text` is for people."""

    action: Action
    venue_client_order_id: str
    reason: Reason
    text: str
    time: datetime


@dataclass(frozen=True, slots=True)
class MarkUnknown:
    """A sent request was not answered within its bound."""

    venue_client_order_id: str
    time: datetime


@dataclass(frozen=True, slots=True)
class VenueReport:
    """What a venue said of an order (FIX 4.4 ExecutionReport and OrderCancelReject), parsed and decoded, nothing judged.

    Decimals are None and texts empty where the report has no such field. `state` is the venue's OrdStatus (39).
    `cumulative_quantity` is the venue's own count; it is compared, never adopted. `raw` is the message as it came, at most 8192 bytes.
    `request_pending`: the venue has a cancel or replace that it has not decided yet (39=6, 39=E).
    """

    kind: ReportKind
    venue: str
    client_order_id: str
    original_client_order_id: str
    venue_order_id: str
    exec_id: str
    exec_ref_id: str
    trade_date: str
    transact_time: datetime
    state: OrderState | None
    quantity: Decimal | None
    limit_price: Decimal | None
    last_quantity: Decimal | None
    last_price: Decimal | None
    cumulative_quantity: Decimal | None
    venue_reason: int
    text: str
    raw: bytes
    request_pending: bool = False

    @property
    def key(self) -> ExecutionKey:
        """What makes the report once-only."""
        return ExecutionKey(self.venue, self.trade_date, self.exec_id)


@dataclass(frozen=True, slots=True)
class RecordReport:
    """Record a venue's report, whatever it says. Never refused: what fits no rule becomes an anomaly.

    `synchronised`: the venue had processed everything that was sent of this order before it said so.
    """

    report: VenueReport
    time: datetime
    synchronised: bool = False


Command = PlaceOrder | AbandonOrder | RequestCancel | RequestReplace | RouteRequest | RefuseUnsent | MarkUnknown | RecordReport
