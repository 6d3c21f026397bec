"""Cells of a report as bytes: columns, their kinds, CSV by RFC 4180 and JSON lines."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum

from svc_reporting.domain.vocabulary import ReportFormat

Cell = str | int | bool | None
"""A value as it is written: decimals, days and moments are text already."""

_FORMULA_STARTS = frozenset("=+-@\t\r\n")
_GUARD = "'"


class CellKind(Enum):
    """What a column holds, which decides how CSV guards it."""

    TEXT = "text"
    """Words of people, clients or venues: guarded against spreadsheets that would run them."""
    VALUE = "value"
    """What these rules write themselves: decimals, days, moments, numbers, truth values and words of the contracts."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column."""

    name: str
    kind: CellKind = CellKind.VALUE


def text(name: str) -> Column:
    """Return a column of foreign words."""
    return Column(name, CellKind.TEXT)


def value(name: str) -> Column:
    """Return a column of values."""
    return Column(name)


def decimal_text(number: Decimal | None) -> str | None:
    """Return an exact decimal: no exponent, no trailing zeros, no `-0`, however many digits it has."""
    if number is None:
        return None
    digits = f"{number:f}"
    if "." in digits:
        digits = digits.rstrip("0").rstrip(".")
    return "0" if digits == "-0" else digits


def time_text(moment: datetime | None) -> str | None:
    """Return a moment in UTC by RFC 3339 with six fraction digits, always."""
    return None if moment is None else moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def head(columns: Sequence[Column], report_format: ReportFormat) -> bytes:
    """Return what comes before the first row: CSV's header line, nothing in JSON lines."""
    return _csv_line([column.name for column in columns]) if report_format is ReportFormat.CSV else b""


def row(columns: Sequence[Column], cells: Sequence[Cell], report_format: ReportFormat) -> bytes:
    """Return one row as a line.

    In CSV a text that begins with `=`, `+`, `-`, `@`, a tab, CR, LF or an apostrophe gets an apostrophe before it, so that no spreadsheet
    takes it for a formula and no reader has to guess: whoever finds one at the beginning of a text takes one away.
    What is not set is empty in CSV and null in JSON.
    """
    assert len(cells) == len(columns), "a row has a cell for each column"
    if report_format is ReportFormat.JSON:
        document = {column.name: None if cell == "" else cell for column, cell in zip(columns, cells, strict=True)}
        return (json.dumps(document, ensure_ascii=False, separators=(",", ":")) + "\n").encode()
    return _csv_line([_csv_cell(column, cell) for column, cell in zip(columns, cells, strict=True)])


def _csv_cell(column: Column, cell: Cell) -> str:
    if cell is None:
        return ""
    if isinstance(cell, bool):
        return "true" if cell else "false"
    words = str(cell)
    if column.kind is CellKind.TEXT and words and (words[0] in _FORMULA_STARTS or words[0] == _GUARD):
        return _GUARD + words
    return words


def _csv_line(cells: Sequence[str]) -> bytes:
    # By hand: the library's quoting differs between its versions, and a report's bytes must not.
    return (",".join([_quoted(cell) for cell in cells]) + "\r\n").encode()


def _quoted(cell: str) -> str:
    if any(character in cell for character in '",\r\n'):
        return '"' + cell.replace('"', '""') + '"'
    return cell
