from __future__ import annotations

import re
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel.errors import InvalidArgumentError
from kernel.values import exact_context, format_decimal, is_multiple, parse_decimal, total

WIRE = re.compile(r"^-?(0|[1-9]\d{0,19})(\.\d{1,18})?$", re.ASCII)
CANONICAL = re.compile(r"-?(0|[1-9][0-9]{0,19})(\.[0-9]{0,17}[1-9])?", re.ASCII)
decimals = st.builds(
    lambda sign, digits, scale: Decimal((sign, tuple(map(int, str(digits))), -scale)),
    st.integers(0, 1),
    st.integers(0, 10**38 - 1),
    st.integers(0, 18),
).filter(lambda value: abs(value) < 10**20)


@given(decimals)
def test_what_is_written_reads_back_and_is_canonical(value: Decimal) -> None:
    text = format_decimal(value)
    assert CANONICAL.fullmatch(text)
    assert text != "-0"
    assert parse_decimal(text) == value
    assert format_decimal(parse_decimal(text)) == text


@given(st.one_of(st.from_regex(r"-?[0-9]{0,22}\.?[0-9]{0,20}", fullmatch=True), st.text(max_size=45)))
def test_the_parser_accepts_exactly_the_wire_form(text: str) -> None:
    wanted = WIRE.fullmatch(text) is not None and "\n" not in text and re.fullmatch(r"-0(\.0+)?", text) is None
    if wanted:
        assert parse_decimal(text) == Decimal(text)
    else:
        with pytest.raises(InvalidArgumentError):
            parse_decimal(text)


@given(st.lists(decimals, max_size=20), st.randoms())
def test_sums_do_not_depend_on_order(values: list[Decimal], generator: object) -> None:
    shuffled = list(values)
    generator.shuffle(shuffled)  # type: ignore[attr-defined]
    assert total(values) == total(shuffled)


@given(st.integers(-(10**6), 10**6), st.decimals(min_value="0.000001", max_value="1000", places=6))
def test_multiples_of_a_step_lie_on_its_grid(count: int, step: Decimal) -> None:
    value = exact_context().multiply(Decimal(count), step)
    assert is_multiple(value, step)
    assert not is_multiple(exact_context().add(value, step / 2), step)
