"""What ITCH 5.0 has no message for, in types that it does not use: a receiver that does not know them skips them by their length.

A price of `n` on the wire is `n / 10**price_scale`. A quantity of `n` is `n` lots; a lot is `lot_units / 10**lot_scale`.
Dates are eight decimal digits as an integer, 20261122; 0 is none.
"""

from datetime import date
from typing import NamedTuple

from kernel.itch.errors import MalformedError


class InstrumentDefinition(NamedTuple):
    """d: how an instrument's integers are read, after its R and before anything else about it.

    Attributes:
        stock: the name on ITCH messages, at most 8 characters.
        symbol: the venue's name of it, at most 32.
        kind: E equity, C crypto pair.
        currency: what prices are in, at most 8 characters.
        price_scale: decimals of a price unit, 0 to 18.
        tick_units: price units between two prices.
        lot_scale, lot_units: one lot as a decimal.
        quantity_max: the largest order, in lots.
    """

    stock_locate: int
    tracking_number: int
    timestamp_ns: int
    stock: str
    symbol: str
    kind: str
    currency: str
    price_scale: int
    tick_units: int
    lot_scale: int
    lot_units: int
    quantity_max: int


class TradingDay(NamedTuple):
    """y: the date that an instrument's trades are of from now on, and its last official close before it.

    Attributes:
        trade_date: YYYYMMDD; while the instrument is closed, of the session before.
        close_date: YYYYMMDD of the session that `close_price` closed; 0 with a price of 0 if there is none.
    """

    stock_locate: int
    tracking_number: int
    timestamp_ns: int
    stock: str
    trade_date: int
    close_date: int
    close_price: int


class LastTrade(NamedTuple):
    """l: an instrument's last trade before the session or the snapshot began. It is old news: no volume counts it again.

    Attributes:
        shares: lots; 64 bits, whatever the executions were split into.
        match_number: of its first part, as in E.
        trade_date: YYYYMMDD.
        trade_time_ns: nanoseconds since the UNIX epoch.
    """

    stock_locate: int
    tracking_number: int
    timestamp_ns: int
    stock: str
    shares: int
    price: int
    match_number: int
    trade_date: int
    trade_time_ns: int


def date_number(iso_date: str) -> int:
    """Return an ISO 8601 date as YYYYMMDD; 0 for the empty string."""
    return int(iso_date.replace("-", "")) if iso_date else 0


def iso_date(number: int) -> str:
    """Return YYYYMMDD as an ISO 8601 date; the empty string for 0.

    Raises:
        MalformedError: no date.
    """
    if number == 0:
        return ""
    try:
        return date(number // 10_000, number // 100 % 100, number % 100).isoformat()
    except ValueError:
        raise MalformedError("itch date", f"{number} is not YYYYMMDD") from None
