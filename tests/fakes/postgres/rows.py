"""Rows as asyncpg gives them, and the array literals that stores send."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from functools import lru_cache
from typing import Any


class Row:
    """A row with named columns: indexed by name or place, iterated by value, like `asyncpg.Record`. Never changed."""

    __slots__ = ("_columns", "_values")

    def __init__(self, columns: Mapping[str, int], values: tuple[Any, ...]) -> None:
        self._columns = columns
        self._values = values

    def __getitem__(self, key: str | int | slice) -> Any:
        return self._values[self._columns[key]] if isinstance(key, str) else self._values[key]

    def __iter__(self) -> Iterator[Any]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"Row({dict(zip(self._columns, self._values, strict=True))})"

    def replace(self, **changes: Any) -> Row:
        """Return the row with other values."""
        values = list(self._values)
        for name, value in changes.items():
            values[self._columns[name]] = value
        return Row(self._columns, tuple(values))


@lru_cache(maxsize=1_024)
def columns(*names: str) -> Mapping[str, int]:
    """Return the places of columns."""
    return {name: place for place, name in enumerate(names)}


def rows(names: tuple[str, ...], values: list[tuple[Any, ...]]) -> list[Row]:
    """Return rows with these columns."""
    places = columns(*names)
    return [Row(places, row) for row in values]


def array(literal: str, read: Callable[[str], Any]) -> list[Any]:
    """Return the items of an array literal whose texts need no escapes; NULL becomes None."""
    body = literal[1:-1]
    return [None if item == "NULL" else read(item) for item in body.split(",")] if body else []


def texts(literal: str) -> list[str]:
    """Return the texts of an array literal."""
    return array(literal, lambda item: item[1:-1] if item.startswith('"') else item)


def decimals(literal: str) -> list[Any]:
    """Return the numbers of an array literal, as a column `numeric(38, 18)` keeps them: exactly.

    Raises:
        ValueError: more than 18 places or 20 digits before them; PostgreSQL would round the one and refuse the other.
    """
    return array(literal, amount)


def amount(text: str | Decimal) -> Decimal:
    """Return a number as `numeric(38, 18)` keeps it."""
    value = Decimal(text)
    exponent = value.normalize().as_tuple().exponent
    if not isinstance(exponent, int) or exponent < -18 or abs(value) >= Decimal(10) ** 20:
        raise ValueError(f"{value} does not fit numeric(38, 18)")
    return value


def integers(literal: str) -> list[Any]:
    """Return the integers of an array literal."""
    return array(literal, int)


def blobs(literal: str) -> list[bytes]:
    r"""Return the byte strings of an array literal, `"\\x…"` each."""
    return array(literal, lambda item: bytes.fromhex(item[4:-1]))
