"""Composition root of market data: `python -m svc_marketdata`, configured by the environment (`svc_marketdata.config`)."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, cast

from google.protobuf.descriptor import ServiceDescriptor

from kernel import logs
from kernel.clock import SystemClock
from kernel.config import ConfigError, load
from kernel.errors import TrademeshError
from kernel.grpc_server import GrpcServer, ServerConfig, run
from kernel.paging import PageTokens
from kernel.ports import Clock
from kernel.postgres import Database, MigrationError, PoolSettings, verify
from kernel.server_policy import ServiceBinding, inside, outside
from kernel.streams import ResumeTokens
from kernel.telemetry import Telemetry, TelemetryConfig
from kernel.values import use_exact_decimals
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
CONFIGURATION_EXIT_CODE = 78
GARBAGE_THRESHOLD = 50_000


def bindings(
    feed: MarketFeed, trades: TradeStore, page_tokens: PageTokens, resume_tokens: ResumeTokens, clock: Clock
) -> list[ServiceBinding]:
    """Return the services with what each of their methods demands."""
    market_data = _service(market_data_service_pb2, "MarketDataService")
    read = outside(*READERS, write=False)
    return [
        ServiceBinding(
            market_data,
            MarketDataServicer(feed, trades, page_tokens, resume_tokens, clock),
            {method.name: read for method in market_data.methods},
        ),
        ServiceBinding(
            _service(reference_price_service_pb2, "ReferencePriceService"),
            ReferencePriceServicer(feed, clock),
            {"StreamReferencePrices": inside(*PRICE_READERS, write=False)},
        ),
    ]


async def serve(config: MarketDataConfig, addresses: FeedAddresses, stop: asyncio.Event) -> None:
    """Run a replica until `stop` is set, then end it gracefully: no new calls, what was taken in finished.

    Raises:
        MigrationError, TrademeshError, OSError: the schema is not there, or something needed does not answer at the start.
    """
    clock = SystemClock()
    writer = logs.configure("svc-marketdata", config.instance)
    telemetry = Telemetry(
        TelemetryConfig("svc-marketdata", config.instance, config.telemetry_folder, config.trace_ratio / 100, config.otlp_endpoint)
    )
    await verify(config.database_dsn, MIGRATIONS)
    async with contextlib.AsyncExitStack() as stack:
        database = await Database.open(config.database_dsn, PoolSettings(application_name=config.instance))
        stack.push_async_callback(database.close)
        telemetry.start()
        stack.push_async_callback(telemetry.stop)
        trades = TradeStore(database, config.venue)
        venue, liveness = Venue(await trades.latest_days()), Liveness()
        recorder = TradeRecorder(trades)
        stack.push_async_callback(recorder.finish)
        receiver = FeedReceiver(addresses, venue, liveness, clock)
        feed = MarketFeed(config.venue, venue, liveness, lambda: receiver.is_recovering, recorder, clock)
        receiver.on_change = feed.notify
        recorder.found = feed.tell_busts
        for source in (receiver, feed, recorder):
            telemetry.metrics.source(source.samples)
        server = GrpcServer(
            _server_config(config),
            bindings(feed, trades, PageTokens(config.token_key), ResumeTokens(config.token_key), clock),
            ready=_ready(database),
            telemetry=telemetry,
            log_writer=writer,
            now=time.time,
        )
        await _until_stopped(server, [receiver.run(), recorder.run()], stop)
    writer.flush()


async def _until_stopped(server: GrpcServer, background: list[Coroutine[Any, Any, None]], stop: asyncio.Event) -> None:
    """Serve until told to stop, or until background work ends with a defect."""
    tasks = [asyncio.create_task(work) for work in background]
    stopped = asyncio.create_task(stop.wait())
    try:
        await server.start()
        _quiet_collector()
        done, _ = await asyncio.wait([stopped, *tasks], return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            if task is not stopped:
                task.result()
                raise RuntimeError("background work ended by itself")
    finally:
        await server.stop()
        for task in (stopped, *tasks):
            task.cancel()
        await asyncio.gather(stopped, *tasks, return_exceptions=True)


def _quiet_collector() -> None:
    """Make the garbage collector rare: what the start left stays for good, and orders and messages hold no cycles."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(GARBAGE_THRESHOLD, 20, 100)


def _server_config(config: MarketDataConfig) -> ServerConfig:
    return ServerConfig(
        service="svc-marketdata",
        instance=config.instance,
        socket_path=config.socket_path,
        sidecar_secret=config.sidecar_secret.reveal(),
    )


def _ready(database: Database) -> Callable[[], Awaitable[bool]]:
    async def ready() -> bool:
        # The feed is no condition: without it what is shown is stale and says so, and trades on record can still be read.
        return bool(await database.fetchval("SELECT true"))

    return ready


def _service(module: Any, name: str) -> ServiceDescriptor:
    return cast("ServiceDescriptor", module.DESCRIPTOR.services_by_name[name])


def main() -> int:
    """Parse the configuration once, run, and return the exit code: 78 for a configuration or schema that a person has to mend."""
    use_exact_decimals()
    try:
        config = load(MarketDataConfig)
        addresses = feed_addresses(config)
        run(lambda stop: serve(config, addresses, stop))
    except (ConfigError, MigrationError) as error:
        sys.stderr.write(f"svc_marketdata: {error}\n")
        return CONFIGURATION_EXIT_CODE
    except (TrademeshError, OSError) as error:
        sys.stderr.write(f"svc_marketdata: {error}\n")
        return 1
    return 0
