"""Exposures and reservations: read under locks into a `Book`, and written back with the events that the book made, in one transaction."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from kernel.events.postgres import PostgresEventStore
from kernel.ports import LogPosition
from kernel.postgres import Transaction
from kernel.postgres.arrays import blobs, numbers, texts, uuids
from svc_risk.domain.book import Book, Decided, Remembered
from svc_risk.domain.check import Approval
from svc_risk.domain.policy import Policy
from svc_risk.domain.reference_price import ReferencePrice
from svc_risk.domain.reservation import PendingTerms, Reservation
from svc_risk.domain.vocabulary import CheckKind
from svc_risk.store.closing import WRITE, written
from svc_risk.store.policy import PolicyReader
from svc_risk.store.rows import parse_accounts, parse_positions, read_references, read_reservation, read_window

MARK_AGE_MAX = timedelta(seconds=1)
"""A decision values an account's other positions again when they were last valued longer ago than this."""

ROW_TYPES = """
SELECT NULL::trader_rate[], NULL::reference_price[], NULL::price_feed[], NULL::reservation[], NULL::replace_check[]
"""
"""What `Database.warm` asks for, so that no first check does."""

_OPEN = """
SELECT * FROM risk_open(
    $1::text::text[], $2, $3::text::text[], $4::text::text[], $5::text::text[],
    $6::text::uuid[], $7::text::uuid[], $8::text::bigint[], $9
)
"""

_WRITE_REPLACES = """
INSERT INTO replace_check (request_id, order_id, account_id, payload_hash, answer, approved, checked_at)
SELECT u.*, $7
FROM unnest($1::text::uuid[], $2::text::uuid[], $3::text::text[], $4::text::bytea[], $5::text::bytea[], $6::boolean[]) AS u
"""

_ASKED_AGAIN = "UPDATE replace_check SET checked_at = $2 WHERE request_id = ANY ($1::text::uuid[])"

# An order that svc_oms accepted without a reservation of ours gets a row here; any other row exists. `risk_advance` may have confirmed it
# since it was read, and raised its version: neither is undone by whoever did not know. Nobody else writes without the account's lock.
_MOVE = """
INSERT INTO reservation AS t (
    order_id, account_id, instrument_id, side, status, quantity, price, filled, order_version, pending, reserved_at, payload_hash, answer
)
SELECT
    u.order_id, u.account_id, u.instrument_id, u.side, u.status, u.quantity, u.price, u.filled, u.order_version,
    u.pending::pending_terms[], $11, '', ''
FROM unnest(
    $1::text::uuid[], $2::text::text[], $3::text::text[], $4::text::smallint[], $5::text::smallint[], $6::text::numeric[],
    $7::text::numeric[], $8::text::numeric[], $9::text::int[], $10::text[]
) AS u (order_id, account_id, instrument_id, side, status, quantity, price, filled, order_version, pending)
ON CONFLICT (order_id) DO UPDATE SET
    status = CASE excluded.status WHEN 1 THEN t.status ELSE excluded.status END,
    quantity = excluded.quantity, price = excluded.price, filled = excluded.filled,
    pending = excluded.pending,
    order_version = greatest(t.order_version, excluded.order_version)
"""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a transaction is about to touch."""

    accounts: Collection[str]
    traders: Collection[str] = ()
    positions: Collection[tuple[str, str]] = ()
    orders: Collection[str] = ()
    replaces: Collection[str] = ()
    duplicates: Collection[int] = ()
    instruments: Collection[str] = field(default=())


class Ledger:
    """Opens books and closes them. One per process."""

    def __init__(self, events: PostgresEventStore) -> None:
        self._events = events
        self._policies = PolicyReader()

    async def open(self, transaction: Transaction, wanted: Wanted) -> Book:
        """Lock what is wanted and return the book of it."""
        accounts, traders = sorted(wanted.accounts), sorted(wanted.traders)
        pairs = list(wanted.positions)
        row = await transaction.fetchrow(
            _OPEN,
            texts(accounts),
            traders,
            texts([account_id for account_id, _ in pairs]),
            texts([instrument_id for _, instrument_id in pairs]),
            texts(wanted.instruments),
            uuids(wanted.orders),
            uuids(wanted.replaces),
            numbers(wanted.duplicates),
            MARK_AGE_MAX,
        )
        assert row is not None
        policy = await self._policies.read(transaction, row["policy_version"], accounts, traders, wanted.instruments)
        now = row["moment"]
        reservations: dict[str, Reservation] = {}
        remembered: dict[str, Remembered] = {}
        for stored in row["reservations"] or ():
            reservation = read_reservation(stored)
            reservations[reservation.order_id] = reservation
            remembered[reservation.order_id] = Remembered(stored["payload_hash"], stored["answer"])
        for stored in row["replaces"] or ():
            remembered[str(stored["request_id"])] = Remembered(stored["payload_hash"], stored["answer"])
        book = Book(
            moment=now,
            policy=policy,
            accounts=parse_accounts(row["accounts"]),
            positions=parse_positions(row["positions"]),
            reservations=reservations,
            traders={principal: read_window(tick, counts) for principal, tick, counts in row["traders"] or ()},
            references=_of_their_venue(read_references(row["prices"], row["feeds"], now), policy),
            remembered=remembered,
            duplicates=dict(zip(row["duplicate_keys"] or (), row["duplicate_times"] or (), strict=True)),
        )
        for account_id in row["revalued"]:
            book.revalue(account_id)
        return book

    async def write(self, transaction: Transaction, book: Book, answers: Sequence[bytes]) -> LogPosition | None:
        """Write back what the book changed; `answers` are those of `book.decided`, encoded, in order.

        Returns:
            The position of the last event, None when the book made none.
        """
        position = None
        entries = list(zip(book.decided, answers, strict=True))
        fresh = [entry for entry in entries if entry[0].check.kind is CheckKind.NEW]
        if book.events or fresh or book.changed_accounts or book.changed_positions:
            row = await transaction.fetchrow(WRITE, *written(book, fresh))
            assert row is not None
            transaction.own_tx = row["own_tx"]
            if book.events:
                position = LogPosition(row["tx"], row["last_position"])
                transaction.after_commit(self._events.announce)
        replaces = [entry for entry in entries if entry[0].check.kind is CheckKind.REPLACE]
        if replaces:
            await transaction.execute(_WRITE_REPLACES, *_replace_columns(replaces), book.moment)
        if book.asked_again:
            await transaction.execute(_ASKED_AGAIN, uuids(sorted(book.asked_again)), book.moment)
        if book.changed_reservations:
            moved = [book.reservations[order_id] for order_id in sorted(book.changed_reservations)]
            await transaction.execute(_MOVE, *_moved_columns(moved), book.moment)
        return position


def _replace_columns(entries: Sequence[tuple[Decided, bytes]]) -> tuple[object, ...]:
    checks = [decided.check for decided, _ in entries]
    return (
        uuids([check.request_id for check in checks]),
        uuids([check.order_id for check in checks]),
        texts([check.account_id for check in checks]),
        blobs([check.payload_hash for check in checks]),
        blobs([answer for _, answer in entries]),
        [isinstance(decided.outcome, Approval) for decided, _ in entries],
    )


def _moved_columns(reservations: Sequence[Reservation]) -> tuple[object, ...]:
    return (
        uuids([r.order_id for r in reservations]),
        texts([r.account_id for r in reservations]),
        texts([r.instrument_id for r in reservations]),
        numbers([r.side.value for r in reservations]),
        numbers([r.status.value for r in reservations]),
        numbers([r.quantity for r in reservations]),
        numbers([r.price for r in reservations]),
        numbers([r.filled for r in reservations]),
        numbers([r.order_version for r in reservations]),
        [_pending_literal(r.pending) if r.pending else None for r in reservations],
    )


def _pending_literal(pending: Sequence[PendingTerms]) -> str:
    """Return a literal of `pending_terms[]`."""
    return texts([f"({terms.request_id},{terms.quantity},{terms.price},{terms.confirmed})" for terms in pending])


def _of_their_venue(prices: Mapping[str, tuple[str, ReferencePrice]], policy: Policy) -> dict[str, ReferencePrice]:
    """A feed speaks for its own venue: what another says of an instrument is no price to decide on, nor to value by."""
    found = {}
    for instrument_id, (feed, price) in prices.items():
        known = policy.instruments.get(instrument_id)
        if known is None or known.instrument.venue == feed:
            found[instrument_id] = price
    return found
