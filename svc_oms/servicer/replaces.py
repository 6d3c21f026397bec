"""A replace once risk was asked: recorded, or recorded as refused, so that risk releases at once what it holds for it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from google.protobuf.message import Message

from kernel.errors import AbortedError, FailedPreconditionError, Reason, TrademeshError, UnavailableError
from svc_oms.codec.orders import order_message, reject_message, reject_of
from svc_oms.domain import OrderState, Reject, decide, rejected
from svc_oms.domain.commands import RequestReplace
from svc_oms.servicer.changes import require_order
from svc_oms.store.decisions import OrderDecisions
from svc_oms.store.keys import RequestKey
from trademesh.oms.v1 import order_service_pb2

APPROVAL_AGE_MAX = timedelta(seconds=10)
"""A replace that risk was asked about longer ago is not recorded: after 30 seconds without a sign of it risk gives it up. A transaction may
take 10 more, and 10 are to spare."""

_REFUSALS = frozenset(
    {
        Reason.ORDER_TERMINAL,
        Reason.ORDER_ABANDONED,
        Reason.ORDER_STATE_UNKNOWN,
        Reason.ORDER_REQUEST_PENDING,
        Reason.REPLACE_INVALID,
    }
)
"""Why an order refuses a replace, beside a stale version; risk has other reasons."""


@dataclass(slots=True)
class ReplaceChange:
    """A client's ReplaceOrder that risk has approved or refused.

    Risk holds what it has approved until it reads what became of it: a request, a refusal, or the order's end. Where the order refuses the
    replace after all, because it has changed since risk was asked, that is therefore recorded. The refusal is also the key's answer, so
    that nobody can record later what risk has released.
    `refusal_of` tells it from an answer. `reject` is risk's refusal or the order's, once it was applied.
    """

    account_id: str
    tenant: str
    order_id: str
    command: RequestReplace
    response_type: type[Message] = order_service_pb2.ReplaceOrderResponse
    reject: Reject | None = field(default=None, init=False)

    @property
    def key(self) -> RequestKey | None:
        """See `Change.key`."""
        return (self.account_id, self.command.request_id)

    @property
    def command_hash(self) -> bytes:
        """See `Change.command_hash`."""
        return self.command.command_hash

    def authorize(self, orders: OrderDecisions) -> None:
        """See `Change.authorize`."""
        require_order(orders.order(self.order_id), self.order_id, self.account_id, self.tenant)

    def apply(self, orders: OrderDecisions, now: datetime) -> None:
        """See `Change.apply`."""
        if now - self.command.time > APPROVAL_AGE_MAX:
            raise UnavailableError(Reason.RISK_UNAVAILABLE, "risk was asked too long ago", retry_after_seconds=0.0)
        self.reject = self.command.reject
        try:
            events = decide(orders.order(self.order_id), self.command)
        except TrademeshError as error:
            if self.reject is not None:
                raise
            self.withdraw(orders, error)
        else:
            orders.record(self.order_id, events)

    def withdraw(self, orders: OrderDecisions, error: TrademeshError) -> None:
        """See `Change.withdraw`."""
        order = orders.order(self.order_id)
        assert order is not None
        if self.command.reject is not None:
            return
        self.reject = Reject(error.reason, error.message)
        if not order.terminal or order.state is OrderState.FILLED:
            # Any other end has released all that risk held for the order, and nothing is said of it afterwards.
            orders.record(self.order_id, rejected(self.command, self.reject))

    def answer(self, orders: OrderDecisions) -> Message:
        """See `Change.answer`."""
        order, reject = orders.order(self.order_id), self.reject
        assert order is not None
        return order_service_pb2.ReplaceOrderResponse(
            order=order_message(order),
            reject=None if reject is None else reject_message(reject),
        )


def refusal_of(response: Message) -> TrademeshError | None:
    """Return the order's refusal that a replace's answer keeps; None for an answer, which risk's refusal is."""
    assert isinstance(response, order_service_pb2.ReplaceOrderResponse)
    if not response.HasField("reject"):
        return None
    reject, metadata = reject_of(response.reject), {"resource_type": "order", "resource_name": response.order.order_id}
    if reject.reason is Reason.VERSION_STALE:
        return AbortedError(reject.reason, reject.text, metadata=metadata | {"actual_version": response.order.etag})
    return FailedPreconditionError(reject.reason, reject.text, metadata=metadata) if reject.reason in _REFUSALS else None
