"""Cancels and replaces, many at a time, in a lane of their own: never behind a question to risk.

Orders and keys are looked at, each command is decided on what the earlier ones of the batch leave, and events, read models and first
answers are written by one statement, which holds only if all is still as it was looked at. A batch that lost that race is decided again
under locks, in one transaction. A command that is refused fails alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast

from google.protobuf.message import Message

from kernel.errors import AbortedError, AlreadyExistsError, OutcomeUnknownError, Reason, TrademeshError
from kernel.event_records import to_position
from kernel.ports import LOG_START, Clock, LogPosition
from svc_oms.servicer.changes import Change, Changed, no_such_order
from svc_oms.store.decisions import OrderDecisions
from svc_oms.store.keys import KnownAnswer, RequestKey, read_keys, write_keys
from svc_oms.store.orders import OrderStore
from svc_oms.store.reads import OrderReads

COMMIT_ATTEMPTS = 3
"""Transactions under locks, after which a batch gives up."""

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
        ways = [self._locked] * COMMIT_ATTEMPTS
        if all(item.key is not None and item.order_id is not None for item in items):
            # What has no key cannot be read back by it, and a transaction's fate can be asked for.
            ways.insert(0, self._looked_at)
        for attempt, serve in enumerate(ways, start=1):
            denied: dict[int, TrademeshError] = {}
            try:
                return await serve(items, denied)
            except AbortedError:
                if attempt == len(ways):
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

    async def _looked_at(self, items: Sequence[Change], denied: dict[int, TrademeshError]) -> Sequence[Outcome]:
        """Serve a batch in two round trips: look and decide, then record. `denied` as for `_locked`.

        Raises:
            AbortedError: an order or a key has changed since it was looked at; nothing was persisted.
        """
        orders, known = await self._store.look(_order_ids(items), _keys(items))
        batch = _decided(items, orders, known, self._clock.now(), denied)
        return batch.told(await self._store.change(orders, batch.answered()))

    async def _locked(self, items: Sequence[Change], denied: dict[int, TrademeshError]) -> Sequence[Outcome]:
        """Serve a batch under locks. `denied` gets who may not even hear of a first answer, whatever becomes of the commit."""
        wanted, keys = _order_ids(items), _keys(items)
        existing = await self._reads.existing(wanted) if wanted else frozenset()
        async with self._store.unit() as unit:
            await unit.lock(existing)
            known = await read_keys(unit.transaction, keys) if keys else {}
            batch = _decided(items, unit, known, self._clock.now(), denied)
            position = await unit.flush() or LOG_START
            answers = batch.answered(position)
            if answers:
                await write_keys(unit.transaction, answers)
        return batch.told(position)

    async def _read_back(
        self, items: Sequence[Change], denied: Mapping[int, TrademeshError], cause: OutcomeUnknownError
    ) -> Sequence[Outcome]:
        try:
            known = await read_keys(self._store.database, _keys(items))
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


@dataclass(frozen=True, slots=True)
class _Batch:
    """What was decided on a batch.

    `outcomes` has None for what was applied, whose answer is in `answers`, and for the second use of a key, whose first one is its leader.
    """

    items: Sequence[Change]
    outcomes: Sequence[Outcome | None]
    answers: Mapping[int, Message]
    leaders: Mapping[RequestKey, int]

    def answered(self, position: LogPosition | None = None) -> list[tuple[RequestKey, KnownAnswer]]:
        """Return the keys that have their first answer now, with the batch's position where it is known and the answer names none."""
        return [
            (key, KnownAnswer(self.items[index].command_hash, answer.SerializeToString(), None if _is_placed(answer) else position))
            for index, answer in self.answers.items()
            if (key := self.items[index].key) is not None
        ]

    def told(self, position: LogPosition) -> list[Outcome]:
        """Return what each caller hears, once the batch is recorded."""
        answers = {index: _placed(answer, position) for index, answer in self.answers.items()}
        outcomes: list[Outcome] = []
        for index, (item, outcome) in enumerate(zip(self.items, self.outcomes, strict=True)):
            if outcome is not None:
                outcomes.append(outcome)
            elif index in answers:
                outcomes.append(Changed(answers[index], replayed=False))
            else:
                assert item.key is not None, "only the second use of a key waits for the first one's answer"
                leader = self.leaders[item.key]
                first = KnownAnswer(self.items[leader].command_hash, answers[leader].SerializeToString())
                outcomes.append(_replayed(first, item.command_hash, item.response_type))
        return outcomes


def _order_ids(items: Sequence[Change]) -> list[str]:
    return sorted({item.order_id for item in items if item.order_id is not None})


def _keys(items: Sequence[Change]) -> list[RequestKey]:
    return [item.key for item in items if item.key is not None]


def _decided(
    items: Sequence[Change],
    orders: OrderDecisions,
    known: Mapping[RequestKey, KnownAnswer],
    now: datetime,
    denied: dict[int, TrademeshError],
) -> _Batch:
    outcomes: list[Outcome | None] = [None] * len(items)
    applied: list[int] = []
    leaders: dict[RequestKey, int] = {}
    for index, item in enumerate(items):
        refused = _denied(item, orders)
        if refused is not None:
            outcomes[index] = denied[index] = refused
            continue
        if item.key is not None and item.key in leaders:
            reused = item.command_hash != items[leaders[item.key]].command_hash
            if reused and item.order_id is not None:
                item.withdraw(orders, _key_reused())
            continue
        outcome = _apply(item, orders, now, known)
        outcomes[index] = outcome
        if outcome is None:
            applied.append(index)
            if item.key is not None:
                leaders[item.key] = index
    return _Batch(items, outcomes, {index: items[index].answer(orders) for index in applied}, leaders)


def _apply(item: Change, orders: OrderDecisions, now: datetime, known: Mapping[RequestKey, KnownAnswer]) -> Outcome | None:
    """Record a change and return None, or return why nothing was recorded: a refusal, or the first answer of its key."""
    try:
        if item.key is not None and item.key in known:
            outcome = _replayed(known[item.key], item.command_hash, item.response_type)
            if isinstance(outcome, TrademeshError):
                item.withdraw(orders, outcome)
            return outcome
        item.apply(orders, now)
    except TrademeshError as error:
        return error
    return None


def _denied(item: Change, orders: OrderDecisions) -> TrademeshError | None:
    """Return why the caller of a change may not even hear of a first answer under its key; None where he may."""
    if item.order_id is not None and item.order_id not in orders:
        return no_such_order(item.order_id)
    try:
        item.authorize(orders)
    except TrademeshError as error:
        return error
    return None


def _replayed(known: KnownAnswer, command_hash: bytes, response_type: type[Message]) -> Outcome:
    if known.command_hash != command_hash:
        return _key_reused()
    answer = response_type.FromString(known.answer)
    return Changed(answer if known.position is None else _placed(answer, known.position), replayed=True)


def _key_reused() -> AlreadyExistsError:
    return AlreadyExistsError(Reason.IDEMPOTENCY_KEY_REUSED, "request_id was used for another command")


def _is_placed(answer: Message) -> bool:
    return answer.HasField("log_position")


def _placed(answer: Any, position: LogPosition) -> Message:
    """Return the answer with the position, unless it has one."""
    if not _is_placed(answer):
        answer.log_position.CopyFrom(to_position(position))
    return cast("Message", answer)
