"""FIX 4.4 field data types: text of the wire to Python values (FIX 4.4 Volume 1, "FIX Data Types").

Prices and quantities are `decimal.Decimal`, times are aware UTC `datetime`s. FIX allows more spellings of a number than
Trademesh does (leading zeros, trailing zeros, a bare point); reading accepts those, and writing gives the canonical one
(`kernel.values.format_decimal`). Every reader raises `ValueError`, with a text that never repeats the input, when the text
is not of its type.
"""

import re
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import lru_cache

from kernel.values import INTEGER_DIGITS_MAX, SCALE_MAX

FLOAT_LENGTH_MAX = 64
"""Characters of a number, padding included: the pattern's time grows with their square."""

_FLOAT = re.compile(r"(-?)0*(\d*)(?:\.(\d*?)0*)?", re.ASCII)
_INTEGER = re.compile(r"-?\d{1,18}", re.ASCII)
_FRACTION_OF_SECOND = re.compile(r"\.(\d{3}|\d{6}|\d{9})", re.ASCII)
_TIMESTAMP = re.compile(r"(\d{4})(\d{2})(\d{2})-(\d{2}):(\d{2}):(\d{2})", re.ASCII)
_DATE = re.compile(r"(\d{4})(\d{2})(\d{2})", re.ASCII)


@lru_cache(maxsize=4096)
def parse_decimal(text: str) -> Decimal:
    """A FIX float (Qty, Price, Amt, PriceOffset, Percentage): optional minus, digits, optional point; no exponent.

    The result has no trailing zeros and is never negative zero. Raises ValueError for any other form, or where the value
    needs more than 20 digits before the point or 18 after it, or the text is longer than FLOAT_LENGTH_MAX.
    """
    match = _FLOAT.fullmatch(text) if len(text) <= FLOAT_LENGTH_MAX else None
    if match is None or not any(character.isdigit() for character in text):
        raise ValueError("not a FIX float")
    sign, whole, fraction = match.group(1), match.group(2), match.group(3) or ""
    if len(whole) > INTEGER_DIGITS_MAX or len(fraction) > SCALE_MAX:
        raise ValueError("more digits than 20 before and 18 after the point")
    if not whole and not fraction:
        return Decimal(0)
    return Decimal(f"{sign}{whole or '0'}.{fraction}" if fraction else f"{sign}{whole}")


def parse_integer(text: str) -> int:
    """A FIX int: optional minus and 1 to 18 digits; leading zeros are allowed. Raises ValueError otherwise."""
    if _INTEGER.fullmatch(text) is None:
        raise ValueError("not a FIX int")
    return int(text)


def parse_boolean(text: str) -> bool:
    """A FIX Boolean, `Y` or `N`. Raises ValueError otherwise."""
    if text == "Y":
        return True
    if text == "N":
        return False
    raise ValueError("not a FIX Boolean")


@lru_cache(maxsize=256)
def _parse_whole_second(text: str) -> datetime:
    match = _TIMESTAMP.fullmatch(text)
    if match is None:
        raise ValueError("not a UTCTimestamp")
    year, month, day, hour, minute, second = map(int, match.groups())
    if second == 60:  # FIX allows a leap second; the second after the 59th is the same instant on a clock without one
        return datetime(year, month, day, hour, minute, 59, tzinfo=UTC) + timedelta(seconds=1)
    return datetime(year, month, day, hour, minute, second, tzinfo=UTC)


@lru_cache(maxsize=4096)
def parse_timestamp(text: str) -> datetime:
    """A UTCTimestamp, `YYYYMMDD-HH:MM:SS` with 0, 3, 6 or 9 digits of a fraction (nanoseconds are cut to microseconds).

    Raises ValueError otherwise.
    """
    whole = _parse_whole_second(text[:17])
    if len(text) == 17:
        return whole
    if _FRACTION_OF_SECOND.fullmatch(text, 17) is None:
        raise ValueError("not a UTCTimestamp")
    return whole.replace(microsecond=int(text[18:24].ljust(6, "0")))


@lru_cache(maxsize=64)
def _format_second(year: int, month: int, day: int, hour: int, minute: int, second: int) -> str:
    return f"{year:04}{month:02}{day:02}-{hour:02}:{minute:02}:{second:02}"


def format_timestamp(value: datetime) -> str:
    """A UTCTimestamp with milliseconds (finer digits are cut). `value` must be aware and in UTC."""
    if value.tzinfo is not UTC:
        if value.tzinfo is None:
            raise ValueError("a timestamp must know its zone")
        value = value.astimezone(UTC)
    second = _format_second(value.year, value.month, value.day, value.hour, value.minute, value.second)
    return f"{second}.{value.microsecond // 1000:03}"


@lru_cache(maxsize=256)
def parse_date(text: str) -> date:
    """A LocalMktDate or UTCDateOnly, `YYYYMMDD`. Raises ValueError otherwise."""
    match = _DATE.fullmatch(text)
    if match is None:
        raise ValueError("not a date")
    year, month, day = map(int, match.groups())
    return date(year, month, day)
