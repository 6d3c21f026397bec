"""ITCH messages as changes of a venue (Nasdaq TotalView-ITCH 5.0, and `kernel.itch.venue` for what it has no message for)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

from kernel.errors import TrademeshError
from kernel.itch import messages as m
from kernel.itch import venue as v
from kernel.itch.codec import decode
from kernel.itch.errors import MalformedError
from kernel.values import check_instrument_id
from svc_marketdata.domain import Aggressor, Close, Grid, ListedInstrument, Trade, Venue

NANOSECONDS = 1_000_000_000
_DAY_DIGITS = 6

_logger = logging.getLogger(__name__)


def session_midnight_ns(session: str) -> int | None:
    """Return the moment that a session's times count from: midnight UTC of the day in its name, `YYMMDD…`; None where it names none."""
    try:
        day = datetime.strptime(session[:_DAY_DIGITS], "%y%m%d").replace(tzinfo=UTC)
    except ValueError:
        return None
    return int(day.timestamp()) * NANOSECONDS


class FeedReader:
    """Applies messages to a venue.

    Args:
        venue: what the messages change.
    """

    def __init__(self, venue: Venue) -> None:
        self.venue = venue
        self.malformed = 0
        self._date(venue.session)

    def begin(self, session: str) -> None:
        """A session begins: its books are empty."""
        self.venue.begin(session)
        self._date(session)

    def adopt(self, snapshot: Venue) -> None:
        """Go on from a snapshot."""
        self.venue.adopt(snapshot)
        self._date(snapshot.session)

    def _date(self, session: str) -> None:
        midnight_ns = session_midnight_ns(session)
        self._midnight_ns = 0 if midnight_ns is None else midnight_ns

    def apply(self, sequence: int, messages: Sequence[bytes]) -> None:
        """Apply messages in order, `sequence` being the first one's number. One that cannot be read leaves every book in doubt."""
        venue = self.venue
        for data in messages:
            venue.sequence = sequence
            sequence += 1
            self._apply(data)

    def load(self, messages: Sequence[bytes]) -> None:
        """Apply messages of a snapshot, which have no numbers of their own."""
        for data in messages:
            self._apply(data)

    def _apply(self, data: bytes) -> None:
        try:
            message = decode(data)
            handler = _HANDLERS.get(type(message))
            if handler is not None:
                handler(self.venue, message, self._midnight_ns + message.timestamp_ns)  # type: ignore[union-attr]  # None has no handler
        except (MalformedError, TrademeshError, ValueError):
            self.malformed += 1
            self.venue.interrupt()


def snapshot_reader(session: str, next_sequence: int) -> FeedReader:
    """Return a reader for a snapshot's messages, which stand for everything before `next_sequence`."""
    return FeedReader(Venue.empty(session, next_sequence - 1))


def _date_of(number: int) -> date | None:
    text = v.iso_date(number)
    return date.fromisoformat(text) if text else None


def _definition(venue: Venue, message: v.InstrumentDefinition, time_ns: int) -> None:
    price_grid = Grid(1, message.price_scale)
    try:
        instrument = ListedInstrument(
            instrument_id=check_instrument_id(message.symbol),
            price_grid=price_grid,
            lot_grid=Grid.of(Decimal(message.lot_units).scaleb(-message.lot_scale)),
            tick_size=price_grid.decimal(message.tick_units),
            currency=message.currency,
        )
    except (TrademeshError, ValueError) as error:
        # What cannot be named or counted here is not shown; the other instruments are none the worse.
        _logger.error("the feed lists %r, which is left out: %s", message.symbol, error)
        return
    venue.list_instrument(message.stock_locate, instrument)


def _trading_day(venue: Venue, message: v.TradingDay, time_ns: int) -> None:
    closed = _date_of(message.close_date)
    close = None if closed is None or not message.close_price else Close(message.close_price, closed)
    venue.set_day(message.stock_locate, _date_of(message.trade_date), close)


def _last_trade(venue: Venue, message: v.LastTrade, time_ns: int) -> None:
    market = venue.located(message.stock_locate)
    day = _date_of(message.trade_date)
    if market is None or day is None or not message.price:
        return
    name = market.instrument.instrument_id
    trade = Trade(
        name,
        message.match_number,
        message.price,
        message.shares,
        Aggressor.UNKNOWN,
        day,
        message.trade_time_ns,
        venue.session,
        venue.sequence,
    )
    venue.remember(message.stock_locate, trade)


def _trading_action(venue: Venue, message: m.StockTradingAction, time_ns: int) -> None:
    venue.set_phase(message.stock_locate, time_ns, is_open=message.trading_state == "T")


def _add(venue: Venue, message: m.AddOrder | m.AddOrderAttributed, time_ns: int) -> None:
    venue.add(message.stock_locate, time_ns, message.reference, is_bid=message.side == "B", quantity=message.shares, price=message.price)


def _executed(venue: Venue, message: m.OrderExecuted, time_ns: int) -> None:
    venue.execute(message.stock_locate, time_ns, message.reference, message.shares, message.match_number)


def _executed_with_price(venue: Venue, message: m.OrderExecutedWithPrice, time_ns: int) -> None:
    if message.printable == "N":
        # Part of a cross, which is told by a message of its own: the shares leave the book and are no trade.
        venue.reduce(message.stock_locate, time_ns, message.reference, message.shares)
    else:
        venue.execute(message.stock_locate, time_ns, message.reference, message.shares, message.match_number, message.price)


def _cancel(venue: Venue, message: m.OrderCancel, time_ns: int) -> None:
    venue.reduce(message.stock_locate, time_ns, message.reference, message.shares)


def _delete(venue: Venue, message: m.OrderDelete, time_ns: int) -> None:
    venue.delete(message.stock_locate, time_ns, message.reference)


def _replace(venue: Venue, message: m.OrderReplace, time_ns: int) -> None:
    venue.replace(message.stock_locate, time_ns, message.reference, message.new_reference, quantity=message.shares, price=message.price)


def _hidden_trade(venue: Venue, message: m.Trade, time_ns: int) -> None:
    venue.trade(message.stock_locate, time_ns, message.match_number, quantity=message.shares, price=message.price)


def _cross(venue: Venue, message: m.CrossTrade, time_ns: int) -> None:
    if message.shares:
        venue.trade(message.stock_locate, time_ns, message.match_number, quantity=message.shares, price=message.cross_price)


def _broken(venue: Venue, message: m.BrokenTrade, time_ns: int) -> None:
    venue.bust(message.stock_locate, time_ns, message.match_number)


_HANDLERS: dict[type[Any], Callable[[Venue, Any, int], None]] = {
    v.InstrumentDefinition: _definition,
    v.TradingDay: _trading_day,
    v.LastTrade: _last_trade,
    m.StockTradingAction: _trading_action,
    m.AddOrder: _add,
    m.AddOrderAttributed: _add,
    m.OrderExecuted: _executed,
    m.OrderExecutedWithPrice: _executed_with_price,
    m.OrderCancel: _cancel,
    m.OrderDelete: _delete,
    m.OrderReplace: _replace,
    m.Trade: _hidden_trade,
    m.CrossTrade: _cross,
    m.BrokenTrade: _broken,
}
