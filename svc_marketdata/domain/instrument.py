"""What the feed lists, and how its whole numbers become decimals."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

PRICE_SCALE_MAX = 18


def scaled_text(value: int, scale: int) -> str:
    """Write value / 10**scale as a canonical decimal; `value` is 0 or more."""
    if scale == 0:
        return str(value)
    text = str(value).rjust(scale + 1, "0")
    fraction = text[-scale:].rstrip("0")
    return f"{text[:-scale]}.{fraction}" if fraction else text[:-scale]


@dataclass(frozen=True, slots=True)
class Grid:
    """A step such as a lot, as a whole number of 10**-scale."""

    step: int
    scale: int

    @classmethod
    def of(cls, step: Decimal) -> Grid:
        """Return the grid of a decimal step above zero.

        Raises:
            ValueError: it is not above zero, or finer than 18 places.
        """
        exponent = step.normalize().as_tuple().exponent
        if not isinstance(exponent, int) or step <= 0 or exponent < -PRICE_SCALE_MAX:
            raise ValueError(f"not a step: {step}")
        scale = max(0, -exponent)
        return cls(int(step.scaleb(scale)), scale)

    def text(self, count: int) -> str:
        """Write `count` steps as a canonical decimal."""
        return scaled_text(count * self.step, self.scale)

    def count(self, value: Decimal) -> int | None:
        """Return how many steps a value is, None where it lies between two."""
        count, rest = divmod(value.scaleb(self.scale), self.step)
        return None if rest else int(count)

    def decimal(self, count: int) -> Decimal:
        """Return `count` steps."""
        return Decimal(count * self.step).scaleb(-self.scale)


@dataclass(frozen=True, slots=True)
class ListedInstrument:
    """An instrument of the feed.

    Attributes:
        instrument_id: as orders name it.
        price_grid: what one unit of the feed's prices is.
        lot_grid: what one unit of the feed's quantities is.
        tick_size: prices are multiples of this.
        currency: of prices.
    """

    instrument_id: str
    price_grid: Grid
    lot_grid: Grid
    tick_size: Decimal
    currency: str
