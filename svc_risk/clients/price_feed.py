"""The venue's reference-price feed: lines of JSON over TCP (the sandbox exchange's README has the schema).

Lines that this version does not know are skipped; a line that is not what it says ends the connection, because whatever follows it cannot
be trusted either.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any, NamedTuple, Protocol

from kernel.errors import Reason, TrademeshError, UnavailableError
from kernel.ports import Clock
from kernel.values import check_instrument_id, parse_price
from svc_risk.domain.reference_price import Quote

LINE_BYTES_MAX = 64 * 1024
SILENCE_SECONDS_MAX = 5.0
"""A feed that says nothing for so long is taken as dead; its heartbeats come twice a second."""
CONNECT_SECONDS_MAX = 5.0
_VERSION = 1


class Touch(NamedTuple):
    """Best bid and offer; None for an empty side."""

    instrument_id: str
    bid: Decimal | None
    ask: Decimal | None


class Trade(NamedTuple):
    """The last trade's price."""

    instrument_id: str
    price: Decimal


class PriorClose(NamedTuple):
    """The close of an earlier trading day."""

    instrument_id: str
    price: Decimal
    day: date


class Latest(NamedTuple):
    """All that there is to say of an instrument, in place of whatever was said before."""

    instrument_id: str
    quote: Quote


class Alive(NamedTuple):
    """A sign of life without a price."""


PriceFact = Touch | Trade | PriorClose | Latest | Alive


class PriceLine(NamedTuple):
    """One line of the feed.

    Attributes:
        fact: what it says.
        sent_at: when the sender wrote it, by the sender's clock.
        arrived_at: when it arrived, by the receiver's monotonic clock.
        silent_seconds: for how long the venue had not been heard when the line was written; 0 where the venue wrote it. None where the
            line is no sign of the venue's life.
    """

    fact: PriceFact
    sent_at: datetime
    arrived_at: float
    silent_seconds: float | None = 0.0


class PriceFeed(Protocol):
    """A source of reference prices."""

    def lines(self) -> AsyncIterator[PriceLine]:
        """Connect and yield lines until the connection ends, which raises.

        Raises:
            UnavailableError: no connection, silence, or a line that makes no sense.
        """
        ...


class JsonLinesFeed:
    """The feed over TCP.

    Args:
        host: of the feed.
        port: of the feed.
        venue: the name that the feed must give in its first line.
        clock: stamps arrivals.
    """

    def __init__(self, host: str, port: int, venue: str, clock: Clock) -> None:
        self._host = host
        self._port = port
        self._venue = venue
        self._clock = clock

    async def lines(self) -> AsyncIterator[PriceLine]:
        """See `PriceFeed.lines`."""
        try:
            async with asyncio.timeout(CONNECT_SECONDS_MAX):
                reader, writer = await asyncio.open_connection(self._host, self._port, limit=LINE_BYTES_MAX)
        except (OSError, TimeoutError) as error:
            raise unavailable(f"no connection ({type(error).__name__})") from error
        try:
            async for line in self._read(reader):
                yield line
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _read(self, reader: asyncio.StreamReader) -> AsyncIterator[PriceLine]:
        greeted = False
        while True:
            try:
                async with asyncio.timeout(SILENCE_SECONDS_MAX):
                    text = await reader.readuntil(b"\n")
            except TimeoutError as error:
                raise unavailable(f"silent for {SILENCE_SECONDS_MAX} s") from error
            except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, OSError) as error:
                raise unavailable(f"the connection ended ({type(error).__name__})") from error
            message = _parse(text)
            if not greeted:
                if message["type"] != "hello" or message.get("venue") != self._venue:
                    raise unavailable(f"it is not the feed of {self._venue}")
                greeted = True
            line = _line(message, self._clock.monotonic())
            if line is not None:
                yield line


def _parse(text: bytes) -> dict[str, Any]:
    try:
        message = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise unavailable("a line is not JSON") from error
    if not isinstance(message, dict) or message.get("v") != _VERSION or not isinstance(message.get("type"), str):
        raise unavailable(f"a line is not of version {_VERSION}")
    return message


def _line(message: dict[str, Any], arrived_at: float) -> PriceLine | None:
    try:
        sent_at = datetime.fromisoformat(message["time"]).astimezone(UTC)
        fact = _fact(message)
    except (KeyError, TypeError, ValueError, TrademeshError) as error:
        raise unavailable(f"a line of type {message['type'][:32]!r} is malformed") from error
    return None if fact is None else PriceLine(fact, sent_at, arrived_at)


def _fact(message: dict[str, Any]) -> PriceFact | None:
    match message["type"]:
        case "bbo":
            return Touch(check_instrument_id(message["instrument"]), _side(message["bid"]), _side(message["ask"]))
        case "trade":
            return Trade(check_instrument_id(message["instrument"]), parse_price(message["price"]))
        case "prior_close":
            day = date.fromisoformat(message["date"])
            return PriorClose(check_instrument_id(message["instrument"]), parse_price(message["price"]), day)
        case "heartbeat":
            return Alive()
        case _:
            return None


def _side(text: str | None) -> Decimal | None:
    return None if text is None else parse_price(text)


def unavailable(why: str) -> UnavailableError:
    """Return the error that ends a feed."""
    return UnavailableError(Reason.DEPENDENCY_UNAVAILABLE, f"the price feed: {why}")
