"""Whatever stands in a cell comes back as it was, and no text begins like a formula."""

from __future__ import annotations

import csv
import io
import json
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from svc_reporting.domain.cells import decimal_text, row, text, value
from svc_reporting.domain.vocabulary import ReportFormat

COLUMNS = (text("words"), value("number"), text("more"))
# What PostgreSQL and protobuf can hold: no NUL, no surrogates.
WORDS = st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), max_size=60)
HOSTILE = st.builds(lambda start, rest: start + rest, st.sampled_from(["=", "+", "-", "@", "\t", "\r", "\n", "'", '"', ",", ""]), WORDS)


def unguarded(cell: str) -> str:
    """Take away the one apostrophe that a reader of a text column takes away."""
    return cell[1:] if cell.startswith("'") else cell


@given(st.lists(st.tuples(HOSTILE, st.integers(), HOSTILE), max_size=8))
def test_csv_comes_back_as_it_was(rows: list[tuple[str, int, str]]) -> None:
    content = b"".join(row(COLUMNS, each, ReportFormat.CSV) for each in rows).decode()
    found = list(csv.reader(io.StringIO(content, newline=""), strict=True))
    assert [(unguarded(words), int(number), unguarded(more)) for words, number, more in found] == rows
    for words, _, more in found:
        assert not words.startswith(("=", "+", "-", "@", "\t", "\r", "\n"))
        assert not more.startswith(("=", "+", "-", "@", "\t", "\r", "\n"))


@given(st.lists(st.tuples(HOSTILE, st.integers(), HOSTILE), max_size=8))
def test_json_lines_come_back_as_they_were(rows: list[tuple[str, int, str]]) -> None:
    content = b"".join(row(COLUMNS, each, ReportFormat.JSON) for each in rows)
    assert content.count(b"\n") == len(rows), "a line is a row"
    found = [tuple(json.loads(line).values()) for line in content.split(b"\n")[:-1]]
    assert [(words or "", number, more or "") for words, number, more in found] == rows


@given(st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**38), max_value=10**38))
def test_decimals_keep_their_value(number: Decimal) -> None:
    words = decimal_text(number)
    assert words is not None
    assert Decimal(words) == number
    assert "E" not in words
    assert words != "-0"
