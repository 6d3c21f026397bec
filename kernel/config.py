"""Configuration: one frozen dataclass per process, parsed once from the environment.

    @dataclass(frozen=True)
    class OmsConfig:
        database_dsn: Dsn                                   # TRADEMESH_DATABASE_DSN or TRADEMESH_DATABASE_DSN_FILE
        batch_size_max: int = setting(256, minimum=1, maximum=4096)
        flush_wait_seconds: Seconds = setting(Seconds(0.5), minimum=0)

    config = load(OmsConfig)

A field without a default is required.
Types: `str`, `int`, `bool`, `Decimal`, `Seconds`, `Path`, `Secret`, `Dsn`, `tuple[T, ...]` of these, and `T | None`.
"""

from __future__ import annotations

import dataclasses
import os
import re
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from kernel.errors import InvalidArgumentError
from kernel.values import parse_decimal

PREFIX = "TRADEMESH_"
TARGET_PATTERN = r"[^?,\s]+(\?authority=[a-z0-9.-]+:[0-9]{1,5})?"
"""Where a service is called: a gRPC target, or a sidecar's egress socket and a host (`kernel.client_endpoints.split_target`)."""
SECRET_FILE_BYTES_MAX = 64 * 1024

_INTEGER = re.compile(r"-?[0-9]{1,18}", re.ASCII)
_SECONDS = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?", re.ASCII)
_BOOLEANS = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}
_METADATA_KEY = "trademesh_setting"

T = TypeVar("T")


class StartRefusedError(Exception):
    """The process must not start before a person has mended something; starting again by itself helps nobody."""


class ConfigError(StartRefusedError):
    """The configuration is wrong.

    `problems` has one sentence per wrong, missing or unknown key, secrets left out.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("configuration refused:\n" + "\n".join(f"  {problem}" for problem in problems))
        self.problems = tuple(problems)


class Seconds(float):
    """A duration in seconds; written as a plain decimal number."""


class Secret:
    """Text that must not be shown: `repr` and `str` hide it, `reveal` gives it."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """Return the secret itself; hand it on, never log it."""
        return self._text

    def __repr__(self) -> str:
        return f"{type(self).__name__}('***')"

    __str__ = __repr__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and type(other) is type(self) and other._text == self._text

    def __hash__(self) -> int:
        return hash((type(self), self._text))


class Dsn(Secret):
    """An address that carries a password: `scheme://user:password@host/…`. `repr` shows everything but the password."""

    __slots__ = ()

    def __repr__(self) -> str:
        parts = urlsplit(self._text)
        user, _, location = parts.netloc.rpartition("@")
        shown = f"{user.partition(':')[0]}:***@{location}" if user else location
        # The query may carry a password too; only its keys are shown.
        query = "?" + "&".join(pair.partition("=")[0] for pair in parts.query.split("&")) if parts.query else ""
        return f"Dsn('{parts.scheme}://{shown}{parts.path}{query}')"

    __str__ = __repr__


@dataclasses.dataclass(frozen=True)
class _Rule:
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[str, ...] = ()
    pattern: str | None = None

    def problem(self, value: object) -> str | None:
        if isinstance(value, (int, float, Decimal)) and not isinstance(value, bool):
            if self.minimum is not None and value < self.minimum:
                return f"must be at least {self.minimum}"
            if self.maximum is not None and value > self.maximum:
                return f"must be at most {self.maximum}"
        if isinstance(value, str):
            if self.choices and value not in self.choices:
                return f"must be one of {', '.join(self.choices)}"
            if self.pattern is not None and re.fullmatch(self.pattern, value) is None:
                return f"must match {self.pattern}"
        return None


def setting(
    default: Any = dataclasses.MISSING,
    *,
    minimum: float | None = None,
    maximum: float | None = None,
    choices: Sequence[str] = (),
    pattern: str | None = None,
) -> Any:
    """Declare a field's rule: inclusive bounds for numbers, choices or a full-match pattern for text. Lists apply it to every item."""
    return dataclasses.field(default=default, metadata={_METADATA_KEY: _Rule(minimum, maximum, tuple(choices), pattern)})


def load(config_type: type[T], environment: Mapping[str, str] | None = None, *, ignore: Sequence[str] = ()) -> T:
    """Parse a frozen dataclass from `TRADEMESH_*` keys.

    Field `risk_address` is key `TRADEMESH_RISK_ADDRESS`; a `Secret` or `Dsn` may come from a file named by `TRADEMESH_…_FILE` instead.

    Args:
        config_type: the dataclass.
        environment: `os.environ` unless given.
        ignore: prefixes of `TRADEMESH_*` keys that belong to somebody else in the same environment.

    Raises:
        ConfigError: names every missing, malformed, out-of-range, doubled and unknown key at once.
    """
    environment = os.environ if environment is None else environment
    values: dict[str, Any] = {}
    problems: list[str] = []
    known: set[str] = set()
    for field, annotation in _fields(config_type):
        key = PREFIX + field.name.upper()
        known |= {key, f"{key}_FILE"} if _is_secret(annotation) else {key}
        try:
            text = _text_of(environment, key, from_file=_is_secret(annotation))
            if text is not None:
                values[field.name] = _parse(annotation, text, field.metadata.get(_METADATA_KEY, _Rule()))
            elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
                raise ValueError("is required" + (f" (or {key}_FILE)" if _is_secret(annotation) else ""))
        except ValueError as error:
            problems.append(f"{key}: {error}")
    for key in sorted(environment):
        if key.startswith(PREFIX) and key not in known and not key.startswith(tuple(ignore)):
            problems.append(f"{key}: is not a known key")
    if problems:
        raise ConfigError(problems)
    return config_type(**values)


def _fields(config_type: type[Any]) -> list[tuple[dataclasses.Field[Any], Any]]:
    hints = typing.get_type_hints(config_type)
    return [(field, _without_none(hints[field.name])) for field in dataclasses.fields(config_type)]


def _without_none(annotation: Any) -> Any:
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        members = [member for member in typing.get_args(annotation) if member is not type(None)]
        if len(members) != 1:
            raise TypeError(f"a setting has one type, or one type and None: {annotation}")
        return members[0]
    return annotation


def _is_secret(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, Secret)


def _text_of(environment: Mapping[str, str], key: str, *, from_file: bool) -> str | None:
    text, path = environment.get(key), environment.get(f"{key}_FILE") if from_file else None
    if text is not None and path is not None:
        raise ValueError(f"is given twice, also as {key}_FILE")
    if path is None:
        return text
    try:
        with Path(path).open("rb") as file:
            content = file.read(SECRET_FILE_BYTES_MAX + 1)
        if len(content) > SECRET_FILE_BYTES_MAX:
            raise ValueError(f"its file is longer than {SECRET_FILE_BYTES_MAX} bytes: {path}")
        return content.decode().rstrip("\r\n")
    except OSError as error:
        raise ValueError(f"its file cannot be read: {path} ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"its file is not UTF-8: {path}") from error


def _parse(annotation: Any, text: str, rule: _Rule) -> Any:
    if typing.get_origin(annotation) is tuple:
        item_type = typing.get_args(annotation)[0]
        return tuple(_parse(item_type, item.strip(), rule) for item in text.split(",")) if text.strip() else ()
    parser = _PARSERS.get(annotation)
    if parser is None:
        raise TypeError(f"no setting can have the type {annotation}")
    value = parser(text)
    problem = rule.problem(value)
    if problem is not None:
        raise ValueError(problem if isinstance(value, Secret) else f"{problem}, not {text[:64]!r}")
    return value


def _parse_text(text: str) -> str:
    if not text:
        raise ValueError("must not be empty")
    return text


def _parse_integer(text: str) -> int:
    if _INTEGER.fullmatch(text) is None:
        raise ValueError(f"must be a whole number, not {text[:64]!r}")
    return int(text)


def _parse_boolean(text: str) -> bool:
    try:
        return _BOOLEANS[text.lower()]
    except KeyError:
        raise ValueError(f"must be true or false, not {text[:64]!r}") from None


def _parse_seconds(text: str) -> Seconds:
    if _SECONDS.fullmatch(text) is None:
        raise ValueError(f"must be a number of seconds such as 0.5, not {text[:64]!r}")
    return Seconds(text)


def _parse_exact(text: str) -> Decimal:
    try:
        return parse_decimal(text)
    except InvalidArgumentError as error:
        raise ValueError(f"{error.field_violations[0].description}, not {text[:64]!r}") from error


def _parse_secret(text: str) -> Secret:
    if not text:
        raise ValueError("must not be empty")
    return Secret(text)


def _parse_dsn(text: str) -> Dsn:
    try:
        well_formed = bool(urlsplit(text).scheme) and "://" in text
    except ValueError:
        well_formed = False
    if not well_formed:
        raise ValueError("must be an address of the form scheme://user:password@host/…")
    return Dsn(text)


_PARSERS: dict[Any, Callable[[str], Any]] = {
    str: _parse_text,
    int: _parse_integer,
    bool: _parse_boolean,
    Decimal: _parse_exact,
    Seconds: _parse_seconds,
    Path: lambda text: Path(_parse_text(text)),
    Secret: _parse_secret,
    Dsn: _parse_dsn,
}
