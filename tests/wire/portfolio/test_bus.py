"""With a bus: our own changes go out on it."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from kernel.bus.redis_streams import RedisStreamsBus
from kernel.ports import RecordedEvent
from mesh.local.provision import ServiceDatabase
from mesh.local.redis import EmbeddedRedis
from tests.unit.portfolio.make import execution
from tests.wire.portfolio.conftest import PATIENCE_SECONDS, World, config_of, running
from tests.wire.portfolio.test_reads import known
from trademesh.portfolio.v1 import portfolio_service_pb2 as pb


async def test_changes_are_told_to_the_bus(migrated: ServiceDatabase, world: World, redis_server: EmbeddedRedis) -> None:
    config = replace(config_of("svc_portfolio-0", migrated, world), redis_url=redis_server.url)
    bus = RedisStreamsBus(redis_server.url)
    try:
        after = await bus.tails("portfolio")
        async with running(config, world) as portfolio:
            await known(portfolio)
            position = await world.execute(execution(1, "10", "5"), execution(2, "-4", "6"))
            request = pb.GetPortfolioRequest(account_id="ACC-1", min_position=position)
            assert [item.quantity for item in (await portfolio.call("GetPortfolio", request)).positions] == ["6"]
            told: list[RecordedEvent] = []
            async with asyncio.timeout(PATIENCE_SECONDS):
                while len(told) < 2:
                    for message in await bus.read("portfolio", after, 1.0):
                        after[message.partition] = message.sequence
                        told += message.events
        assert [(event.stream_id, event.version) for event in told] == [("position-ACC-1/AAPL", 1), ("position-ACC-1/AAPL", 2)]
    finally:
        await bus.close()
