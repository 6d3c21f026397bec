"""Orders in PostgreSQL: creations, and changes, decided at a look or under the lock of the heads. Every write is one transaction."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from kernel.errors import StaleVersionError
from kernel.events.postgres import PostgresEventStore
from kernel.ports import LOG_START, CommitOutcome, LogPosition, NewEvent, StreamAppend
from kernel.postgres import Database, Record, Transaction
from kernel.postgres.arrays import numbers, texts
from svc_oms.codec.events import decode_payload
from svc_oms.domain import Order, evolve, fold
from svc_oms.store.cache import OrderCache
from svc_oms.store.decisions import (
    EVENT_PARAMETERS,
    PARAMETERS_NEXT,
    ROW_PARAMETERS,
    STREAM_PREFIX,
    OrderDecisions,
    stream_of,
)
from svc_oms.store.keys import KnownAnswer, RequestKey, answer_columns, known_answer

_FIRST_EVENTS = "SELECT stream_id, type, payload, tx, position FROM orders_first_events($1)"
_CREATE = """
SELECT tx, positions FROM orders_create(
    $1::text::text[], $2::text::text[], $3::text::text[], $4::text::text[], $5::text::text[], $6::text::text[],
    $7::text::smallint[], $8::text::smallint[], $9::text::text[], $10, $11, $12::text::int[]
)
"""
_RECORD = f"""
SELECT e.tx, e.own_tx, e.last_position, orders_project({ROW_PARAMETERS})
FROM event_extend({EVENT_PARAMETERS}) AS e
"""  # noqa: S608 (constants)
_HEADS = f"${PARAMETERS_NEXT}::text::text[], ${PARAMETERS_NEXT + 1}::text::int[]"
_ANSWERS = ", ".join(f"${number}" for number in range(PARAMETERS_NEXT + 2, PARAMETERS_NEXT + 6))
_CHANGE = f"SELECT tx, last_position FROM orders_change({EVENT_PARAMETERS}, {ROW_PARAMETERS}, {_HEADS}, {_ANSWERS})"  # noqa: S608 (constants)
_EVENTS_AFTER = "SELECT stream_id, type, payload FROM orders_events_after($1, $2)"
_LOOK = """
SELECT stream_id, type, payload, NULL AS account_id, NULL AS request_id, NULL AS command_hash, NULL AS answer, NULL AS tx, NULL AS position
FROM orders_events_after($1, $2)
UNION ALL
SELECT NULL, NULL, NULL, k.account_id, k.request_id, k.command_hash, k.answer, k.tx, k.position
FROM unnest($3::text[], $4::text[]) AS u (account_id, request_id)
JOIN request_key k ON k.account_id = u.account_id AND k.request_id = u.request_id
"""


@dataclass(frozen=True, slots=True)
class FirstAnswer:
    """An order as its first event left it, and where that event stands: what a repeated key is answered with."""

    order: Order
    position: LogPosition


@dataclass(frozen=True, slots=True)
class Creation:
    """An order that begins: its first event, the order after it, and that order serialized."""

    order: Order
    event: NewEvent
    snapshot: bytes


class OrderUnit(OrderDecisions):
    """One transaction over some orders. Lock them, decide on what was found, record, and let `OrderStore.unit` commit.

    Lock order is: heads in id order (once), then the service's own rows. Anything else can deadlock.
    """

    def __init__(self, transaction: Transaction, log: PostgresEventStore, cache: OrderCache) -> None:
        super().__init__()
        self.transaction = transaction
        self._log = log
        self._cache = cache
        self._others: list[StreamAppend] = []
        self._other_heads: dict[str, int] = {}

    async def lock(self, order_ids: Iterable[str], *, other_streams: Sequence[str] = ()) -> Mapping[str, Order | None]:
        """Lock the orders (and other streams) until the transaction ends, and return them; None for one that has no events."""
        ids = sorted(set(order_ids))
        heads = await self._log.lock(self.transaction, [*(stream_of(order_id) for order_id in ids), *other_streams])
        self._other_heads = {stream_id: heads[stream_id] for stream_id in other_streams}
        behind: dict[str, int] = {}
        for order_id in ids:
            known = self._cache.get(order_id)
            version = heads[stream_of(order_id)]
            if known is not None and known.version > version:
                known = None
            self._before[order_id] = known
            if version > (known.version if known is not None else 0):
                behind[stream_of(order_id)] = known.version if known is not None else 0
        if behind:
            _evolve(self._before, await self.transaction.fetch(_EVENTS_AFTER, list(behind), list(behind.values())))
        for stream_id, version in self.heads():
            assert version == heads[stream_id], f"{stream_id} folds short of its head"
        return self._before

    def record_other(self, stream_id: str, events: Sequence[NewEvent]) -> None:
        """Add events of another stream that was locked with the orders. Once per stream."""
        self._others.append(StreamAppend(stream_id, self._other_heads[stream_id], tuple(events)))

    async def flush(self) -> LogPosition | None:
        """Write events and read models; return the position of the last event, None where nothing was recorded. Call it once."""
        appends = [*self._others, *self.appends()]
        if not appends:
            return None
        # All heads are locked, hence where their versions were read: nothing is looked at twice.
        row = await self.transaction.fetchrow(_RECORD, *self.arguments(appends))
        assert row is not None
        self.transaction.own_tx = row["own_tx"]
        self.transaction.after_commit(self._log.announce)
        self.transaction.after_commit(self._remember)
        return LogPosition(row["tx"], row["last_position"])

    def _remember(self) -> None:
        for order in self.changed():
            self._cache.put(order)


class OrderStore:
    """The orders of this schema. Many replicas may use it at once."""

    def __init__(self, database: Database, log: PostgresEventStore, cache: OrderCache | None = None) -> None:
        self.database = database
        self.log = log
        self._cache = cache or OrderCache()

    async def first_answers(self, order_ids: Sequence[str]) -> dict[str, FirstAnswer]:
        """Return the first answer of every order that exists, in one round trip."""
        rows = await self.database.fetch(_FIRST_EVENTS, [stream_of(order_id) for order_id in order_ids])
        return {row["stream_id"][len(STREAM_PREFIX) :]: _first_answer(row) for row in rows}

    async def load(self, order_id: str) -> Order | None:
        """Return an order as it stands now, without a lock; None where there is none."""
        return (await self.load_many((order_id,))).get(order_id)

    async def load_many(self, order_ids: Sequence[str]) -> dict[str, Order]:
        """Return orders as they stand now, without locks and in one round trip; those that do not exist are absent."""
        if not order_ids:
            return {}
        found, streams, versions = self._cached(order_ids)
        _evolve(found, await self.database.fetch(_EVENTS_AFTER, streams, versions))
        self._remember(found.values())
        return found

    async def look(self, order_ids: Sequence[str], keys: Sequence[RequestKey]) -> tuple[OrderDecisions, dict[RequestKey, KnownAnswer]]:
        """Return orders as they stand, to decide on them and `change` them, and what is known of keys: one snapshot, without locks, in
        one round trip. Orders that do not exist are absent.
        """
        found, streams, versions = self._cached(order_ids)
        rows = await self.database.fetch(_LOOK, streams, versions, [key[0] for key in keys], [key[1] for key in keys])
        _evolve(found, [row[:3] for row in rows if row["stream_id"] is not None])
        self._remember(found.values())
        return OrderDecisions(found), dict(known_answer(row) for row in rows if row["stream_id"] is None)

    async def change(self, orders: OrderDecisions, answers: Sequence[tuple[RequestKey, KnownAnswer]]) -> LogPosition:
        """Record what was decided on orders that were looked at, and the first answers of keys, in one round trip.

        Returns:
            the position of the last event, which is also kept with the answers; 0 and 0 where no event is recorded. Without events and
            answers nothing is written.

        Raises:
            AbortedError: an order or a key is no longer as it was looked at; nothing was recorded.
            UnavailableError, ResourceExhaustedError: nothing was recorded.
            OutcomeUnknownError: all or nothing was recorded; read the keys.
        """
        appends, heads = orders.appends(), orders.heads()
        if not appends and not answers:
            return LOG_START
        async with self.database.write_connection() as connection:
            row = await connection.fetchrow(
                _CHANGE,
                *orders.arguments(appends),
                texts([stream_id for stream_id, _ in heads]),
                numbers([version for _, version in heads]),
                *answer_columns(sorted(answers, key=lambda item: item[0])),
            )
        assert row is not None
        if appends:
            self.log.announce()
        self._remember(orders.changed())
        return LogPosition(row["tx"], row["last_position"])

    async def create(self, creations: Sequence[Creation]) -> list[CommitOutcome]:
        """Record orders that begin, each with one event and no order twice; one whose stream has begun fails alone.

        Raises:
            UnavailableError, ResourceExhaustedError, AbortedError: nothing was recorded.
            OutcomeUnknownError: all or nothing was recorded; read the keys.
        """
        ordered = sorted(range(len(creations)), key=lambda index: creations[index].order.terms.order_id)
        async with self.database.write_connection() as connection:
            row = await connection.fetchrow(_CREATE, *_creation_columns([creations[index] for index in ordered]), numbers(ordered))
        assert row is not None
        self.log.announce()
        tx, outcomes = row["tx"], [_UNDECIDED] * len(creations)
        for index, position in zip(ordered, row["positions"], strict=True):
            order = creations[index].order
            if position is None:
                outcomes[index] = StaleVersionError(stream_of(order.terms.order_id), 0, 1)
            else:
                outcomes[index] = LogPosition(tx, position)
                self._cache.put(order)
        return outcomes

    @asynccontextmanager
    async def unit(self) -> AsyncIterator[OrderUnit]:
        """Run a block as one transaction over orders; it is flushed by the block and committed at its end.

        Raises:
            as `Database.transaction`.
        """
        async with self.database.transaction() as transaction:
            yield OrderUnit(transaction, self.log, self._cache)

    def _cached(self, order_ids: Sequence[str]) -> tuple[dict[str, Order], list[str], list[int]]:
        """Return what the cache has of orders, and for all of them the streams and the versions above which it lacks events."""
        found = {order_id: order for order_id in order_ids if (order := self._cache.get(order_id)) is not None}
        versions = [found[order_id].version if order_id in found else 0 for order_id in order_ids]
        return found, [stream_of(order_id) for order_id in order_ids], versions

    def _remember(self, orders: Iterable[Order]) -> None:
        for order in orders:
            self._cache.put(order)


_UNDECIDED: CommitOutcome = LogPosition(0, 0)


def _evolve(orders: dict[str, Order] | dict[str, Order | None], rows: Iterable[Iterable[Any]]) -> None:
    """Add events to orders: rows of stream, type and payload, each stream in order."""
    for stream_id, type_name, payload in rows:
        order_id = stream_id[len(STREAM_PREFIX) :]
        orders[order_id] = evolve(orders.get(order_id), decode_payload(type_name, payload))


def _creation_columns(creations: Sequence[Creation]) -> tuple[object, ...]:
    terms = [creation.order.terms for creation in creations]
    return (
        texts([item.order_id for item in terms]),
        texts([item.account_id for item in terms]),
        texts([item.tenant for item in terms]),
        texts([item.principal for item in terms]),
        texts([item.instrument_id for item in terms]),
        texts([item.venue for item in terms]),
        numbers([item.side for item in terms]),
        numbers([creation.order.state for creation in creations]),
        texts([creation.event.type for creation in creations]),
        [creation.event.payload for creation in creations],
        [creation.snapshot for creation in creations],
    )


def _first_answer(row: Record) -> FirstAnswer:
    order = fold((decode_payload(row["type"], row["payload"]),))
    assert order is not None
    return FirstAnswer(order, LogPosition(row["tx"], row["position"]))
