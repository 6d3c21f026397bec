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


def canonical(written: str) -> str:
    """Return a decimal that the contract accepts in canonical text: without zeros at the end of its places."""
    return written.rstrip("0").rstrip(".") if "." in written else written
