"""What may be asked of an order that exists, as `OrderChanges` serves it: cancels here, replaces beside."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from google.protobuf.message import Message

from kernel.errors import NotFoundError, Reason, TrademeshError
from kernel.event_records import to_position
from kernel.identity import User
from kernel.ports import LogPosition
from svc_oms.codec.orders import order_message
from svc_oms.domain import Order, OrderState, decide
from svc_oms.domain.commands import RequestCancel
from svc_oms.servicer.creates import foreign_account
from svc_oms.store.decisions import OrderDecisions
from svc_oms.store.keys import RequestKey
from trademesh.oms.v1 import order_service_pb2


@dataclass(frozen=True, slots=True)
class Changed:
    """A response; `replayed` when the key had been answered before."""

    response: Message
    replayed: bool


class Change(Protocol):
    """A command on one order, or on none."""

    @property
    def key(self) -> RequestKey | None:
        """The client's key; None for commands of our own."""
        ...

    @property
    def command_hash(self) -> bytes:
        """SHA-256 of the normalised command."""
        ...

    @property
    def order_id(self) -> str | None:
        """The order that it changes."""
        ...

    @property
    def response_type(self) -> type[Message]:
        """The type of its answer."""
        ...

    def authorize(self, orders: OrderDecisions) -> None:
        """Check that the caller may change the order; also before a key is answered again.

        Raises:
            NotFoundError, PermissionDeniedError: as `require_order`.
        """
        ...

    def apply(self, orders: OrderDecisions, now: datetime) -> None:
        """Decide on the order as the batch has left it so far, and record.

        Raises:
            TrademeshError: refused; nothing was recorded for it.
        """
        ...

    def withdraw(self, orders: OrderDecisions, error: TrademeshError) -> None:
        """Record that it will not be applied, where anybody waits to hear so. The order was found, and its caller authorized."""
        ...

    def answer(self, orders: OrderDecisions) -> Message:
        """Return the answer. Where it leaves out `log_position`, it gets that of the batch."""
        ...


def require_order(order: Order | None, order_id: str, account_id: str, tenant: str) -> Order:
    """Return the order if it is one of the account's.

    Raises:
        NotFoundError: ORDER_NOT_FOUND, the account has no such order.
        PermissionDeniedError: ACCOUNT_NOT_ALLOWED, the account belongs to another tenant.
    """
    if order is None or order.terms.account_id != account_id:
        raise no_such_order(order_id)
    if order.state is not OrderState.ABANDONED and order.terms.tenant != tenant:
        raise foreign_account(account_id)
    return order


def no_such_order(order_id: str) -> NotFoundError:
    """Return the refusal of an order id that the account does not have."""
    return NotFoundError(
        Reason.ORDER_NOT_FOUND, "no such order in this account", metadata={"resource_type": "order", "resource_name": order_id}
    )


@dataclass(frozen=True, slots=True)
class CancelChange:
    """A client's CancelOrder, or one of our own where `keyed` is false (CancelAllOrders, a kill switch)."""

    account_id: str
    tenant: str
    principal: str
    order_id: str
    request_id: str
    command_hash: bytes
    keyed: bool = True
    response_type: type[Message] = order_service_pb2.CancelOrderResponse

    @property
    def key(self) -> RequestKey | None:
        """See `Change.key`."""
        return (self.account_id, self.request_id) if self.keyed else None

    def authorize(self, orders: OrderDecisions) -> None:
        """See `Change.authorize`."""
        require_order(orders.order(self.order_id), self.order_id, self.account_id, self.tenant)

    def apply(self, orders: OrderDecisions, now: datetime) -> None:
        """See `Change.apply`."""
        orders.record(self.order_id, decide(orders.order(self.order_id), RequestCancel(self.principal, self.request_id, now)))

    def withdraw(self, orders: OrderDecisions, error: TrademeshError) -> None:
        """See `Change.withdraw`; nobody waits."""

    def answer(self, orders: OrderDecisions) -> Message:
        """See `Change.answer`."""
        order = orders.order(self.order_id)
        assert order is not None
        return order_service_pb2.CancelOrderResponse(order=order_message(order))


@dataclass(frozen=True, slots=True)
class CancelAllAnswer:
    """The end of a CancelAllOrders: its orders were asked for already, its answer is now the key's."""

    account_id: str
    request_id: str
    command_hash: bytes
    order_ids: tuple[str, ...]
    position: LogPosition
    order_id: str | None = None
    response_type: type[Message] = order_service_pb2.CancelAllOrdersResponse

    @property
    def key(self) -> RequestKey | None:
        """See `Change.key`."""
        return (self.account_id, self.request_id)

    def authorize(self, orders: OrderDecisions) -> None:
        """See `Change.authorize`; whoever asked was authorised for the account."""

    def apply(self, orders: OrderDecisions, now: datetime) -> None:
        """See `Change.apply`; nothing is left to do."""

    def withdraw(self, orders: OrderDecisions, error: TrademeshError) -> None:
        """See `Change.withdraw`; nobody waits."""

    def answer(self, orders: OrderDecisions) -> Message:
        """See `Change.answer`."""
        return order_service_pb2.CancelAllOrdersResponse(order_ids=self.order_ids, log_position=to_position(self.position))


def own_cancel(order: Order, principal: str, request_id: str) -> CancelChange:
    """Return a cancel that nobody waits for by key."""
    terms = order.terms
    return CancelChange(terms.account_id, terms.tenant, principal, order.order_id, request_id, b"", keyed=False)


def client_cancel(user: User, account_id: str, order_id: str, request_id: str, command_hash: bytes, *, keyed: bool = True) -> CancelChange:
    """Return a user's cancel of one order."""
    return CancelChange(account_id, user.tenant, user.principal, order_id, request_id, command_hash, keyed)
