"""Composition root of market data: `python -m svc_marketdata`, configured by the environment (`svc_marketdata.config`)."""

from __future__ import annotations

import asyncio

from kernel.config import load
from kernel.foundation import foundation
from kernel.foundation_stores import database_answers, open_database
from kernel.paging import PageTokens
from kernel.ports import Clock
from kernel.process import quiet_collector, run_process, until_stopped
from kernel.server_policy import ServiceBinding, inside, outside
from kernel.streams import ResumeTokens
from svc_marketdata.config import FeedAddresses, MarketDataConfig, feed_addresses
from svc_marketdata.consumer.recorder import TradeRecorder
from svc_marketdata.domain import Venue
from svc_marketdata.itch.liveness import Liveness
from svc_marketdata.itch.receiver import FeedReceiver
from svc_marketdata.servicer.feed import MarketFeed
from svc_marketdata.servicer.market_data import MarketDataServicer
from svc_marketdata.servicer.reference_prices import ReferencePriceServicer
from svc_marketdata.store import MIGRATIONS
from svc_marketdata.store.trades import TradeStore
from trademesh.marketdata.v1 import market_data_service_pb2, reference_price_service_pb2

READERS = ("viewer", "trader", "risk-officer", "compliance", "operations", "admin")
"""Market data belongs to no account: whoever may read anything may read it."""

PRICE_READERS = ("svc-risk", "svc-portfolio")


def bindings(
    feed: MarketFeed, trades: TradeStore, page_tokens: PageTokens, resume_tokens: ResumeTokens, clock: Clock
) -> list[ServiceBinding]:
    """Return the services with what each of their methods demands."""
    market_data = market_data_service_pb2.DESCRIPTOR.services_by_name["MarketDataService"]
    read = outside(*READERS, write=False)
    return [
        ServiceBinding(
            market_data,
            MarketDataServicer(feed, trades, page_tokens, resume_tokens, clock),
            {method.name: read for method in market_data.methods},
        ),
        ServiceBinding(
            reference_price_service_pb2.DESCRIPTOR.services_by_name["ReferencePriceService"],
            ReferencePriceServicer(feed, clock),
            {"StreamReferencePrices": inside(*PRICE_READERS, write=False)},
        ),
    ]


async def serve(config: MarketDataConfig, addresses: FeedAddresses, stop: asyncio.Event) -> None:
    """Run a replica until `stop` is set, then end it gracefully: no new calls, what was taken in finished.

    Raises:
        MigrationError, TrademeshError, OSError: the schema is not there, or something needed does not answer at the start.
    """
    async with foundation("svc-marketdata", config, trace_ratio=config.trace_ratio) as base:
        database = await open_database(base, config.database_dsn, MIGRATIONS)
        trades = TradeStore(database, config.venue)
        venue, liveness = Venue(await trades.latest_days()), Liveness()
        recorder = TradeRecorder(trades)
        base.closing(recorder.finish)
        receiver = FeedReceiver(addresses, venue, liveness, base.clock)
        feed = MarketFeed(config.venue, venue, liveness, lambda: receiver.is_recovering, recorder, base.clock)
        receiver.on_change = feed.notify
        recorder.found = feed.tell_busts
        for source in (receiver, feed, recorder):
            base.telemetry.metrics.source(source.samples)
        # The feed is no condition: without it what is shown is stale and says so, and trades on record can still be read.
        server = base.server(
            bindings(feed, trades, PageTokens(config.token_key), ResumeTokens(config.token_key), base.clock),
            ready=database_answers(database),
        )
        await until_stopped(server, [receiver.run(), recorder.run()], stop, started=quiet_collector)


def main() -> int:
    """Run a replica as the environment configures it, and return the exit code; see `kernel.process`."""
    return run_process(
        "svc_marketdata",
        lambda: load(MarketDataConfig),
        lambda config, stop: serve(config, feed_addresses(config), stop),
        # An address of the feed that cannot be bound.
        expected=(OSError,),
    )
