"""What a book leaves behind, as the arguments of `risk_write`: one round trip for events, exposures, counters and new reservations."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from kernel.postgres.arrays import joined, numbers, texts, uuids
from svc_risk.codec.events import ExposureWriter, exposure_stream
from svc_risk.domain.book import Book, Decided
from svc_risk.domain.policy import Policy
from svc_risk.store.rows import write_window

HASH_BYTES = 32
"""SHA-256, which `risk_write` cuts hashes apart by."""

WRITE = """
SELECT * FROM risk_write(
    $1, $2::text::text[], $3::text::int[], $4::text::int[], $5::text::text[], $6::text::int[], $7::text::text[], $8, $9::text::int[],
    $10::text::int[],
    $11::text::text[], $12::text::int[], $13::text::numeric[], $14::text::numeric[], $15::text::numeric[], $16::text::int[],
    $17::text::bigint[], $18, $19::text::boolean[],
    $20::text::text[], $21::text::text[], $22::text::numeric[], $23::text::numeric[], $24::text::numeric[], $25::text::numeric[],
    $26::text::numeric[], $27::text::numeric[],
    $28, $29::text::bigint[], $30,
    $31::text::uuid[], $32::text::text[], $33::text::text[], $34::text::smallint[], $35::text::smallint[], $36::text::numeric[],
    $37::text::numeric[], $38::text::bigint[], $39, $40, $41::text::int[], $42::text::int[]
)
"""


def written(book: Book, entries: Sequence[tuple[Decided, bytes]]) -> tuple[object, ...]:
    """Return the arguments of `WRITE`: what the book changed, and the new orders that it decided, with their answers encoded."""
    return (book.moment, *_events(book), *_accounts(book), *_positions(book), *_traders(book), *_reservations(book.policy, entries))


def _events(book: Book) -> tuple[object, ...]:
    write = ExposureWriter(book.moment).write
    accounts = [event.delta.account_id for event in book.events]
    counts: dict[str, int] = {}
    for account_id in accounts:
        counts[account_id] = counts.get(account_id, 0) + 1
    records = [write(event) for event in book.events]
    return (
        texts([exposure_stream(account_id) for account_id in counts]),
        numbers([book.accounts[account_id].version - count for account_id, count in counts.items()]),
        numbers(counts.values()),
        texts([exposure_stream(account_id) for account_id in accounts]),
        numbers([event.delta.version for event in book.events]),
        texts([kind for kind, _ in records]),
        *joined([payload for _, payload in records]),
    )


def _accounts(book: Book) -> tuple[object, ...]:
    changed = [(account_id, book.accounts[account_id]) for account_id in sorted(book.changed_accounts)]
    accounts = [account for _, account in changed]
    return (
        texts([account_id for account_id, _ in changed]),
        numbers([account.version for account in accounts]),
        numbers([account.buy_notional for account in accounts]),
        numbers([account.sell_notional for account in accounts]),
        numbers([account.gross for account in accounts]),
        numbers([account.reservation_count for account in accounts]),
        numbers([account.rate.tick for account in accounts]),
        b"".join([write_window(account.rate) for account in accounts]),
        numbers(["t" if account.marked_at == book.moment else "f" for account in accounts]),
    )


def _positions(book: Book) -> tuple[object, ...]:
    keys = sorted(book.changed_positions)
    positions = [book.positions[key] for key in keys]
    return (
        texts([account_id for account_id, _ in keys]),
        texts([instrument_id for _, instrument_id in keys]),
        numbers([position.position for position in positions]),
        numbers([position.mark for position in positions]),
        numbers([position.buy_quantity for position in positions]),
        numbers([position.buy_notional for position in positions]),
        numbers([position.sell_quantity for position in positions]),
        numbers([position.sell_notional for position in positions]),
    )


def _traders(book: Book) -> tuple[object, ...]:
    principals = sorted(book.changed_traders)
    windows = [book.traders[principal] for principal in principals]
    # Names of traders are anybody's, so the driver writes them.
    return principals, numbers([window.tick for window in windows]), b"".join([write_window(window) for window in windows])


def _reservations(policy: Policy, entries: Sequence[tuple[Decided, bytes]]) -> tuple[object, ...]:
    with_window = _duplicate_windows(policy) if entries else ()
    reservations = [decided.reservation for decided, _ in entries]
    checks = [decided.check for decided, _ in entries]
    hashes = b"".join([check.payload_hash for check in checks])
    assert len(hashes) == HASH_BYTES * len(checks), "a payload hash of another length"
    return (
        uuids([r.order_id for r in reservations]),
        texts([r.account_id for r in reservations]),
        texts([r.instrument_id for r in reservations]),
        numbers([r.side.value for r in reservations]),
        numbers([r.status.value for r in reservations]),
        numbers([r.quantity for r in reservations]),
        numbers([r.price for r in reservations]),
        # Only what was approved, and can be asked for again, takes a place in the index.
        numbers([c.duplicate_key if r.live and r.account_id in with_window else None for c, r in zip(checks, reservations, strict=True)]),
        hashes,
        *joined([answer for _, answer in entries]),
    )


def _duplicate_windows(policy: Policy) -> Collection[str]:
    """Accounts whose approvals must be findable by their terms."""
    found = set()
    for account_id, (_, bounds) in policy.accounts.items():
        window = bounds.duplicate_window
        if window is not None and window.value:
            found.add(account_id)
    return found
