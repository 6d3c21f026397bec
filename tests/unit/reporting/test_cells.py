"""Cells as bytes: the same for ever, whatever stands in them."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal

import pytest

from svc_reporting.domain.cells import decimal_text, head, row, text, time_text, value
from svc_reporting.domain.vocabulary import ReportFormat

COLUMNS = (text("name"), value("amount"), value("late"))


@pytest.mark.parametrize(
    ("cells", "line"),
    [
        (("plain", "-1.5", True), b"plain,-1.5,true\r\n"),
        (("=1+1", "1", False), b"'=1+1,1,false\r\n"),
        (("-2", None, None), b"'-2,,\r\n"),
        (("+49", None, None), b"'+49,,\r\n"),
        (("@SUM(A1)", None, None), b"'@SUM(A1),,\r\n"),
        (("\tx", None, None), b"'\tx,,\r\n"),
        (("\r\n=x", None, None), b'"\'\r\n=x",,\r\n'),
        (("'quoted'", None, None), b"''quoted',,\r\n"),
        (('say "no", or', None, None), b'"say ""no"", or",,\r\n'),
        (("", 7, None), b",7,\r\n"),
        (("größer €", None, None), "größer €,,\r\n".encode()),
    ],
)
def test_csv_quotes_by_rfc_4180_and_guards_texts_only(cells: tuple[str, str | int | None, bool | None], line: bytes) -> None:
    assert row(COLUMNS, cells, ReportFormat.CSV) == line


def test_heads_name_the_columns_in_csv_alone() -> None:
    assert head(COLUMNS, ReportFormat.CSV) == b"name,amount,late\r\n"
    assert head(COLUMNS, ReportFormat.JSON) == b""


def test_json_lines_keep_the_columns_order_and_the_texts_as_they_are() -> None:
    line = row(COLUMNS, ("=x\n", "0.10", None), ReportFormat.JSON)
    assert line == b'{"name":"=x\\n","amount":"0.10","late":null}\n'
    assert json.loads(line) == {"name": "=x\n", "amount": "0.10", "late": None}


@pytest.mark.parametrize(
    ("number", "words"),
    [
        ("0", "0"),
        ("-0", "0"),
        ("1E+3", "1000"),
        ("10.500", "10.5"),
        ("0.000000000000000000000001", "0.000000000000000000000001"),
        ("-7", "-7"),
    ],
)
def test_decimals_are_exact_and_have_no_exponent(number: str, words: str) -> None:
    assert decimal_text(Decimal(number)) == words


def test_moments_are_utc_with_six_digits() -> None:
    at = datetime(2026, 3, 2, 10, 0, tzinfo=timezone(timedelta(hours=-5)))
    assert time_text(at) == "2026-03-02T15:00:00.000000Z"
    assert time_text(datetime(2026, 3, 2, 15, 0, 0, 7, UTC)) == "2026-03-02T15:00:00.000007Z"
    assert (time_text(None), decimal_text(None)) == (None, None)
