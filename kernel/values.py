"""Values of the domain: exact decimals, accounts, instruments.

A decimal travels as canonical text and is `decimal.Decimal` inside; binary floating point never touches money.
Bounds are those of PostgreSQL `numeric(38,18)`: 20 digits before the point, 18 after it.
"""

from __future__ import annotations

import decimal
import re
from collections.abc import Iterable
from decimal import Decimal

from kernel.errors import FieldViolation, InvalidArgumentError, Reason

INTEGER_DIGITS_MAX = 20
SCALE_MAX = 18
DECIMAL_TEXT_LENGTH_MAX = 1 + INTEGER_DIGITS_MAX + 1 + SCALE_MAX
MAGNITUDE_LIMIT = Decimal(10) ** INTEGER_DIGITS_MAX
ZERO = Decimal(0)

# Two in-range decimals multiply to at most 76 digits, so sums and products under this precision are exact.
_PRECISION = 2 * (INTEGER_DIGITS_MAX + SCALE_MAX)
_QUANTUM = Decimal(1).scaleb(-SCALE_MAX)

_DECIMAL = re.compile(r"-?(?:0|[1-9][0-9]{0,19})(?:\.[0-9]{1,18})?", re.ASCII)
_ACCOUNT_ID = re.compile(r"[A-Z0-9][A-Z0-9-]{0,31}", re.ASCII)
_INSTRUMENT_ID = re.compile(r"[A-Z0-9][A-Z0-9.-]{0,31}", re.ASCII)


def exact_context() -> decimal.Context:
    """Return a fresh context in which sums and products of in-range decimals are exact, and NaN, infinity and 1/0 raise."""
    return decimal.Context(
        prec=_PRECISION,
        rounding=decimal.ROUND_HALF_EVEN,
        traps=[decimal.InvalidOperation, decimal.DivisionByZero, decimal.Overflow, decimal.FloatOperation],
    )


def use_exact_decimals() -> None:
    """Make `exact_context` the decimal context of this thread and of threads and tasks started after it.

    A process calls it once, in its composition root: Python's default of 28 digits silently rounds sums of 38-digit amounts.
    """
    exact = exact_context()
    decimal.setcontext(exact)
    decimal.DefaultContext.prec = exact.prec
    decimal.DefaultContext.rounding = exact.rounding
    decimal.DefaultContext.traps = exact.traps


_EXACT = exact_context()


def _refuse(field: str, rule: str, description: str) -> InvalidArgumentError:
    return InvalidArgumentError(
        Reason.FIELD_INVALID, f"{field}: {description}", field_violations=(FieldViolation(field, rule, description),)
    )


def parse_decimal(text: str, *, field: str = "value") -> Decimal:
    r"""Parse a decimal from the wire: `^-?(0|[1-9]\d{0,19})(\.\d{1,18})?$`, ASCII digits, `-0` in any spelling refused.

    Trailing zeros are accepted on reading ("1.50") and never written.

    Raises:
        InvalidArgumentError: not of that form; names `field`.
    """
    if len(text) > DECIMAL_TEXT_LENGTH_MAX or _DECIMAL.fullmatch(text) is None:
        raise _refuse(field, "decimal.canonical", "must be a decimal with at most 20 digits before the point and 18 after it")
    value = Decimal(text)
    if not value and text[0] == "-":
        raise _refuse(field, "decimal.negative_zero", "must not be negative zero")
    return value


def format_decimal(value: Decimal) -> str:
    """Write a decimal canonically: no exponent, no trailing zeros, no `-0`.

    Raises:
        ValueError: NaN, infinite, 10**20 or more in magnitude, or finer than 18 places; a bug of the caller.
    """
    check_decimal(value)
    text = f"{value:f}"
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def check_decimal(value: Decimal) -> Decimal:
    """Assert that a value is representable: finite, |value| < 10**20, at most 18 significant places after the point.

    Raises:
        ValueError: it is not; a bug of the caller, since input is checked by `parse_decimal`.
    """
    if not value.is_finite() or abs(value) >= MAGNITUDE_LIMIT:
        raise ValueError(f"decimal out of range: {value}")
    exponent = value.as_tuple().exponent
    assert isinstance(exponent, int)
    if exponent < -SCALE_MAX and value != _EXACT.quantize(value, _QUANTUM):
        raise ValueError(f"decimal finer than {SCALE_MAX} places: {value}")
    return value


def parse_price(text: str, *, field: str = "price") -> Decimal:
    """Parse a price in units of the quote currency per unit of the instrument: canonical and above zero.

    Raises:
        InvalidArgumentError: not canonical, zero or negative.
    """
    return _positive(parse_decimal(text, field=field), field, "price.positive")


def parse_quantity(text: str, *, field: str = "quantity") -> Decimal:
    """Parse a quantity in units of the instrument: canonical and above zero; side carries the direction.

    Raises:
        InvalidArgumentError: not canonical, zero or negative.
    """
    return _positive(parse_decimal(text, field=field), field, "quantity.positive")


def parse_money(text: str, *, field: str = "amount") -> Decimal:
    """Parse an amount of money in a currency named beside it: canonical, any sign.

    Raises:
        InvalidArgumentError: not canonical.
    """
    return parse_decimal(text, field=field)


def _positive(value: Decimal, field: str, rule: str) -> Decimal:
    if value <= 0:
        raise _refuse(field, rule, "must be above zero")
    return value


def notional(price: Decimal, quantity: Decimal, *, field: str = "quantity", rounding: str = decimal.ROUND_HALF_EVEN) -> Decimal:
    """Return price × quantity in quote currency, to 18 places, computed exactly and rounded once.

    Risk passes `ROUND_UP`, so that rounding never hides an exposure.

    Raises:
        InvalidArgumentError: the product is 10**20 or more; names `field`.
    """
    product = _EXACT.multiply(price, quantity)
    if abs(product) >= MAGNITUDE_LIMIT:
        raise _refuse(field, "notional.range", "price times quantity must be below 10^20")
    exponent = product.as_tuple().exponent
    assert isinstance(exponent, int)
    return product if exponent >= -SCALE_MAX else product.quantize(_QUANTUM, rounding=rounding, context=_EXACT)


def total(values: Iterable[Decimal]) -> Decimal:
    """Return the exact sum, whatever the ambient decimal context; 0 for nothing."""
    result = ZERO
    for value in values:
        result = _EXACT.add(result, value)
    return result


def is_multiple(value: Decimal, step: Decimal) -> bool:
    """Say whether `value` lies on the grid of `step` (tick or lot, above zero), exactly."""
    if step <= 0:
        raise ValueError(f"step must be above zero: {step}")
    return not _EXACT.remainder(value, step)


def check_account_id(text: str, *, field: str = "account_id") -> str:
    """Return the account id, `^[A-Z0-9][A-Z0-9-]{0,31}$`.

    Raises:
        InvalidArgumentError: not of that form.
    """
    if _ACCOUNT_ID.fullmatch(text) is None:
        raise _refuse(field, "account_id.pattern", "must be 1 to 32 of A-Z, 0-9 and -, not starting with -")
    return text


def check_instrument_id(text: str, *, field: str = "instrument_id") -> str:
    """Return the instrument id, `^[A-Z0-9][A-Z0-9.-]{0,31}$`, e.g. `AAPL`, `BTC-USD`.

    Raises:
        InvalidArgumentError: not of that form.
    """
    if _INSTRUMENT_ID.fullmatch(text) is None:
        raise _refuse(field, "instrument_id.pattern", "must be 1 to 32 of A-Z, 0-9, . and -, starting with a letter or digit")
    return text
