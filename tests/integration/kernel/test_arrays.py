"""Array literals, read by PostgreSQL itself."""

from __future__ import annotations

import uuid
from decimal import Decimal

import asyncpg
import pytest

from kernel.postgres.arrays import blobs, joined, numbers, texts, uuids

ODD = ["", " ", "NULL", "null", 'a"b', "a\\b", "\\", '"', "{x}", "a,b", '","', "a\nb", "\t", "\u00e4\u2603\U0001f600", "'; --", "plain"]
ORDER = uuid.UUID(int=7)


@pytest.mark.parametrize("values", [ODD, ["ACC-1", "NULL"], ["x"], []])
async def test_texts_come_back_as_they_were(session: asyncpg.Connection[asyncpg.Record], values: list[str]) -> None:
    assert await session.fetchval("SELECT $1::text::text[]", texts(values)) == values


@pytest.mark.parametrize("value", ODD)
async def test_one_odd_text_among_plain_ones(session: asyncpg.Connection[asyncpg.Record], value: str) -> None:
    assert await session.fetchval("SELECT $1::text::text[]", texts(["a", value, "b"])) == ["a", value, "b"]


async def test_numbers_come_back_exactly(session: asyncpg.Connection[asyncpg.Record]) -> None:
    values = [Decimal("1.5"), None, 3, Decimal("-0.000000000000000001"), Decimal("1E+19"), "7"]
    read = await session.fetchval("SELECT $1::text::numeric[]", numbers(values))
    assert read == [None if value is None else Decimal(value) for value in values]
    assert await session.fetchval("SELECT $1::text::int[]", numbers([])) == []


async def test_ids_and_byte_strings(session: asyncpg.Connection[asyncpg.Record]) -> None:
    assert await session.fetchval("SELECT $1::text::uuid[]", uuids([str(ORDER), None])) == [ORDER, None]
    values = [b"\x00\xff", b"", bytes(range(256))]
    assert await session.fetchval("SELECT $1::text::bytea[]", blobs(values)) == values


async def test_joined_byte_strings_are_cut_apart_again(session: asyncpg.Connection[asyncpg.Record]) -> None:
    values = [b"a", b"", b"\x00\xff", b"bcd"]
    cut = """
    SELECT array_agg(substr($1::bytea, s, n) ORDER BY i)
    FROM unnest($2::text::int[], $3::text::int[]) WITH ORDINALITY AS u (s, n, i)
    """
    assert await session.fetchval(cut, *joined(values)) == values
    assert joined([]) == (b"", "{}", "{}")
