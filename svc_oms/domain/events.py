"""What happened to an order. Mirrors `trademesh.oms.v1` events; `codec` maps one to the other."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from kernel.errors import Reason
from svc_oms.domain.state import ExecutionKey, Reject, Terms
from svc_oms.domain.vocabulary import Action, ExecutionType, OrderState


@dataclass(frozen=True, slots=True)
class OrderAccepted:
    """Risk-checked and durable. Version 1."""

    terms: Terms
    time: datetime


@dataclass(frozen=True, slots=True)
class OrderRejected:
    """Refused by risk. Version 1, terminal."""

    terms: Terms
    reject: Reject
    time: datetime


@dataclass(frozen=True, slots=True)
class OrderAbandoned:
    """Given up before acceptance. Version 1, terminal; a later accept finds the stream taken."""

    order_id: str
    account_id: str
    time: datetime


@dataclass(frozen=True, slots=True)
class OrderRouted:
    """A request was persisted for the venue session."""

    venue: str
    venue_client_order_id: str
    action: Action
    message_sequence: int
    time: datetime


@dataclass(frozen=True, slots=True)
class OrderAcknowledged:
    """The venue took the order."""

    venue_order_id: str
    exec_id: str
    trade_date: str
    transact_time: datetime
    time: datetime


@dataclass(frozen=True, slots=True)
class OrderRefused:
    """Refused after acceptance, by the venue or by the router. Terminal."""

    reject: Reject
    exec_id: str
    trade_date: str
    time: datetime


@dataclass(frozen=True, slots=True)
class Execution:
    """A fill, bust or correction, with the order's quantities after it."""

    key: ExecutionKey
    type: ExecutionType
    exec_ref_id: str
    last_quantity: Decimal
    last_price: Decimal
    filled_quantity: Decimal
    leaves_quantity: Decimal
    average_price: Decimal | None
    transact_time: datetime
    order_version: int
    late: bool


@dataclass(frozen=True, slots=True)
class ExecutionRecorded:
    """A fill, bust or correction was recorded; `state` is the order's state after it."""

    execution: Execution
    venue_order_id: str
    state: OrderState
    time: datetime


@dataclass(frozen=True, slots=True)
class CancelRequested:
    """A client asked to cancel."""

    principal: str
    request_id: str
    venue_client_order_id: str
    time: datetime


@dataclass(frozen=True, slots=True)
class CancelRefused:
    """The venue refused the cancel; `venue_reason` is FIX 102, -1 where there is none."""

    venue_client_order_id: str
    venue_reason: int
    text: str
    time: datetime


@dataclass(frozen=True, slots=True)
class OrderCanceled:
    """Canceled: on request, by the venue of its own accord, or before it was sent. Terminal."""

    exec_id: str
    trade_date: str
    unsolicited: bool
    text: str
    time: datetime


@dataclass(frozen=True, slots=True)
class ReplaceRequested:
    """A client asked for new terms and risk approved them."""

    principal: str
    request_id: str
    venue_client_order_id: str
    quantity: Decimal
    limit_price: Decimal | None
    command_hash: bytes
    time: datetime


@dataclass(frozen=True, slots=True)
class ReplaceRefused:
    """The venue refused the replace, or it could not be sent. The old terms stand."""

    venue_client_order_id: str
    venue_reason: int
    text: str
    time: datetime


@dataclass(frozen=True, slots=True)
class ReplaceRejected:
    """Risk refused the replace. The old terms stand."""

    principal: str
    request_id: str
    command_hash: bytes
    reject: Reject
    time: datetime


@dataclass(frozen=True, slots=True)
class OrderReplaced:
    """New terms are in force; `restated` where nobody here had asked."""

    exec_id: str
    trade_date: str
    quantity: Decimal
    limit_price: Decimal | None
    restated: bool
    venue_order_id: str
    time: datetime


@dataclass(frozen=True, slots=True)
class OrderStateChanged:
    """The venue moved the order without a trade: expired, done for the day, suspended, stopped, resumed or reinstated."""

    state: OrderState
    exec_id: str
    trade_date: str
    text: str
    time: datetime


@dataclass(frozen=True, slots=True)
class OrderMarkedUnknown:
    """A sent request was not answered within its bound."""

    venue_client_order_id: str
    time: datetime


@dataclass(frozen=True, slots=True)
class AnomalyRecorded:
    """The venue reported something that fits no rule. Kept whole, changes nothing."""

    text: str
    report: bytes
    time: datetime


@dataclass(frozen=True, slots=True)
class KillSwitchApplied:
    """A kill switch was set or released here. Its own stream, not an order's."""

    scope: str
    active: bool
    switch_version: int
    reason: Reason
    time: datetime


Event = (
    OrderAccepted
    | OrderRejected
    | OrderAbandoned
    | OrderRouted
    | OrderAcknowledged
    | OrderRefused
    | ExecutionRecorded
    | CancelRequested
    | CancelRefused
    | OrderCanceled
    | ReplaceRequested
    | ReplaceRefused
    | ReplaceRejected
    | OrderReplaced
    | OrderStateChanged
    | OrderMarkedUnknown
    | AnomalyRecorded
)
"""The events of an order's stream."""
