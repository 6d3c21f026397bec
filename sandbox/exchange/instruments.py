"""Instruments: the grid of prices (ticks) and quantities (lots), the caps of one order, and where they are read from."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sandbox.exchange.calendar import Calendar, CalendarError, parse_calendar

AVERAGE_PRICE_DECIMALS = 8
# ITCH 5.0 has 32 bits for a price, here in units of 10^-scale; the wide forms of its messages have 64 for a quantity.
PRICE_UNITS_MAX = 2**32 - 1
LOTS_MAX = 2**63 - 1
# Texts are converted once and then remembered: a busy instrument sees the same few thousand prices.
_MEMORY_MAX = 65_536
_SYMBOL = re.compile(r"[A-Z0-9][A-Z0-9.-]{0,31}")
# FIX 4.4 `float` without a sign; the whole part and the fraction are bounded like every decimal of the project.
_UNSIGNED = re.compile(r"[0-9]{1,20}(?:\.[0-9]{0,18})?")


class OffGridError(ValueError):
    """A price or quantity that the instrument's grid does not have."""


class InstrumentFileError(ValueError):
    """The instruments file is wrong; the message names instrument, field and rule."""


def scaled_integer(text: str, scale: int) -> int:
    """Return `text` times ten to the `scale`, exactly.

    Raises:
        OffGridError: not an unsigned decimal of at most 20 and 18 digits, or it has more than `scale` decimals.
    """
    if not _UNSIGNED.fullmatch(text):
        raise OffGridError(f"{text[:64]!r} is not an unsigned decimal with at most 20 digits and 18 decimals")
    whole, _, fraction = text.partition(".")
    fraction = fraction.rstrip("0")
    if len(fraction) > scale:
        raise OffGridError(f"{text} has more than {scale} decimals")
    return int(whole + fraction.ljust(scale, "0"))


def decimal_text(coefficient: int, scale: int) -> str:
    """Return `coefficient` / 10^`scale` as a canonical decimal: no trailing zeros, no sign on zero."""
    if scale == 0:
        return str(coefficient)
    digits = str(abs(coefficient)).rjust(scale + 1, "0")
    fraction = digits[-scale:].rstrip("0")
    sign = "-" if coefficient < 0 else ""
    return f"{sign}{digits[:-scale]}.{fraction}" if fraction else f"{sign}{digits[:-scale]}"


def _scale_of(text: str) -> int:
    return len(text.partition(".")[2].rstrip("0"))


@dataclass(frozen=True, slots=True)
class Grid:
    """The multiples of one step: ticks for prices, lots for quantities. Integers in, canonical decimals out."""

    step: str
    scale: int
    units: int
    _counts: dict[str, int] = field(default_factory=dict, compare=False, repr=False)
    _texts: dict[int, str] = field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def of(cls, step: str) -> "Grid":
        """Make the grid of `step`, a positive decimal.

        Raises:
            OffGridError: zero, or not a decimal.
        """
        scale = _scale_of(step)
        units = scaled_integer(step, scale)
        if units == 0:
            raise OffGridError("a step of zero has no multiples")
        return cls(decimal_text(units, scale), scale, units)

    def count(self, text: str) -> int:
        """Return how many steps `text` is.

        Raises:
            OffGridError: not an unsigned decimal, or between two steps.
        """
        known = self._counts.get(text)
        if known is not None:
            return known
        steps, rest = divmod(scaled_integer(text, self.scale), self.units)
        if rest:
            raise OffGridError(f"{text} is not a multiple of {self.step}")
        if len(self._counts) >= _MEMORY_MAX:
            self._counts.clear()
        self._counts[text] = steps
        return steps

    def text(self, count: int) -> str:
        """Return `count` steps as a canonical decimal."""
        known = self._texts.get(count)
        if known is None:
            if len(self._texts) >= _MEMORY_MAX:
                self._texts.clear()
            known = self._texts[count] = decimal_text(count * self.units, self.scale)
        return known


@dataclass(frozen=True, slots=True)
class Instrument:
    """What trades here.

    Attributes:
        prices, quantities: the grids; the engine counts in ticks and lots.
        quantity_max: the largest order, in lots.
        value_max: the largest order's notional, in tick·lots, rounded down.
        initial_close: prior close in ticks for a venue that has no history of its own.
        price_max: the largest price in ticks: what 32 bits of price units hold, as on the market data feed.
    """

    symbol: str
    name: str
    kind: str
    currency: str
    prices: Grid
    quantities: Grid
    quantity_max: int
    value_max: int
    initial_close: int
    calendar: Calendar

    @property
    def price_max(self) -> int:
        """The largest price, in ticks."""
        return PRICE_UNITS_MAX // self.prices.units

    def average_price(self, value: int, quantity: int) -> str:
        """Return `value` (tick·lots) per `quantity` (lots) as a decimal price, half-even at 8 decimals; `0` for none."""
        if quantity == 0:
            return "0"
        numerator = value * self.prices.units * 10**AVERAGE_PRICE_DECIMALS
        denominator = quantity * 10**self.prices.scale
        quotient, rest = divmod(numerator, denominator)
        if 2 * rest > denominator or (2 * rest == denominator and quotient % 2):
            quotient += 1
        return decimal_text(quotient, AVERAGE_PRICE_DECIMALS)


_INSTRUMENT_FIELDS = (
    "symbol", "name", "kind", "currency", "tick", "lot", "quantity_max", "notional_max", "prior_close", "calendar",
)  # fmt: skip


def _parse_instrument(fields: Mapping[str, object], calendars: Mapping[str, Calendar]) -> Instrument:
    symbol = fields.get("symbol")
    where = f"instrument {symbol!r}"
    missing = [name for name in _INSTRUMENT_FIELDS if not isinstance(fields.get(name), str)]
    if missing:
        raise InstrumentFileError(f"{where}.{missing[0]}: a string is required")
    unknown = sorted(set(fields) - set(_INSTRUMENT_FIELDS))
    if unknown:
        raise InstrumentFileError(f"{where}: unknown field {unknown[0]!r}")
    text = {name: str(fields[name]) for name in _INSTRUMENT_FIELDS}
    if not _SYMBOL.fullmatch(text["symbol"]):
        raise InstrumentFileError(f"{where}.symbol: expected {_SYMBOL.pattern}")
    if text["kind"] not in ("equity", "crypto"):
        raise InstrumentFileError(f"{where}.kind: expected equity or crypto")
    if text["calendar"] not in calendars:
        raise InstrumentFileError(f"{where}.calendar: {text['calendar']!r} is not defined")
    try:
        prices, quantities = Grid.of(text["tick"]), Grid.of(text["lot"])
        quantity_max = quantities.count(text["quantity_max"])
        scale = prices.scale + quantities.scale
        value_max = scaled_integer(text["notional_max"], scale) // (prices.units * quantities.units)
        close = prices.count(text["prior_close"])
    except OffGridError as error:
        raise InstrumentFileError(f"{where}: {error}") from error
    if not (quantity_max and value_max and close):
        raise InstrumentFileError(f"{where}: quantity_max, notional_max and prior_close must be positive")
    if quantity_max > LOTS_MAX:
        raise InstrumentFileError(f"{where}.quantity_max: at most {LOTS_MAX} lots")
    instrument = Instrument(
        text["symbol"], text["name"], text["kind"], text["currency"], prices, quantities, quantity_max, value_max, close,
        calendars[text["calendar"]],
    )  # fmt: skip
    if close > instrument.price_max:
        raise InstrumentFileError(f"{where}.prior_close: at most {prices.text(instrument.price_max)}, which 32 bits of price units hold")
    return instrument


def parse_instruments(document: str) -> dict[str, Instrument]:
    """Read the instruments file: `{"calendars": {name: …}, "instruments": [ … ]}`, all numbers as decimal strings.

    Raises:
        InstrumentFileError: not JSON, or a field that is missing, unknown or outside its bounds.
    """
    try:
        root = json.loads(document)
    except json.JSONDecodeError as error:
        raise InstrumentFileError(f"not JSON: {error}") from error
    if not isinstance(root, dict) or not isinstance(root.get("calendars"), dict) or not isinstance(root.get("instruments"), list):
        raise InstrumentFileError('expected {"calendars": {…}, "instruments": […]}')
    try:
        calendars = {name: parse_calendar(name, dict(fields)) for name, fields in root["calendars"].items()}
    except (CalendarError, TypeError, ValueError) as error:
        raise InstrumentFileError(str(error)) from error
    instruments: dict[str, Instrument] = {}
    for fields in root["instruments"]:
        if not isinstance(fields, dict):
            raise InstrumentFileError(f"expected an object for an instrument, not {fields!r}")
        instrument = _parse_instrument(fields, calendars)
        if instrument.symbol in instruments:
            raise InstrumentFileError(f"instrument {instrument.symbol!r} is listed twice")
        instruments[instrument.symbol] = instrument
    if not instruments:
        raise InstrumentFileError("a venue needs at least one instrument")
    return instruments


def read_instruments(path: Path) -> dict[str, Instrument]:
    """Read and parse the instruments file at `path`.

    Raises:
        InstrumentFileError: unreadable or wrong; the message starts with the path.
    """
    try:
        return parse_instruments(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, InstrumentFileError) as error:
        raise InstrumentFileError(f"{path}: {error}") from error
