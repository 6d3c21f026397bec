"""Decimals as canonical text, fast."""

from __future__ import annotations

from decimal import Decimal


def text(value: Decimal) -> str:
    """Return the canonical text of an amount that is known to be in range; `kernel.values.format_decimal` checks the range as well."""
    written = str(value)
    if "E" in written:
        written = format(value, "f")
    if "." in written:
        written = written.rstrip("0").rstrip(".")
    return "0" if written == "-0" else written
