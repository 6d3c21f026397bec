"""Order events of svc_oms, folded into reservations and exposures by the hundreds."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import timedelta
from typing import NamedTuple

from kernel.ports import LogPosition, RecordedEvent
from kernel.postgres import Database, Record, Transaction
from kernel.postgres.arrays import numbers, uuids
from svc_risk.codec.orders import order_of, read_fact
from svc_risk.domain.reservation import Accepted, Ended, OrderFact
from svc_risk.domain.vocabulary import OrderState
from svc_risk.store.ledger import Ledger, Wanted

ORPHANS_MAX = 500
"""Orphans settled at once."""
ABANDONED = "oms.v1.OrderAbandoned"

_KNOWN = "SELECT order_id::text, account_id, instrument_id FROM reservation WHERE order_id = ANY ($1::uuid[])"
_VERSIONS = "SELECT order_id::text, order_version FROM reservation WHERE order_id = ANY ($1::text::uuid[]) AND order_version > 0"
_ADVANCE = "SELECT risk_advance($1::text::uuid[], $2::text::int[], $3::text::int[], $4::text::smallint[])"
# Younger than this bound nothing is an orphan; older than what the last sweep settled, nothing is one any more.
_UNCONFIRMED = """
SELECT r.order_id, r.account_id, r.instrument_id, NULL::uuid AS request_id, r.reserved_at AS since
FROM orphan_sweep s, reservation r
WHERE r.reserved_at >= s.settled_until AND r.reserved_at < clock_timestamp() - $1::interval AND r.status = 1
UNION ALL
SELECT r.order_id, r.account_id, r.instrument_id, c.request_id, c.checked_at
FROM orphan_sweep s, replace_check c
JOIN reservation r ON r.order_id = c.order_id
WHERE EXISTS (SELECT FROM unnest(r.pending) p WHERE p.request_id = c.request_id AND NOT p.confirmed)
    AND c.checked_at >= s.settled_until AND c.checked_at < clock_timestamp() - $1::interval AND c.approved
ORDER BY since LIMIT $2
"""
# An approval that is asked for again while it waits is as young as that question: svc_oms is about to record it.
_FORGET = """
DELETE FROM replace_check WHERE request_id = ANY ($1::text::uuid[]) AND checked_at < clock_timestamp() - $2::interval
RETURNING request_id::text
"""
# A transaction lives at most a third of the bound, so nothing older than the bound can still be committed.
_SETTLED = """
UPDATE orphan_sweep SET settled_until = greatest(settled_until, coalesce($2::timestamptz, clock_timestamp() - $1::interval))
"""


class Orphan(NamedTuple):
    """A reservation, or an approved replace where `request_id` names one, that svc_oms has not confirmed within the bound."""

    order_id: str
    account_id: str
    instrument_id: str
    request_id: str | None


class Resolution(NamedTuple):
    """What svc_oms said of an orphan's order."""

    orphan: Orphan
    state: OrderState


class Step(NamedTuple):
    """Events of an order that move nothing reserved: those above version `before`, None for whatever it stands at, up to `after`.

    `status` is the `ReservationStatus` at which the reservation must stand, None for any. One that is unconfirmed is confirmed by them.
    """

    order_id: str
    before: int | None
    after: int
    status: int | None


class _Fact(NamedTuple):
    order_id: str
    fact: OrderFact
    cause: str


class FactStore:
    """Folds facts in transactions."""

    def __init__(self, database: Database, ledger: Ledger) -> None:
        self._database = database
        self._ledger = ledger

    async def advance(self, transaction: Transaction, steps: Iterable[Step]) -> Sequence[str]:
        """Take steps, without a lock on any account, and return the orders whose reservation did not stand where theirs begins."""
        order_ids, before, after, status = zip(*sorted(steps), strict=True)
        behind: Sequence[str] | None = await transaction.fetchval(
            _ADVANCE, uuids(order_ids), numbers(before), numbers(after), numbers(status)
        )
        return behind or ()

    async def versions(self, transaction: Transaction, order_ids: Collection[str]) -> list[tuple[str, int]]:
        """Return the version up to which each order's events are folded into its reservation; absent for orders without any."""
        rows = await transaction.fetch(_VERSIONS, uuids(order_ids)) if order_ids else []
        return [(order_id, version) for order_id, version in rows]

    async def fold(self, transaction: Transaction, events: Sequence[RecordedEvent]) -> Collection[str]:
        """Fold order events, in log order, inside the caller's transaction, which commits its checkpoint with them.

        Returns:
            The orders whose reservations say now that their events are folded in; not those that have none.

        Raises:
            ValueError: an order's first event is missing; nothing may be skipped.
        """
        facts = [item for event in events if (item := _fact(event)) is not None]
        last = {order_id: event.version for event in events if (order_id := order_of(event.stream_id)) is not None}
        folded = await self._fold(transaction, facts, last) if facts else set()
        # Orders that said nothing here that moves their reservation; their accounts are not locked.
        moved = {item.order_id for item in facts}
        steps = [Step(order_id, None, version, None) for order_id, version in last.items() if order_id not in moved]
        if steps:
            folded |= {item.order_id for item in steps}.difference(await self.advance(transaction, steps))
        return folded

    async def _fold(self, transaction: Transaction, facts: Sequence[_Fact], last: Mapping[str, int]) -> set[str]:
        places = await self._places(transaction, facts)
        wanted = Wanted(
            accounts={account_id for account_id, _ in places.values()},
            positions=set(places.values()),
            orders=set(places),
            instruments={instrument_id for _, instrument_id in places.values()},
        )
        book = await self._ledger.open(transaction, wanted)
        for item in facts:
            if item.order_id in places or not isinstance(item.fact, Ended):
                book.apply(item.order_id, item.fact, item.cause)
        for order_id in places:
            book.seen(order_id, last[order_id])
        await self._ledger.write(transaction, book, [])
        return places.keys() & book.reservations.keys()

    async def _places(self, transaction: Transaction, facts: Sequence[_Fact]) -> dict[str, tuple[str, str]]:
        """Account and instrument of each order, from its reservation or its first event; absent for an order that ended before both."""
        places = {
            fact.order_id: (fact.fact.terms.account_id, fact.fact.terms.instrument_id) for fact in facts if isinstance(fact.fact, Accepted)
        }
        unplaced = list({fact.order_id for fact in facts} - places.keys())
        if unplaced:
            for order_id, account_id, instrument_id in await transaction.fetch(_KNOWN, unplaced):
                places[order_id] = account_id, instrument_id
        return places

    async def orphans(self, bound_seconds: float) -> list[Orphan]:
        """Return the oldest reservations and replaces that svc_oms has not confirmed within the bound; none means that all are settled."""
        async with self._database.transaction() as transaction:
            rows = await transaction.fetch(_UNCONFIRMED, _interval(bound_seconds), ORPHANS_MAX)
            await transaction.execute(_SETTLED, _interval(bound_seconds), rows[0]["since"] if rows else None)
        return [_orphan(row) for row in rows]

    async def settle(
        self, transaction: Transaction, resolutions: Sequence[Resolution], *, folded: bool, bound_seconds: float
    ) -> LogPosition | None:
        """Release what svc_oms has given up, confirm what it has, and drop replaces of which it knows nothing.

        A replace that is dropped is forgotten as well: asked for again, it is decided anew.

        Args:
            transaction: the caller's.
            resolutions: what svc_oms said, one for each orphan.
            folded: whether all order events that its answer shows are folded in; without them a replace may only seem unknown.
            bound_seconds: how long ago an approval must have been asked for last.
        """
        orphans = [resolution.orphan for resolution in resolutions]
        wanted = Wanted(
            accounts={orphan.account_id for orphan in orphans},
            positions={(orphan.account_id, orphan.instrument_id) for orphan in orphans},
            orders={orphan.order_id for orphan in orphans},
            instruments={orphan.instrument_id for orphan in orphans},
        )
        book = await self._ledger.open(transaction, wanted)
        unknown = [orphan.request_id for orphan in orphans if orphan.request_id is not None] if folded else []
        rows = await transaction.fetch(_FORGET, uuids(unknown), _interval(bound_seconds)) if unknown else []
        forgotten = {row[0] for row in rows}
        for orphan, state in resolutions:
            if state is OrderState.ABANDONED:
                book.apply(orphan.order_id, Ended(1), ABANDONED)
            elif orphan.request_id is None:
                book.confirm(orphan.order_id)
            elif orphan.request_id in forgotten:
                book.drop_pending(orphan.order_id, orphan.request_id)
        return await self._ledger.write(transaction, book, [])


def _fact(event: RecordedEvent) -> _Fact | None:
    order_id = order_of(event.stream_id)
    fact = None if order_id is None else read_fact(event.type, event.version, event.payload)
    return None if order_id is None or fact is None else _Fact(order_id, fact, event.type)


def _orphan(row: Record) -> Orphan:
    request_id = row["request_id"]
    return Orphan(str(row["order_id"]), row["account_id"], row["instrument_id"], None if request_id is None else str(request_id))


def _interval(seconds: float) -> timedelta:
    return timedelta(seconds=seconds)
