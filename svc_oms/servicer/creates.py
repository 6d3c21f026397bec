"""New orders, many at a time: one question to risk, one transaction, and then the answers."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from kernel.errors import (
    AbortedError,
    AlreadyExistsError,
    FailedPreconditionError,
    FieldViolation,
    InvalidArgumentError,
    NotFoundError,
    OutcomeUnknownError,
    PermissionDeniedError,
    Reason,
    TrademeshError,
    UnavailableError,
)
from kernel.ports import Clock, LogPosition
from kernel.server_context import current_call
from kernel.validation import check
from svc_oms.clients import RETRY_SECONDS, PreTrade
from svc_oms.codec.events import encode
from svc_oms.codec.orders import begun_order, order_message, risk_reject
from svc_oms.codec.requests import NewOrder, OrderCommand, is_plain, new_order, new_order_checks
from svc_oms.codec.scalars import reason_of, timestamp
from svc_oms.domain import Order, OrderState, abandoned, evolve, place
from svc_oms.domain.commands import PlaceOrder
from svc_oms.store.orders import Creation, FirstAnswer, OrderStore
from trademesh.oms.v1 import order_pb2
from trademesh.risk.v1 import pre_trade_service_pb2

COMMIT_ATTEMPTS = 3


class Created(NamedTuple):
    """The answer to a new order: the order as its first event left it, serialized, and where that event stands.

    `replayed` when the key had been answered before.
    """

    snapshot: bytes
    position: LogPosition
    replayed: bool

    @property
    def order(self) -> order_pb2.Order:
        """The order, parsed."""
        return order_pb2.Order.FromString(self.snapshot)


Outcome = Created | TrademeshError


class OrderEntry:
    """Serves batches of new orders for a `Batcher`.

    Also what each order could do for itself (its form, its rights, its key) is done here, in loops over the batch: code that runs once per
    call finds the processor's caches full of gRPC, and costs several times as much.
    """

    def __init__(self, store: OrderStore, risk: PreTrade, clock: Clock) -> None:
        self._store = store
        self._risk = risk
        self._clock = clock

    async def flush(self, lane: str, commands: Sequence[OrderCommand]) -> Sequence[Outcome]:
        """Return what became of each order: accepted or refused by risk, replayed, or an error with nothing persisted.

        Raises:
            UnavailableError: RISK_UNAVAILABLE, DATABASE_UNAVAILABLE; nothing of the batch was persisted.
            OutcomeUnknownError: read the keys.
        """
        # The batch runs in the context of whoever happened to start it; that one caller's deadline is not the others'.
        current_call.set(None)
        admitted = [admit(command) for command in commands]
        items = [item for item in admitted if isinstance(item, NewOrder)]
        entered = iter(await self._serve(items) if items else ())
        return [next(entered) if isinstance(item, NewOrder) else item for item in admitted]

    async def _serve(self, items: Sequence[NewOrder]) -> list[Outcome]:
        """Enter the orders, and let doubles within the batch follow the first of them."""
        leaders: dict[str, NewOrder] = {}
        for item in items:
            leaders.setdefault(item.order_id, item)
        if len(leaders) == len(items):
            return await self._enter(items)
        entered = await self._enter(list(leaders.values()))
        first = dict(zip(leaders, entered, strict=True))
        outcomes = [
            first[item.order_id] if item is leaders[item.order_id] else _following(item, leaders[item.order_id], first[item.order_id])
            for item in items
        ]
        # Another command than the first of its key: if the first was refused, the key may yet have been this one's for long.
        others = [index for index, outcome in enumerate(outcomes) if isinstance(outcome, AbortedError)]
        if others:
            found = await self._known_or([items[index] for index in others], [outcomes[index] for index in others])
            for index, outcome in zip(others, found, strict=True):
                outcomes[index] = outcome
        return outcomes

    async def _enter(self, items: Sequence[NewOrder]) -> list[Outcome]:
        """Ask risk, then record what it approved or refused.

        Nobody looks first whether a key is known: nearly none is, risk gives a known one the answer that it gave before, and recording
        finds the order that stands there. Only what risk cannot answer is looked up.
        """
        now = self._clock.now()
        try:
            results = await self._risk.check(new_order_checks(items, timestamp(now)))
        except TrademeshError as error:
            return await self._known_or(items, [copy.copy(error) for _ in items])
        outcomes: list[Outcome] = []
        decided: list[int] = []
        undecided: list[int] = []
        creations: list[Creation] = []
        for index, (item, result) in enumerate(zip(items, results, strict=True)):
            command = _verdict(item, result, now)
            if isinstance(command, TrademeshError):
                undecided.append(index)
                outcomes.append(command)
                continue
            (event,) = place(None, command)
            order = evolve(None, event)
            creations.append(Creation(order, encode(event, None), begun_order(order)))
            decided.append(index)
            outcomes.append(_NOT_YET)
        if creations:
            recorded = await self._record([items[index] for index in decided], creations)
            for index, outcome in zip(decided, recorded, strict=True):
                outcomes[index] = outcome
        if undecided:
            found = await self._known_or([items[index] for index in undecided], [outcomes[index] for index in undecided])
            for index, outcome in zip(undecided, found, strict=True):
                outcomes[index] = outcome
        return outcomes

    async def _known_or(self, items: Sequence[NewOrder], otherwise: Sequence[Outcome]) -> list[Outcome]:
        """A key that was answered gets its answer again, whatever risk says, or does not say, today; any other one the other outcome."""
        known = await self._first_answers([item.order_id for item in items])
        if isinstance(known, TrademeshError):
            # The outcome at hand says what failed first, and the key stays as it was either way.
            return list(otherwise)
        return [
            answered(item, known[item.order_id], replayed=True) if item.order_id in known else outcome
            for item, outcome in zip(items, otherwise, strict=True)
        ]

    async def _record(self, items: Sequence[NewOrder], creations: Sequence[Creation]) -> list[Outcome]:
        for attempt in range(COMMIT_ATTEMPTS):
            try:
                positions = await self._store.create(creations)
                break
            except OutcomeUnknownError as error:
                return await self._read_back(items, error)
            except AbortedError:
                if attempt == COMMIT_ATTEMPTS - 1:
                    raise
        outcomes: list[Outcome] = []
        beaten = [item.order_id for item, position in zip(items, positions, strict=True) if not isinstance(position, LogPosition)]
        # The key was answered before, or another replica or an abandonment was first: that event is the answer.
        first = await self._first_answers(beaten)
        for item, creation, position in zip(items, creations, positions, strict=True):
            if isinstance(position, LogPosition):
                outcomes.append(Created(creation.snapshot, position, replayed=False))
            elif isinstance(first, TrademeshError):
                # The others are on disk, and must not hear that nothing was persisted; of this one, something was, and cannot be read now.
                outcomes.append(_unknown(first))
            else:
                outcomes.append(answered(item, first[item.order_id], replayed=True))
        return outcomes

    async def _first_answers(self, order_ids: Sequence[str]) -> dict[str, FirstAnswer] | TrademeshError:
        try:
            return await self._store.first_answers(order_ids) if order_ids else {}
        except TrademeshError as error:
            return error

    async def _read_back(self, items: Sequence[NewOrder], cause: OutcomeUnknownError) -> list[Outcome]:
        """The commit's answer was lost: what the keys show happened; what they do not show may still."""
        known = await self._first_answers([item.order_id for item in items])
        if isinstance(known, TrademeshError):
            return [_unknown(cause) for _ in items]
        return [answered(item, known[item.order_id], replayed=False) if item.order_id in known else _unknown(cause) for item in items]


_NOT_YET = OutcomeUnknownError(Reason.OUTCOME_UNKNOWN, "the order was decided and not recorded")


def admit(command: OrderCommand) -> NewOrder | TrademeshError:
    """Return the normalised command, or why it is refused: its form (FIELD_INVALID), then the account (ACCOUNT_NOT_ALLOWED)."""
    request, user = command
    try:
        if not is_plain(request):
            check(request)
        user.require_account(request.account_id)
    except TrademeshError as error:
        return error
    return new_order(request, user)


def _unknown(cause: TrademeshError) -> OutcomeUnknownError:
    return OutcomeUnknownError(Reason.OUTCOME_UNKNOWN, cause.message)


def answered(item: NewOrder, first: FirstAnswer, *, replayed: bool) -> Outcome:
    """Return the first answer of a key to the same command, or the refusal of another one, or of another tenant's caller."""
    order: Order = first.order
    if order.state is OrderState.ABANDONED:
        return abandoned(item.order_id)
    if order.terms.tenant != item.user.tenant:
        return foreign_account(order.terms.account_id)
    if order.terms.command_hash != item.command_hash:
        return _reused(item)
    return Created(order_message(order).SerializeToString(), first.position, replayed)


def _reused(item: NewOrder) -> AlreadyExistsError:
    return AlreadyExistsError(
        Reason.IDEMPOTENCY_KEY_REUSED,
        "client_order_id was used for another command",
        metadata={"resource_type": "order", "resource_name": item.order_id},
    )


def _following(item: NewOrder, leader: NewOrder, outcome: Outcome) -> Outcome:
    """The answer to a command whose key came twice in one batch."""
    if item.user.tenant != leader.user.tenant:
        return _stale()
    if item.command_hash == leader.command_hash:
        return outcome._replace(replayed=True) if isinstance(outcome, Created) else outcome
    if isinstance(outcome, Created):
        return _reused(item)
    return _stale()


def _stale() -> AbortedError:
    return AbortedError(Reason.VERSION_STALE, "another command with this client_order_id was under way; nothing was done")


def _verdict(item: NewOrder, result: pre_trade_service_pb2.OrderCheckResult, now: datetime) -> PlaceOrder | TrademeshError:
    outcome = result.WhichOneof("outcome")
    if outcome == "approval":
        terms, reject = item.terms(result.approval.tenant, result.approval.venue), None
    elif outcome == "refusal":
        terms, reject = item.terms(result.refusal.tenant, result.refusal.venue), risk_reject(list(result.refusal.breaches))
    else:
        return refused_by_risk(result)
    if terms.tenant != item.user.tenant:
        return foreign_account(terms.account_id)
    return PlaceOrder(terms, reject, now)


def refused_by_risk(result: pre_trade_service_pb2.OrderCheckResult) -> TrademeshError:
    """Return the error behind an answer of risk that decides nothing: malformed for the instrument, or undecided."""
    if result.WhichOneof("outcome") != "invalidity":
        reason = reason_of(result.undecided.reason) if result.HasField("undecided") else Reason.RISK_UNAVAILABLE
        return UnavailableError(reason, result.undecided.text or "risk could not decide", retry_after_seconds=RETRY_SECONDS)
    invalidity = result.invalidity
    reason = reason_of(invalidity.reason)
    violations = [FieldViolation(item.field, item.reason, item.description) for item in invalidity.bad_request.field_violations]
    kind = _INVALIDITIES.get(reason, InvalidArgumentError)
    return kind(reason, invalidity.text, field_violations=violations)


def foreign_account(account_id: str) -> PermissionDeniedError:
    """Return the refusal of an account of another tenant, in the words for an unknown one (`User.require_account`)."""
    return PermissionDeniedError(
        Reason.ACCOUNT_NOT_ALLOWED,
        "the account is not one of the caller's",
        metadata={"resource_type": "account", "resource_name": account_id},
    )


_INVALIDITIES: dict[Reason, type[TrademeshError]] = {
    Reason.ACCOUNT_NOT_ALLOWED: PermissionDeniedError,
    Reason.ROLE_REQUIRED: PermissionDeniedError,
    Reason.INSTRUMENT_NOT_FOUND: NotFoundError,
    Reason.ORDER_NOT_FOUND: NotFoundError,
    Reason.ORDER_TERMINAL: FailedPreconditionError,
    Reason.ORDER_REQUEST_PENDING: FailedPreconditionError,
    Reason.IDEMPOTENCY_KEY_REUSED: AlreadyExistsError,
}
