"""The form of a closed subset of a YAML language: what is not described is refused, with the path of the field."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

Check = Callable[[Any, str, list[str]], Any]
"""Takes a value, its path and the list of findings; returns the value in normal form. What it returns counts only without findings."""

UINT32_MAX = 2**32 - 1

_DURATION = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)(ms|s|m|h)", re.ASCII)
_UNIT_SECONDS = {"ms": Decimal("0.001"), "s": Decimal(1), "m": Decimal(60), "h": Decimal(3600)}


def text(pattern: str | None = None) -> Check:
    """Accept non-empty text, in full match of the pattern if there is one."""
    compiled = re.compile(pattern, re.ASCII) if pattern is not None else None

    def check(value: Any, path: str, problems: list[str]) -> Any:
        if not isinstance(value, str) or not value:
            problems.append(f"{path}: must be text, not {_shown(value)}")
        elif compiled is not None and compiled.fullmatch(value) is None:
            problems.append(f"{path}: must match {pattern}, not {_shown(value)}")
        return value

    return check


def whole(minimum: int, maximum: int = UINT32_MAX) -> Check:
    """Accept a whole number within inclusive bounds."""

    def check(value: Any, path: str, problems: list[str]) -> Any:
        if not isinstance(value, int) or isinstance(value, bool) or not minimum <= value <= maximum:
            problems.append(f"{path}: must be a whole number from {minimum} to {maximum}, not {_shown(value)}")
        return value

    return check


def percentage(value: Any, path: str, problems: list[str]) -> Any:
    """Accept a share of 0 to 100 percent, to a ten-thousandth of one, as Envoy's millionths can say it; return those millionths."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    millionths = Decimal(str(value)) * 10_000 if number else Decimal("NaN")
    if not number or not millionths.is_finite() or not 0 <= millionths <= 1_000_000 or millionths % 1:
        problems.append(f"{path}: must be a percentage from 0 to 100 with at most four decimals, not {_shown(value)}")
        return value
    return int(millionths)


def boolean(value: Any, path: str, problems: list[str]) -> Any:
    """Accept true and false."""
    if not isinstance(value, bool):
        problems.append(f"{path}: must be true or false, not {_shown(value)}")
    return value


def duration(value: Any, path: str, problems: list[str]) -> Any:
    """Accept `1h`, `1m`, `1.5s` or `100ms`, in whole milliseconds and at least one, as Istio does; return it in seconds, `1.5s`."""
    match = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        problems.append(f"{path}: must be a duration such as 1h, 1m, 1.5s or 100ms, not {_shown(value)}")
        return value
    seconds = Decimal(match[1]) * _UNIT_SECONDS[match[2]]
    if seconds <= 0 or seconds % _UNIT_SECONDS["ms"]:
        problems.append(f"{path}: must be at least 1ms, in whole milliseconds, not {_shown(value)}")
    whole_text, _, fraction = f"{seconds:f}".partition(".")
    fraction = fraction.rstrip("0")
    return f"{whole_text}.{fraction}s" if fraction else f"{whole_text}s"


def choice(*values: str) -> Check:
    """Accept one of these names."""

    def check(value: Any, path: str, problems: list[str]) -> Any:
        if value not in values:
            problems.append(f"{path}: must be {' or '.join(values)}, not {_shown(value)}")
        return value

    return check


def list_of(item: Check, *, least: int = 1) -> Check:
    """Accept a list with at least so many items of this form."""

    def check(value: Any, path: str, problems: list[str]) -> Any:
        if not isinstance(value, list) or len(value) < least:
            problems.append(f"{path}: must be a list of at least {least}, not {_shown(value)}")
            return value
        return [item(entry, f"{path}[{number}]", problems) for number, entry in enumerate(value)]

    return check


def map_of(item: Check) -> Check:
    """Accept a mapping of text to values of this form."""

    def check(value: Any, path: str, problems: list[str]) -> Any:
        if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
            problems.append(f"{path}: must be a mapping of text, not {_shown(value)}")
            return value
        return {key: item(entry, f"{path}.{key}", problems) for key, entry in value.items()}

    return check


def fields(required: Mapping[str, Check], optional: Mapping[str, Check] | None = None) -> Check:
    """Accept a mapping with exactly these fields, the optional ones if they are wanted."""
    known = {**required, **(optional or {})}

    def check(value: Any, path: str, problems: list[str]) -> Any:
        if not isinstance(value, dict):
            problems.append(f"{path}: must be a mapping, not {_shown(value)}")
            return value
        problems.extend(f"{path}.{key}: is not in the subset that is compiled here" for key in value if key not in known)
        problems.extend(f"{path}.{key}: is required" for key in required if key not in value)
        return {key: known[key](entry, f"{path}.{key}", problems) for key, entry in value.items() if key in known}

    return check


def some_of(alternatives: Mapping[str, Check]) -> Check:
    """Accept a mapping with one or more of these fields."""
    whole_form = fields({}, alternatives)

    def check(value: Any, path: str, problems: list[str]) -> Any:
        if value == {}:
            problems.append(f"{path}: must have one or more of {', '.join(alternatives)}")
        return whole_form(value, path, problems)

    return check


def one_of(alternatives: Mapping[str, Check]) -> Check:
    """Accept a mapping with exactly one of these fields."""
    return one_of_with(alternatives, {})


def one_of_with(alternatives: Mapping[str, Check], required: Mapping[str, Check]) -> Check:
    """Accept a mapping with exactly one of the alternatives, and all that is required besides."""
    whole_form = fields(required, alternatives)

    def check(value: Any, path: str, problems: list[str]) -> Any:
        if isinstance(value, dict) and sum(name in value for name in alternatives) != 1:
            problems.append(f"{path}: must have exactly one of {', '.join(alternatives)}")
        return whole_form(value, path, problems)

    return check


def _shown(value: Any) -> str:
    return repr(value)[:64]
