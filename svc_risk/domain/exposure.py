"""What an account has at risk: open orders and positions, by instrument and in sum.

Money is in the account's currency, to 18 places; a product that needs more is rounded up, so that rounding never hides an exposure.
Values here are tuples, because a check makes several of them and tuples are made three times as fast as frozen dataclasses.
"""

from __future__ import annotations

from datetime import datetime
from decimal import ROUND_UP, Decimal
from typing import NamedTuple

from kernel.values import MAGNITUDE_LIMIT, SCALE_MAX, ZERO, exact_context
from svc_risk.domain.rate import NO_MESSAGES, RateWindow
from svc_risk.domain.vocabulary import Side

QUANTUM = Decimal(1).scaleb(-SCALE_MAX)
# In a context of its own: a module may be imported before the process has made its decimals exact.
AMOUNT_MAX = exact_context().subtract(MAGNITUDE_LIMIT, QUANTUM)

_BUY = Side.BUY


class Held(NamedTuple):
    """What one order holds reserved: quantity in units of the instrument, notional in money. Both zero or more."""

    quantity: Decimal
    notional: Decimal


NOTHING = Held(ZERO, ZERO)


class InstrumentExposure(NamedTuple):
    """An account's exposure in one instrument; made by `instrument_exposure`.

    `position` is negative when short, `mark` is the last price that risk saw (zero for none), and `gross` is the larger of what all open
    buys filled, and all open sells filled, would leave: the worse side of the position.
    """

    position: Decimal
    mark: Decimal
    buy_quantity: Decimal
    buy_notional: Decimal
    sell_quantity: Decimal
    sell_notional: Decimal
    gross: Decimal

    @property
    def position_notional(self) -> Decimal:
        """Return the position's value at its mark, negative when short."""
        return bounded_product(self.position, self.mark)


def instrument_exposure(
    position: Decimal, mark: Decimal, buy_quantity: Decimal, buy_notional: Decimal, sell_quantity: Decimal, sell_notional: Decimal
) -> InstrumentExposure:
    """Return an exposure with its gross."""
    if position:
        value = bounded_product(position, mark)
        gross = min(max(abs(value + buy_notional), abs(value - sell_notional)), AMOUNT_MAX)
    else:
        gross = buy_notional if buy_notional > sell_notional else sell_notional
    return InstrumentExposure(position, mark, buy_quantity, buy_notional, sell_quantity, sell_notional, gross)


class AccountExposure(NamedTuple):
    """An account's exposure in sum. `version` counts its events; `gross` sums its instruments, last revalued at `marked_at`."""

    version: int
    buy_notional: Decimal
    sell_notional: Decimal
    gross: Decimal
    reservation_count: int
    rate: RateWindow
    marked_at: datetime

    @property
    def open_notional(self) -> Decimal:
        """Return the notional of all open orders, both sides added."""
        return self.buy_notional + self.sell_notional


FLAT = InstrumentExposure(ZERO, ZERO, ZERO, ZERO, ZERO, ZERO, ZERO)


def no_exposure(marked_at: datetime) -> AccountExposure:
    """Return the exposure of an account that has just been created."""
    return AccountExposure(0, ZERO, ZERO, ZERO, 0, NO_MESSAGES, marked_at)


def product_up(quantity: Decimal, price: Decimal) -> Decimal:
    """Return quantity times price, rounded away from zero to 18 places; it may exceed what an amount can hold."""
    product = quantity * price
    return product.quantize(QUANTUM, rounding=ROUND_UP) if product % QUANTUM else product


def bounded_product(quantity: Decimal, price: Decimal) -> Decimal:
    """Return the same for facts, which cannot be refused: bounded to what an amount can hold, above any limit that can be set."""
    product = product_up(quantity, price)
    return product if -AMOUNT_MAX <= product <= AMOUNT_MAX else AMOUNT_MAX.copy_sign(product)


def shifted(exposure: InstrumentExposure, side: Side, before: Held, after: Held) -> InstrumentExposure:
    """Return the exposure after an order's reservation went from `before` to `after`."""
    position, mark, buy_quantity, buy_notional, sell_quantity, sell_notional, _ = exposure
    quantity, notional = after.quantity - before.quantity, after.notional - before.notional
    if side is _BUY:
        return instrument_exposure(position, mark, buy_quantity + quantity, buy_notional + notional, sell_quantity, sell_notional)
    return instrument_exposure(position, mark, buy_quantity, buy_notional, sell_quantity + quantity, sell_notional + notional)


def marked(exposure: InstrumentExposure, mark: Decimal) -> InstrumentExposure:
    """Return the exposure with its position valued at another price."""
    return instrument_exposure(exposure.position, mark, *exposure[2:6])


def filled(exposure: InstrumentExposure, position_delta: Decimal) -> InstrumentExposure:
    """Return the exposure after an execution moved the position."""
    return instrument_exposure(exposure.position + position_delta, *exposure[1:6])


def summed(
    account: AccountExposure,
    before: InstrumentExposure,
    after: InstrumentExposure,
    *,
    reservations: int = 0,
    events: int = 0,
    rate: RateWindow | None = None,
) -> AccountExposure:
    """Return the account's sums after one of its instruments changed, `reservations` more are held and `events` more were recorded.

    `rate` are its messages afterwards, None for those before.
    """
    version, buy_notional, sell_notional, gross, count, known, marked_at = account
    if after is not before:
        buy_notional += after.buy_notional - before.buy_notional
        sell_notional += after.sell_notional - before.sell_notional
        gross += after.gross - before.gross
    return AccountExposure(
        version + events, buy_notional, sell_notional, gross, count + reservations, known if rate is None else rate, marked_at
    )
