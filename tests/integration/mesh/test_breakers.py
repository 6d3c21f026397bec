"""The mesh's circuit breakers open, try again and close, and tell of it in the numbers that the alerts look at."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import grpc.aio
import pytest

from tests.contract.alerts.test_rules import metrics, rules
from tests.integration.mesh.world import READ_EVENTS, World, call, refusal, running, until

READS = "outbound|9000||svc-oms.trading.svc.cluster.local"
CALLER = "svc_risk-0"

_LINE = re.compile(r"^(\w+)\{([^}]*)\} ([0-9.e+-]+)$", re.MULTILINE)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with running(tmp_path / "m", {"svc_oms": ["svc_oms-0", "svc_oms-1"], "svc_risk": [CALLER]}) as started:
        yield started


async def told(world: World) -> dict[str, float]:
    """Return what the caller's sidecar tells Prometheus of its pool of readers of svc-oms, by metric."""
    found = _LINE.findall(await world.admin(CALLER, "/stats/prometheus"))
    return {name: float(value) for name, labels, value in found if f'cluster_name="{READS}"' in labels.split(",")}


async def test_a_sick_instance_is_ejected_tried_again_and_taken_back(world: World) -> None:
    sick, sound = world.applications["svc_oms-0"], world.applications["svc_oms-1"]
    sick.refuses = lambda path: True
    async with world.channel(CALLER, "svc-oms") as channel:

        async def ejections() -> float:
            with suppress(grpc.aio.AioRpcError):
                await call(channel, READ_EVENTS)
            return (await told(world))["envoy_cluster_outlier_detection_ejections_enforced_total"]

        async def active() -> float:
            return (await told(world))["envoy_cluster_outlier_detection_ejections_active"]

        async def out() -> bool:
            return await ejections() == 1

        async def back() -> bool:
            return await active() == 0

        async def out_again() -> bool:
            return await ejections() >= 2

        await until(out)
        assert await active() == 1
        asked = len(sick.calls)
        for _ in range(20):
            await call(channel, READ_EVENTS)
        assert len(sick.calls) == asked, "nobody asks who is ejected"
        await until(back)
        # What it gets now is a trial, which it fails.
        await until(out_again)
        assert len(sick.calls) > asked
        sick.refuses = lambda path: False
        await until(back)
        before = len(sick.calls), len(sound.calls)
        for _ in range(40):
            await call(channel, READ_EVENTS)
        assert len(sick.calls) > before[0]
        assert len(sound.calls) > before[1]
        assert await active() == 0


async def test_a_full_pool_refuses_at_once_and_takes_calls_again(world: World) -> None:
    manifest = world.manifests / "svc-oms.yaml"
    text = manifest.read_text()
    assert text.count("http2MaxRequests: 8192") == 1
    manifest.write_text(text.replace("http2MaxRequests: 8192", "http2MaxRequests: 2"))
    world.plane.step()
    applications = [world.applications[f"svc_oms-{number}"] for number in (0, 1)]

    async def limited() -> bool:
        return (await told(world)).get("envoy_cluster_circuit_breakers_default_remaining_rq") == 2

    async def full() -> bool:
        return (await told(world))["envoy_cluster_circuit_breakers_default_rq_open"] == 1

    async def under_way() -> bool:
        return sum(len(application.calls) for application in applications) == 2

    await until(limited)
    for application in applications:
        application.goes_on.clear()
    async with world.channel(CALLER, "svc-oms") as channel:
        held = [asyncio.ensure_future(call(channel, READ_EVENTS)) for _ in range(2)]
        await until(under_way)
        await until(full)
        error = await refusal(call(channel, READ_EVENTS))
        assert (error.code(), error.details()) == (
            grpc.StatusCode.UNAVAILABLE,
            "upstream connect error or disconnect/reset before headers. reset reason: overflow",
        )
        assert await under_way(), "nothing was executed"
        for application in applications:
            application.goes_on.set()
        await asyncio.gather(*held)
        await call(channel, READ_EVENTS)
        assert not await full()


async def test_envoy_tells_every_number_that_the_alerts_ask_for(world: World) -> None:
    await world.call(CALLER, "svc-oms", READ_EVENTS)
    asked = {name for rule in rules() for name in metrics(rule["expr"]) if name.startswith("envoy_")}
    assert len(asked) >= 5
    numbers = set()
    for instance in (CALLER, "svc_oms-0", "svc_oms-1"):
        numbers |= set(re.findall(r"^(envoy_\w+)", await world.admin(instance, "/stats/prometheus"), re.MULTILINE))
    assert asked <= numbers
