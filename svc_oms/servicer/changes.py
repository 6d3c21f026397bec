"""Cancels and replaces, many at a time, in a lane of their own: never behind a question to risk.

A batch is one transaction: orders locked in id order, keys read, each command decided on what the earlier ones leave, events, read models
and first answers written together. A command that is refused fails alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from google.protobuf.message import Message

from kernel.errors import AbortedError, AlreadyExistsError, NotFoundError, OutcomeUnknownError, Reason, TrademeshError
from kernel.event_records import to_position
from kernel.identity import User
from kernel.ports import Clock, LogPosition
from svc_oms.codec.orders import order_message
from svc_oms.domain import Order, OrderState, decide
from svc_oms.domain.commands import RequestCancel
from svc_oms.servicer.creates import foreign_account
from svc_oms.store.keys import KnownAnswer, RequestKey, read_keys, write_keys
from svc_oms.store.orders import OrderStore, OrderUnit
from svc_oms.store.reads import OrderReads
from trademesh.oms.v1 import order_service_pb2

COMMIT_ATTEMPTS = 3


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

    def authorize(self, unit: OrderUnit) -> None:
        """Check that the caller may change the order; also before a key is answered again.

        Raises:
            NotFoundError, PermissionDeniedError: as `require_order`.
        """
        ...

    def apply(self, unit: OrderUnit, now: datetime) -> None:
        """Decide under the lock, and record.

        Raises:
            TrademeshError: refused; nothing was recorded for it.
        """
        ...

    def withdraw(self, unit: OrderUnit, error: TrademeshError) -> None:
        """Record that it will not be applied, where anybody waits to hear so. The order is locked, and its caller authorized."""
        ...

    def answer(self, unit: OrderUnit, position: LogPosition) -> Message:
        """Return the answer, once the position is known."""
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

    def authorize(self, unit: OrderUnit) -> None:
        """See `Change.authorize`."""
        require_order(unit.order(self.order_id), self.order_id, self.account_id, self.tenant)

    def apply(self, unit: OrderUnit, now: datetime) -> None:
        """See `Change.apply`."""
        unit.record(self.order_id, decide(unit.order(self.order_id), RequestCancel(self.principal, self.request_id, now)))

    def withdraw(self, unit: OrderUnit, error: TrademeshError) -> None:
        """See `Change.withdraw`; nobody waits."""

    def answer(self, unit: OrderUnit, position: LogPosition) -> Message:
        """See `Change.answer`."""
        order = unit.order(self.order_id)
        assert order is not None
        return order_service_pb2.CancelOrderResponse(order=order_message(order), log_position=to_position(position))


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

    def authorize(self, unit: OrderUnit) -> None:
        """See `Change.authorize`; whoever asked was authorised for the account."""

    def apply(self, unit: OrderUnit, now: datetime) -> None:
        """See `Change.apply`; nothing is left to do."""

    def withdraw(self, unit: OrderUnit, error: TrademeshError) -> None:
        """See `Change.withdraw`; nobody waits."""

    def answer(self, unit: OrderUnit, position: LogPosition) -> Message:
        """See `Change.answer`."""
        return order_service_pb2.CancelAllOrdersResponse(order_ids=self.order_ids, log_position=to_position(self.position))


Outcome = Changed | TrademeshError


class OrderChanges:
    """Serves batches of changes for a `Batcher`."""

    def __init__(self, store: OrderStore, reads: OrderReads, clock: Clock) -> None:
        self._store = store
        self._reads = reads
        self._clock = clock

    async def flush(self, lane: str, items: Sequence[Change]) -> Sequence[Outcome]:
        """Return what became of each change.

        Raises:
            UnavailableError, ResourceExhaustedError: nothing was persisted.
            OutcomeUnknownError: for changes whose key does not show what happened.
        """
        for attempt in range(COMMIT_ATTEMPTS):
            denied: dict[int, TrademeshError] = {}
            try:
                return await self._flush(items, denied)
            except AbortedError:
                if attempt == COMMIT_ATTEMPTS - 1:
                    raise
            except OutcomeUnknownError as error:
                return await self._read_back(items, denied, error)
        raise AssertionError("the last attempt returns or raises")

    async def known(self, key: RequestKey, command_hash: bytes, response_type: type[Message]) -> Changed | None:
        """Return the first answer of a key; None while it has none.

        Raises:
            AlreadyExistsError: IDEMPOTENCY_KEY_REUSED, the key answered another command.
        """
        found = (await read_keys(self._store.database, [key])).get(key)
        if found is None:
            return None
        outcome = _replayed(found, command_hash, response_type)
        if isinstance(outcome, TrademeshError):
            raise outcome
        return outcome

    async def _flush(self, items: Sequence[Change], denied: dict[int, TrademeshError]) -> Sequence[Outcome]:
        """Serve a batch. `denied` gets who may not even hear of a first answer, whatever becomes of the commit."""
        wanted = sorted({item.order_id for item in items if item.order_id is not None})
        existing = await self._reads.existing(wanted) if wanted else frozenset()
        outcomes: list[Outcome | None] = [None] * len(items)
        async with self._store.unit() as unit:
            await unit.lock(existing)
            keys = [item.key for item in items if item.key is not None]
            known = await read_keys(unit.transaction, keys) if keys else {}
            now = self._clock.now()
            applied: list[int] = []
            leaders: dict[RequestKey, int] = {}
            for index, item in enumerate(items):
                refused = _denied(item, unit, existing)
                if refused is not None:
                    outcomes[index] = denied[index] = refused
                    continue
                if item.key is not None and item.key in leaders:
                    reused = item.command_hash != items[leaders[item.key]].command_hash
                    if reused and item.order_id is not None:
                        item.withdraw(unit, _key_reused())
                    continue
                outcome = _apply(item, unit, now, known)
                outcomes[index] = outcome
                if outcome is None:
                    applied.append(index)
                    if item.key is not None:
                        leaders[item.key] = index
            position = await unit.flush() or LogPosition(0, 0)
            answers = {index: items[index].answer(unit, position) for index in applied}
            await self._keep(unit, items, answers)
        outcomes = [Changed(answers[index], replayed=False) if index in answers else outcome for index, outcome in enumerate(outcomes)]
        for index, item in enumerate(items):
            if outcomes[index] is None:
                assert item.key is not None, "only the second use of a key waits for the first one's answer"
                leader = leaders[item.key]
                outcomes[index] = _following(item, items[leader], answers[leader])
        return [outcome for outcome in outcomes if outcome is not None]

    async def _keep(self, unit: OrderUnit, items: Sequence[Change], answers: dict[int, Message]) -> None:
        kept = [
            (key, KnownAnswer(items[index].command_hash, answer.SerializeToString()))
            for index, answer in answers.items()
            if (key := items[index].key) is not None
        ]
        if kept:
            await write_keys(unit.transaction, kept)

    async def _read_back(
        self, items: Sequence[Change], denied: Mapping[int, TrademeshError], cause: OutcomeUnknownError
    ) -> Sequence[Outcome]:
        keys = [item.key for item in items if item.key is not None]
        try:
            known = await read_keys(self._store.database, keys)
        except TrademeshError:
            known = {}
        outcomes: list[Outcome] = []
        for index, item in enumerate(items):
            found = known.get(item.key) if item.key is not None else None
            if index in denied:
                outcomes.append(denied[index])
            elif found is None:
                outcomes.append(OutcomeUnknownError(Reason.OUTCOME_UNKNOWN, cause.message))
            else:
                outcomes.append(_replayed(found, item.command_hash, item.response_type))
        return outcomes


def _apply(item: Change, unit: OrderUnit, now: datetime, known: Mapping[RequestKey, KnownAnswer]) -> Outcome | None:
    """Record a change and return None, or return why nothing was recorded: a refusal, or the first answer of its key."""
    try:
        if item.key is not None and item.key in known:
            outcome = _replayed(known[item.key], item.command_hash, item.response_type)
            if isinstance(outcome, TrademeshError):
                item.withdraw(unit, outcome)
            return outcome
        item.apply(unit, now)
    except TrademeshError as error:
        return error
    return None


def _denied(item: Change, unit: OrderUnit, existing: frozenset[str]) -> TrademeshError | None:
    """Return why the caller of a change may not even hear of a first answer under its key; None where he may."""
    if item.order_id is not None and item.order_id not in existing:
        return no_such_order(item.order_id)
    try:
        item.authorize(unit)
    except TrademeshError as error:
        return error
    return None


def _replayed(known: KnownAnswer, command_hash: bytes, response_type: type[Message]) -> Outcome:
    if known.command_hash != command_hash:
        return _key_reused()
    return Changed(response_type.FromString(known.answer), replayed=True)


def _key_reused() -> AlreadyExistsError:
    return AlreadyExistsError(Reason.IDEMPOTENCY_KEY_REUSED, "request_id was used for another command")


def _following(item: Change, leader: Change, answer: Message) -> Outcome:
    """The answer to a change whose key came twice in one batch."""
    return _replayed(KnownAnswer(leader.command_hash, answer.SerializeToString()), item.command_hash, item.response_type)


def own_cancel(order: Order, principal: str, request_id: str) -> CancelChange:
    """Return a cancel that nobody waits for by key."""
    terms = order.terms
    return CancelChange(terms.account_id, terms.tenant, principal, order.order_id, request_id, b"", keyed=False)


def client_cancel(user: User, account_id: str, order_id: str, request_id: str, command_hash: bytes, *, keyed: bool = True) -> CancelChange:
    """Return a user's cancel of one order."""
    return CancelChange(account_id, user.tenant, user.principal, order_id, request_id, command_hash, keyed)
