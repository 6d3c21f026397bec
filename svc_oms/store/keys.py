"""Keys of cancels and replaces, with the first answers that they were given, kept for at least seven days."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kernel.errors import AbortedError, Reason
from kernel.ports import LogPosition
from kernel.postgres import Database, Record, Transaction
from kernel.postgres.arrays import numbers

KEPT_DAYS = 7
PURGE_ROWS_MAX = 5_000

_READ = """
SELECT k.account_id, k.request_id, k.command_hash, k.answer, k.tx, k.position
FROM unnest($1::text[], $2::text[]) AS u (account_id, request_id)
JOIN request_key k ON k.account_id = u.account_id AND k.request_id = u.request_id
"""
_WRITE = """
INSERT INTO request_key (account_id, request_id, command_hash, answer, tx, position)
SELECT * FROM unnest($1::text[], $2::text[], $3::bytea[], $4::bytea[], $5::text::xid8[], $6::text::bigint[])
ON CONFLICT DO NOTHING RETURNING request_id
"""
_PURGE = """
DELETE FROM request_key WHERE (account_id, request_id) IN (
    SELECT account_id, request_id FROM request_key
    WHERE created_at < clock_timestamp() - make_interval(days => $1) ORDER BY created_at LIMIT $2
) RETURNING 1
"""

RequestKey = tuple[str, str]
"""Account and request id."""


@dataclass(frozen=True, slots=True)
class KnownAnswer:
    """What a key was answered: the hash of its command, the serialized response, and the log position that belongs into it.

    No position where the response has its own, or where it is not known yet.
    """

    command_hash: bytes
    answer: bytes
    position: LogPosition | None = None


async def read_keys(source: Database | Transaction, keys: Sequence[RequestKey]) -> dict[RequestKey, KnownAnswer]:
    """Return what is known of these keys."""
    rows = await source.fetch(_READ, [key[0] for key in keys], [key[1] for key in keys])
    return dict(known_answer(row) for row in rows)


def known_answer(row: Record) -> tuple[RequestKey, KnownAnswer]:
    """Return a key and its answer from a row of `request_key`."""
    position = None if row["tx"] is None else LogPosition(row["tx"], row["position"])
    return (row["account_id"], row["request_id"]), KnownAnswer(row["command_hash"], row["answer"], position)


def answer_columns(answers: Sequence[tuple[RequestKey, KnownAnswer]]) -> tuple[list[str], list[str], list[bytes], list[bytes]]:
    """Return the columns of first answers without their positions. Ascending keys exclude deadlocks."""
    return (
        [key[0] for key, _ in answers],
        [key[1] for key, _ in answers],
        [known.command_hash for _, known in answers],
        [known.answer for _, known in answers],
    )


async def write_keys(transaction: Transaction, answers: Sequence[tuple[RequestKey, KnownAnswer]]) -> None:
    """Record first answers.

    Raises:
        AbortedError: another transaction answered one of the keys meanwhile; nothing of this one may commit.
    """
    ordered = sorted(answers, key=lambda item: item[0])
    written = await transaction.fetch(
        _WRITE,
        *answer_columns(ordered),
        numbers([known.position.tx if known.position is not None else None for _, known in ordered]),
        numbers([known.position.position if known.position is not None else None for _, known in ordered]),
    )
    if len(written) != len(ordered):
        raise AbortedError(Reason.VERSION_STALE, "a key of the batch was answered meanwhile")


async def purge_keys(database: Database) -> int:
    """Delete keys older than seven days, at most 5,000 at a time; return how many."""
    return len(await database.fetch(_PURGE, KEPT_DAYS, PURGE_ROWS_MAX))
