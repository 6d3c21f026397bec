from __future__ import annotations

import decimal
from decimal import Decimal

import pytest

from kernel.errors import InvalidArgumentError, Reason
from kernel.values import (
    check_account_id,
    check_decimal,
    check_instrument_id,
    format_decimal,
    is_multiple,
    notional,
    parse_decimal,
    parse_money,
    parse_price,
    parse_quantity,
    total,
)

BIGGEST = "9" * 20 + "." + "9" * 18


@pytest.mark.parametrize("text", ["0", "1", "-1", "0.1", "1.50", "-0.000000000000000001", "9" * 20, BIGGEST, "-" + BIGGEST])
def test_canonical_decimals_parse(text: str) -> None:
    assert parse_decimal(text) == Decimal(text)


@pytest.mark.parametrize(
    "text",
    [
        "1." + "0" * 19,
        "1" + "0" * 20,
        "0.0000000000000000001",
        "1" * 10_000,
        "",
        "-",
        "+1",
        "01",
        "00",
        ".5",
        "1.",
        "1e3",
        "1E-2",
        "NaN",
        "Infinity",
        "-inf",
        " 1",
        "1 ",
        "1\n",
        "1,5",
        "0x1",
        "1_000",
        "١",
        "²",
    ],
)
def test_other_spellings_are_refused(text: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        parse_decimal(text, field="limit_price")
    assert caught.value.reason is Reason.FIELD_INVALID
    (violation,) = caught.value.field_violations
    assert (violation.field, violation.rule) == ("limit_price", "decimal.canonical")


@pytest.mark.parametrize("text", ["-0", "-0.0", "-0.00", "-0.000000000000000000"])
def test_negative_zero_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        parse_decimal(text)
    assert caught.value.field_violations[0].rule == "decimal.negative_zero"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("0", "0"),
        ("-0.00", "0"),
        ("1.500", "1.5"),
        ("100", "100"),
        ("1E+3", "1000"),
        ("1E-18", "0.000000000000000001"),
        (BIGGEST, BIGGEST),
        ("-12.10", "-12.1"),
        ("10.0", "10"),
        ("1.0000000000000000000000", "1"),
    ],
)
def test_decimals_are_written_canonically(value: str, text: str) -> None:
    assert format_decimal(Decimal(value)) == text


@pytest.mark.parametrize("value", ["NaN", "Infinity", "1E+20", "-1E+20", "1E-19", "1.0000000000000000001"])
def test_what_the_wire_cannot_carry_is_a_bug(value: str) -> None:
    with pytest.raises(ValueError, match="decimal"):
        check_decimal(Decimal(value))


@pytest.mark.parametrize("text", ["0", "-1", "0.0"])
def test_prices_and_quantities_are_above_zero(text: str) -> None:
    with pytest.raises(InvalidArgumentError):
        parse_price(text)
    with pytest.raises(InvalidArgumentError):
        parse_quantity(text)
    assert parse_money(text) == Decimal(text)


def test_notional_is_exact_whatever_the_ambient_context() -> None:
    with decimal.localcontext(decimal.Context(prec=5)):
        product = notional(Decimal("123456.789"), Decimal("1000.001"))
    assert product == Decimal("123456912.456789")


def test_notional_rounds_once_as_told() -> None:
    tiny = Decimal("0.000000000000000001")
    assert notional(tiny, Decimal("0.5"), rounding=decimal.ROUND_UP) == tiny
    assert notional(tiny, Decimal("0.5")) == 0


def test_notional_beyond_the_range_names_its_field() -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        notional(Decimal("9" * 20), Decimal(10), field="quantity")
    assert caught.value.field_violations[0].rule == "notional.range"


def test_sums_keep_every_digit() -> None:
    with decimal.localcontext(decimal.Context(prec=5)):
        result = total([Decimal("99999999999999999999"), Decimal("0.000000000000000001")])
    assert result == Decimal("99999999999999999999.000000000000000001")


def test_grids() -> None:
    assert is_multiple(Decimal("10.05"), Decimal("0.05"))
    assert not is_multiple(Decimal("10.051"), Decimal("0.05"))
    assert is_multiple(Decimal("9" * 20), Decimal("0.000000000000000001"))
    with pytest.raises(ValueError, match="step"):
        is_multiple(Decimal(1), Decimal(0))


@pytest.mark.parametrize("text", ["A", "ACC-001", "9X", "A" * 32])
def test_account_ids(text: str) -> None:
    assert check_account_id(text) == text


@pytest.mark.parametrize("text", ["", "-A", "a", "A.B", "A" * 33, "A\n", "Ä", "A B", "A/B"])
def test_bad_account_ids(text: str) -> None:
    with pytest.raises(InvalidArgumentError):
        check_account_id(text)


@pytest.mark.parametrize("text", ["AAPL", "BTC-USD", "BRK.B", "9"])
def test_instrument_ids(text: str) -> None:
    assert check_instrument_id(text) == text


@pytest.mark.parametrize("text", ["", ".A", "aapl", "BTC/USD", "A" * 33, "AAPL\n"])
def test_bad_instrument_ids(text: str) -> None:
    with pytest.raises(InvalidArgumentError):
        check_instrument_id(text)
