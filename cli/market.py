"""Market data: books, quotes and trades."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest

import click

from cli import rpcs
from cli.exits import Exit
from cli.output import clock_time, enum_name, optional
from cli.session import Session, command, with_session
from trademesh.marketdata.v1 import market_data_pb2, market_data_service_pb2

_state_prefix = "BOOK_STATE_"


@command()
@click.argument("instrument")
@click.option("--depth", type=click.IntRange(1, 50), default=10, show_default=True, metavar="LEVELS")
@with_session
def book(session: Session, instrument: str, depth: int) -> int:
    """Show an instrument's book: `trademesh book AAPL`."""
    request = market_data_service_pb2.GetOrderBookRequest(instrument_id=instrument, depth=depth)
    message = session.call(rpcs.GET_ORDER_BOOK, request).message
    if session.output.as_json:
        session.output.document(message)
        return Exit.DONE
    found = message.book
    none = market_data_pb2.PriceLevel()
    rows = [
        (bid.order_count or "", bid.quantity, bid.price, ask.price, ask.quantity, ask.order_count or "")
        for bid, ask in zip_longest(found.bids, found.asks, fillvalue=none)
    ]
    session.output.table(("orders", "quantity", "bid", "ask", "quantity", "orders"), rows, empty="The book is empty.")
    state = enum_name(market_data_pb2.BookState, found.state, _state_prefix)
    session.output.line(f"{found.instrument_id} is {state}, feed message {found.sequence} of {found.feed_session}")
    return Exit.DONE


@command()
@click.argument("instruments", nargs=-1, required=True)
@with_session
def quotes(session: Session, instruments: Sequence[str]) -> int:
    """Show quotes: `trademesh quotes AAPL MSFT`."""
    request = market_data_service_pb2.BatchGetQuotesRequest(instrument_ids=instruments)
    message = session.call(rpcs.BATCH_GET_QUOTES, request).message
    if session.output.as_json:
        session.output.document(message)
        return Exit.DONE
    rows = [
        (
            item.instrument_id,
            optional(item, "bid_quantity"),
            optional(item, "bid_price"),
            optional(item, "ask_price"),
            optional(item, "ask_quantity"),
            optional(item, "last_price"),
            item.volume,
            optional(item, "prior_close"),
            enum_name(market_data_pb2.BookState, item.state, _state_prefix),
            clock_time(item.venue_time),
        )
        for item in message.quotes
    ]
    columns = ("instrument", "quantity", "bid", "ask", "quantity", "last", "volume", "prior close", "state", "time")
    session.output.table(columns, rows, empty="")
    return Exit.DONE


@command()
@click.argument("instrument")
@click.option("--page-size", type=int, default=50, show_default=True, metavar="COUNT")
@click.option("--page-token", default="", metavar="TOKEN", help="From the page before.")
@with_session
def trades(session: Session, instrument: str, page_size: int, page_token: str) -> int:
    """List an instrument's trades at the venue, newest first."""
    request = market_data_service_pb2.ListTradesRequest(instrument_id=instrument, page_size=page_size, page_token=page_token)
    message = session.call(rpcs.LIST_TRADES, request).message
    if session.output.as_json:
        session.output.document(message)
        return Exit.DONE
    rows = [
        (item.match_number, item.trade_date, item.price, item.quantity, "busted" if item.busted else "", clock_time(item.trade_time))
        for item in message.trades
    ]
    session.output.table(("match", "trade date", "price", "quantity", "", "time"), rows, empty="No trades.")
    session.output.next_page(message.next_page_token)
    return Exit.DONE
