"""Orders in PostgreSQL: creations, changes under the lock of the heads, and keys. Every write is one transaction with its events."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from kernel.errors import StaleVersionError
from kernel.events.batch import check_batch
from kernel.events.postgres import PostgresEventStore
from kernel.ports import Commit, CommitOutcome, LogPosition, NewEvent, StreamAppend
from kernel.postgres import Database, Record, Transaction
from kernel.postgres.arrays import joined, numbers, texts
from svc_oms.codec.events import decode_payload, encode
from svc_oms.domain import Order, evolve, fold
from svc_oms.domain.events import Event
from svc_oms.store.cache import OrderCache
from svc_oms.store.projection import Projection, project_call

STREAM_PREFIX = "order-"

_FIRST_EVENTS = "SELECT stream_id, type, payload, tx, position FROM orders_first_events($1)"
_CREATE = """
SELECT tx, positions FROM orders_create(
    $1::text::text[], $2::text::text[], $3::text::text[], $4::text::text[], $5::text::text[], $6::text::text[],
    $7::text::smallint[], $8::text::smallint[], $9::text::text[], $10, $11, $12::text::int[]
)
"""
_RECORD = f"""
SELECT e.tx, e.own_tx, e.last_position, {project_call(10)}
FROM event_extend(
    $1::text::text[], $2::text::int[], $3::text::int[],
    $4::text::text[], $5::text::int[], $6::text::text[], $7, $8::text::int[], $9::text::int[]
) AS e
"""  # noqa: S608 (constants)
_EVENTS_AFTER = "SELECT stream_id, type, payload FROM orders_events_after($1, $2)"


def stream_of(order_id: str) -> str:
    """Return the stream of an order."""
    return STREAM_PREFIX + order_id


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


class OrderUnit:
    """One transaction over some orders. Lock them, decide on what was found, record, and let `OrderStore.unit` commit.

    Lock order is: heads in id order (once), then the service's own rows. Anything else can deadlock.
    """

    def __init__(self, transaction: Transaction, log: PostgresEventStore, cache: OrderCache) -> None:
        self.transaction = transaction
        self._log = log
        self._cache = cache
        self._before: dict[str, Order | None] = {}
        self._after: dict[str, Order] = {}
        self._events: dict[str, list[Event]] = {}
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
            rows = await self.transaction.fetch(_EVENTS_AFTER, list(behind), list(behind.values()))
            for stream_id, type_name, payload in rows:
                order_id = stream_id[len(STREAM_PREFIX) :]
                self._before[order_id] = evolve(self._before[order_id], decode_payload(type_name, payload))
        for order_id, order in self._before.items():
            assert (order.version if order is not None else 0) == heads[stream_of(order_id)], f"order {order_id} folds short of its head"
        return self._before

    def order(self, order_id: str) -> Order | None:
        """Return a locked order as this transaction has left it so far."""
        return self._after.get(order_id) or self._before[order_id]

    def record(self, order_id: str, events: Sequence[Event], after: Order | None = None) -> Order | None:
        """Add events of a locked order and return it after them; `after` spares folding what the decision has folded already."""
        order = fold(events, self.order(order_id)) if after is None else after
        if events:
            assert order is not None
            self._after[order_id] = order
            self._events.setdefault(order_id, []).extend(events)
        return order

    def record_other(self, stream_id: str, events: Sequence[NewEvent]) -> None:
        """Add events of another stream that was locked with the orders. Once per stream."""
        self._others.append(StreamAppend(stream_id, self._other_heads[stream_id], tuple(events)))

    async def flush(self) -> LogPosition | None:
        """Write events and read models; return the position of the last event, None where nothing was recorded. Call it once."""
        appends = list(self._others)
        projection = Projection()
        for order_id, events in self._events.items():
            before, after = self._before[order_id], self._after[order_id]
            encoded = tuple(encode(event, after.terms) for event in events)
            appends.append(StreamAppend(stream_of(order_id), 0 if before is None else before.version, encoded))
            projection.add(before, after, events)
        if not appends:
            return None
        check_batch((Commit(tuple(appends)),))
        # All heads are locked, hence where their versions were read: nothing is looked at twice.
        row = await self.transaction.fetchrow(_RECORD, *_event_columns(appends), *projection.arguments())
        assert row is not None
        self.transaction.own_tx = row["own_tx"]
        self.transaction.after_commit(self._log.announce)
        self.transaction.after_commit(self._remember)
        return LogPosition(row["tx"], row["last_position"])

    def _remember(self) -> None:
        for order in self._after.values():
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
        found = {order_id: order for order_id in order_ids if (order := self._cache.get(order_id)) is not None}
        versions = [found[order_id].version if order_id in found else 0 for order_id in order_ids]
        rows = await self.database.fetch(_EVENTS_AFTER, [stream_of(order_id) for order_id in order_ids], versions)
        for stream_id, type_name, payload in rows:
            order_id = stream_id[len(STREAM_PREFIX) :]
            found[order_id] = evolve(found.get(order_id), decode_payload(type_name, payload))
        for order in found.values():
            self._cache.put(order)
        return found

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


_UNDECIDED: CommitOutcome = LogPosition(0, 0)


def _event_columns(appends: Sequence[StreamAppend]) -> tuple[object, ...]:
    rows = [
        (append.stream_id, version, event)
        for append in appends
        for version, event in enumerate(append.events, start=append.expected_version + 1)
    ]
    assert not any(event.metadata for _, _, event in rows), "an event of an order says it all in its payload"
    return (
        texts([append.stream_id for append in appends]),
        numbers([append.expected_version for append in appends]),
        numbers([len(append.events) for append in appends]),
        texts([stream_id for stream_id, _, _ in rows]),
        numbers([version for _, version, _ in rows]),
        texts([event.type for _, _, event in rows]),
        *joined([event.payload for _, _, event in rows]),
    )


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
