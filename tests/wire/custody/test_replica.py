"""Whole replicas, as `python -m svc_custody` runs them, following the logs of two services over gRPC."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from kernel.bus.redis_streams import RedisStreamsBus
from kernel.config import ConfigError, load
from kernel.eventlog_servicer import event_log_binding
from kernel.ports import LogPosition, RecordedEvent
from mesh.local.provision import ServiceDatabase
from mesh.local.redis import EmbeddedRedis
from svc_custody.config import CustodyConfig
from svc_custody.main import serve
from tests.integration.custody.world import Custodian, Log, Orders, Reference
from tests.wire.custody.serving import FIRM, FIRM_OPERATIONS, TRADER, Custody
from tests.wire.custody.test_custody import movement
from tests.wire.serving import SECRET, RefusedError, headers_file, kept_logging, key, server_of
from tests.wire.serving import replica as whole_replica
from trademesh.custody.v1 import custody_service_pb2 as pb
from trademesh.custody.v1 import settlement_pb2


class Followable:
    """A scripted log as `EventLogService` reads it."""

    def __init__(self, log: Log) -> None:
        self._log = log

    async def read_after(self, cursor: LogPosition, limit: int) -> list[RecordedEvent]:
        """See `EventReader`."""
        return await self._log.read_after(cursor, limit)

    def subscribe(self, cursor: LogPosition, *, limit: int = 512) -> AsyncGenerator[list[RecordedEvent], None]:
        """See `EventReader`; nobody here subscribes."""
        raise AssertionError("custody reads pages")


@contextlib.asynccontextmanager
async def upstream(log: Log, name: str, folder: Path) -> AsyncIterator[str]:
    """Serve a log to custody alone; yield its target."""
    reader: Any = Followable(log)
    server = server_of(name, folder / f"{name}.sock", [event_log_binding(reader, "svc-custody")])
    await server.start()
    try:
        yield f"unix:{folder / f'{name}.sock'}"
    finally:
        await server.stop()


@contextlib.asynccontextmanager
async def replica(config: CustodyConfig) -> AsyncIterator[Custody]:
    """Run a whole replica in this process, and stop it in good order."""
    async with whole_replica(config.socket_path, lambda stop: serve(config, stop)) as (channel, _):
        yield Custody(channel, None)  # type: ignore[arg-type]  # a replica of its own, with nothing to reach into


def environment_of(instance: str, database: ServiceDatabase, folder: Path, orders: str, risk: str, **more: str) -> dict[str, str]:
    """Return the environment of a replica in a sandbox."""
    return {
        "TRADEMESH_INSTANCE": instance,
        "TRADEMESH_SOCKET_PATH": str(folder / f"{instance}.sock"),
        "TRADEMESH_SIDECAR_SECRET": SECRET,
        "TRADEMESH_DATABASE_DSN": database.dsn.reveal(),
        "TRADEMESH_TOKEN_KEY": "k" * 40,
        "TRADEMESH_FIRM_TENANT": FIRM,
        "TRADEMESH_OMS_TARGETS": orders,
        "TRADEMESH_RISK_TARGETS": risk,
        "TRADEMESH_HEADERS_FILE": str(headers_file(folder, "svc-custody")),
        "TRADEMESH_SANDBOX_CLOCK": "true",
        "TRADEMESH_AFFIRM_SECONDS": "0.2",
        **more,
    }


def config_of(instance: str, database: ServiceDatabase, folder: Path, orders: str, risk: str, **more: str) -> CustodyConfig:
    """Return the configuration of a replica in a sandbox."""
    return load(CustodyConfig, environment_of(instance, database, folder, orders, risk, **more))


async def eventually(client: Custody, state: int, count: int) -> list[settlement_pb2.Settlement]:
    """Return the account's instructions once so many stand in a state."""
    async with asyncio.timeout(20):
        while True:
            listed = await client.call("ListSettlements", pb.ListSettlementsRequest(account_id="ACC-1", state=state), TRADER)  # type: ignore[arg-type]  # the contract's numbers
            if len(listed.settlements) >= count:
                return list(listed.settlements)
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("with_bus", [False, True])
async def test_two_replicas_follow_settle_and_take_over(
    custody_database: ServiceDatabase, orders: Orders, reference: Reference, sockets: Path, redis_server: EmbeddedRedis, *, with_bus: bool
) -> None:
    more = {"TRADEMESH_REDIS_URL": redis_server.url.reveal()} if with_bus else {}
    async with contextlib.AsyncExitStack() as stack:
        targets = [
            await stack.enter_async_context(upstream(log, name, sockets)) for log, name in ((orders, "svc-oms"), (reference, "svc-risk"))
        ]
        other = await stack.enter_async_context(replica(config_of("svc_custody-1", custody_database, sockets, *targets, **more)))
        async with replica(config_of("svc_custody-0", custody_database, sockets, *targets, **more)) as first:
            async with asyncio.timeout(20):
                while True:
                    # Refused until svc_risk's log is folded.
                    with contextlib.suppress(RefusedError):
                        await first.call("CreateDeposit", movement())
                        break
                    await asyncio.sleep(0.05)
            today = (await first.call("GetBusinessDate", pb.GetBusinessDateRequest(), TRADER)).business_date
            orders.fill("buy", "5", "100", trade_date=today)
            await eventually(other, settlement_pb2.SETTLEMENT_STATE_AFFIRMED, 1)
            await first.call("AdvanceBusinessDate", pb.AdvanceBusinessDateRequest(request_id=key()), FIRM_OPERATIONS)
            await eventually(first, settlement_pb2.SETTLEMENT_STATE_SETTLED, 1)
        orders.bust("E1")
        settled = await eventually(other, settlement_pb2.SETTLEMENT_STATE_SETTLED, 2)
        assert settled[0].reverses_settlement_id == settled[1].settlement_id
        status = await other.call("GetLedgerStatus", pb.GetLedgerStatusRequest(verify_entries=True), FIRM_OPERATIONS)
        assert status.balanced
        assert (await other.call("ListBalances", pb.ListBalancesRequest(account_id="ACC-1"), TRADER)).balances[0].available == "1000"
        if with_bus:
            await told(redis_server)


async def told(server: EmbeddedRedis) -> None:
    """Wait until custody's own events are on the bus."""
    bus = RedisStreamsBus(server.url)
    try:
        async with asyncio.timeout(20):
            while not all((await bus.tails("custody")).values()):
                await asyncio.sleep(0.05)
    finally:
        await bus.close()


def test_every_wrong_key_is_named() -> None:
    with pytest.raises(ConfigError) as refused:
        load(CustodyConfig, {"TRADEMESH_INSTANCE": "svc_custody-0", "TRADEMESH_AFFIRM_SECONDS": "-1", "TRADEMESH_SANDBOX_CLOCK": "maybe"})
    named = {problem.split(":")[0] for problem in refused.value.problems}
    assert {"TRADEMESH_AFFIRM_SECONDS", "TRADEMESH_SANDBOX_CLOCK", "TRADEMESH_OMS_TARGETS", "TRADEMESH_RISK_TARGETS"} <= named


async def test_an_unknown_time_zone_is_a_wrong_configuration(
    custody_database: ServiceDatabase, custodian: Custodian, sockets: Path
) -> None:
    config = config_of("svc_custody-0", custody_database, sockets, "unix:/nowhere", "unix:/nowhere")
    object.__setattr__(config, "business_time_zone", "Mars/Olympus")
    with kept_logging(), pytest.raises(ConfigError):
        await serve(config, asyncio.Event())


def test_importing_the_service_loads_no_calendar() -> None:
    code = "import sys, svc_custody.main; sys.exit('holidays' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
