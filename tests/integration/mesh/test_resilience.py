"""What sidecars do when parts fail: who is ejected, what is executed twice, and what a change of certificate or manifest costs."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import grpc.aio
import pytest

from mesh.local.ca import publish_certificate
from mesh.local.compiler.tls import spiffe_id
from mesh.local.operator import NAMESPACE, TRUST_DOMAIN
from tests.integration.mesh.world import CANCEL, CHECK, CREATE, GET_ORDER, READ_EVENTS, World, call, refusal, running, until

KEEPALIVE_SECONDS_MAX = 7.0
"""Twice what interval and timeout of both attempts add up to; a call waits ten."""
CALLS_TO_MEET_ALL = 16
"""One of two replicas is left out once in 32,768 times."""
ORDERS, CONTROL = "outbound|9000|orders|svc-oms", "outbound|9000|control|svc-oms"


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    instances = {"svc_oms": ["svc_oms-0", "svc_oms-1"], "svc_risk": ["svc_risk-0", "svc_risk-1"], "edge": ["edge-0"]}
    async with running(tmp_path / "m", instances) as started:
        yield started


async def ejected(world: World, cluster: str) -> int:
    """Return how many hosts of a cluster the edge's sidecar has ejected."""
    lines = (await world.admin("edge-0", "/clusters")).splitlines()
    return sum("/failed_outlier_check" in line for line in lines if line.startswith(cluster))


async def test_an_honest_unavailable_is_executed_once_for_writes_and_twice_for_reads(world: World) -> None:
    oms, risk = ([world.applications[f"{service}-{number}"] for number in (0, 1)] for service in ("svc_oms", "svc_risk"))
    for application in (*oms, *risk):
        application.refuses = lambda path: True
    token = world.issuer.token()
    for path in (CREATE, CANCEL):
        assert (await refusal(world.call("edge-0", "svc-oms", path, token=token))).code() is grpc.StatusCode.UNAVAILABLE
        assert [application.paths().count(path) for application in oms] in ([1, 0], [0, 1]), path
    # On the other replica, which is the point of trying again.
    assert (await refusal(world.call("edge-0", "svc-oms", GET_ORDER, token=token))).code() is grpc.StatusCode.UNAVAILABLE
    assert [application.paths().count(GET_ORDER) for application in oms] == [1, 1]
    assert (await refusal(world.call("svc_oms-0", "svc-risk", CHECK))).code() is grpc.StatusCode.UNAVAILABLE
    assert [application.paths().count(CHECK) for application in risk] == [1, 1]


async def test_a_caller_cannot_ask_a_sidecar_for_more_tries_or_time(world: World) -> None:
    oms = [world.applications[f"svc_oms-{number}"] for number in (0, 1)]
    for application in oms:
        application.refuses = lambda path: True
    wishes = (("x-envoy-retry-grpc-on", "unavailable"), ("x-envoy-retry-on", "5xx"), ("x-envoy-max-retries", "3"))
    error = await refusal(world.call("edge-0", "svc-oms", CREATE, token=world.issuer.token(), headers=wishes))
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    calls = [headers for application in oms for path, headers in application.calls if path == CREATE]
    assert len(calls) == 1
    assert not any(key.startswith("x-envoy-retry") for key, _ in calls[0])


async def test_order_entry_loses_a_host_and_cancels_keep_both(world: World) -> None:
    token, sick = world.issuer.token(), world.applications["svc_oms-0"]
    sick.refuses = lambda path: path == CREATE
    async with world.channel("edge-0", "svc-oms") as channel:

        async def one_gone() -> bool:
            with suppress(grpc.aio.AioRpcError):
                await call(channel, CREATE, token=token)
            return await ejected(world, ORDERS) == 1

        await until(one_gone)
        for _ in range(40):
            await call(channel, CANCEL, token=token)
        assert await ejected(world, CONTROL) == 0
        assert all(CANCEL in world.applications[f"svc_oms-{number}"].paths() for number in (0, 1))


async def test_refused_orders_never_cost_a_cancel(world: World) -> None:
    """Risk is away, so every order is refused honestly, by every replica; half of the pool stays, and cancels do not notice."""
    token = world.issuer.token()
    for number in (0, 1):
        world.applications[f"svc_oms-{number}"].refuses = lambda path: path == CREATE
    async with world.channel("edge-0", "svc-oms") as channel:

        async def refused() -> str:
            return (await refusal(call(channel, CREATE, token=token))).details() or ""

        for _ in range(10):
            said = await asyncio.gather(*(refused() for _ in range(100)))
            assert set(said) == {"not now"}
            await asyncio.gather(*(call(channel, CANCEL, token=token) for _ in range(10)))
        assert await ejected(world, ORDERS) == 1
        assert await ejected(world, CONTROL) == 0


async def test_certificates_are_replaced_under_load_without_losing_a_call(world: World) -> None:
    authority, running_still = world.authority(), asyncio.Event()

    async def load(channel: grpc.aio.Channel) -> int:
        count = 0
        while not running_still.is_set():
            await call(channel, READ_EVENTS)
            count += 1
        return count

    serials: set[str] = set()

    async def changed(instance: str) -> bool:
        return any(line not in serials for line in await certificate(instance))

    async def certificate(instance: str) -> list[str]:
        lines = (await world.admin(instance, "/certs")).splitlines()
        return [line for line in lines if "serial_number" in line]

    async with world.channel("svc_risk-0", "svc-oms") as channel:
        calls = [asyncio.create_task(load(channel)) for _ in range(8)]
        try:
            for _ in range(4):
                for proxy in world.topology.proxies:
                    serials.update(await certificate(proxy.instance))
                    name = spiffe_id(TRUST_DOMAIN, NAMESPACE, proxy.service_account)
                    publish_certificate(proxy.certificates, authority.issue(name, seconds=600))
                for proxy in world.topology.proxies:
                    await until(lambda proxy=proxy: changed(proxy.instance))  # type: ignore[misc]
                # New connections, made with the new certificates, work as the open ones do.
                async with world.channel("svc_risk-1", "svc-oms") as fresh:
                    await call(fresh, READ_EVENTS)
        finally:
            running_still.set()
        counts = await asyncio.gather(*calls)
    assert min(counts) > 0


async def test_a_changed_manifest_takes_effect_without_a_restart_and_a_wrong_one_does_not(world: World) -> None:
    policy = world.manifests / "svc-oms.yaml"
    good = policy.read_text()

    async def denied() -> bool:
        try:
            await world.call("svc_risk-0", "svc-oms", READ_EVENTS)
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.PERMISSION_DENIED:
                raise
            return True
        return False

    async def all_say(expected: bool) -> bool:
        """Each replica's sidecar follows for itself, when its open connection is drained; a row of calls leaves none of them out."""
        return [await denied() for _ in range(CALLS_TO_MEET_ALL)] == [expected] * CALLS_TO_MEET_ALL

    await world.call("svc_risk-0", "svc-oms", READ_EVENTS)
    policy.write_text(good.replace("              - trademesh.local/ns/trading/sa/svc-risk\n", ""))
    world.plane.step()
    await until(lambda: all_say(True))
    policy.write_text(good.replace("kind: Sidecar", "kind: Sidecart"))
    world.plane.step()
    assert await all_say(True)
    policy.write_text(good)
    world.plane.step()
    await until(lambda: all_say(False))


async def test_an_application_that_comes_and_goes_needs_no_restart_of_its_sidecar(world: World) -> None:
    for number in (0, 1):
        world.layout.socket(f"svc_oms-{number}").rename(world.layout.private(f"svc_oms-{number}") / "away")
    # One that has not connected yet finds nobody.
    assert (await refusal(world.call("svc_risk-0", "svc-oms", READ_EVENTS))).code() is grpc.StatusCode.UNAVAILABLE
    for number in (0, 1):
        (world.layout.private(f"svc_oms-{number}") / "away").rename(world.layout.socket(f"svc_oms-{number}"))

    async def answered() -> bool:
        try:
            return bool(await world.call("svc_risk-0", "svc-oms", READ_EVENTS))
        except grpc.aio.AioRpcError:
            return False

    await until(answered)


async def test_a_replica_that_is_away_costs_no_read(world: World) -> None:
    world.layout.socket("svc_oms-0").unlink()
    async with world.channel("svc_risk-0", "svc-oms") as channel:
        # One after the other: the budget would not let half of a crowd try again.
        for _ in range(50):
            await call(channel, READ_EVENTS)
    assert world.applications["svc_oms-1"].paths().count(READ_EVENTS) == 50


async def test_an_instance_that_is_not_ready_gets_no_new_calls_and_ends_those_under_way(world: World) -> None:
    replicas = [world.applications[f"svc_oms-{number}"] for number in (0, 1)]

    async def met(channel: grpc.aio.Channel) -> list[bool]:
        before = [len(replica.calls) for replica in replicas]
        for _ in range(CALLS_TO_MEET_ALL):
            await call(channel, READ_EVENTS)
        return [len(replica.calls) > count for replica, count in zip(replicas, before, strict=True)]

    async with world.channel("svc_risk-0", "svc-oms") as channel:
        assert await met(channel) == [True, True]
        for replica in replicas:
            replica.goes_on.clear()
        counts = [len(replica.calls) for replica in replicas]
        waiting = [asyncio.create_task(call(channel, READ_EVENTS)) for _ in range(CALLS_TO_MEET_ALL)]
        await until(lambda: sum(len(replica.calls) for replica in replicas) == sum(counts) + CALLS_TO_MEET_ALL)
        assert all(len(replica.calls) > count for replica, count in zip(replicas, counts, strict=True))
        world.unready.add("svc_oms-0")
        world.plane.step()
        for replica in replicas:
            replica.goes_on.set()
        assert all(await asyncio.gather(*waiting))

        async def left_out() -> bool:
            return await met(channel) == [False, True]

        await until(left_out)
        world.unready.clear()
        world.plane.step()

        async def back() -> bool:
            return await met(channel) == [True, True]

        await until(back)


async def test_an_application_that_stands_still_behind_its_sidecar_costs_no_deadline(world: World) -> None:
    """By the sidecar's own pings: somebody accepts its connection and answers nothing."""

    async def swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()
        given_up.set()

    given_up = asyncio.Event()
    async with AsyncExitStack() as stack:
        for number in (0, 1):
            world.layout.socket(f"svc_oms-{number}").unlink()
            silent = await asyncio.start_unix_server(swallow, str(world.layout.socket(f"svc_oms-{number}")))
            await stack.enter_async_context(silent)
        began = time.monotonic()
        error = await refusal(world.call("svc_risk-0", "svc-oms", READ_EVENTS))
        assert error.code() is grpc.StatusCode.UNAVAILABLE
        assert 1.0 < time.monotonic() - began < KEEPALIVE_SECONDS_MAX
        await given_up.wait()


async def test_a_sidecar_that_stands_still_is_noticed_long_before_a_deadline(world: World) -> None:
    """By the mesh's keepalive: a stopped process keeps its connections open and answers nothing."""
    stopped = [world.sidecar_pid(f"svc_oms-{number}") for number in (0, 1)]
    async with world.channel("svc_risk-0", "svc-oms") as channel:
        await asyncio.gather(*(call(channel, READ_EVENTS) for _ in range(20)))
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        try:
            began = time.monotonic()
            assert (await refusal(call(channel, READ_EVENTS))).code() is grpc.StatusCode.UNAVAILABLE
            assert time.monotonic() - began < KEEPALIVE_SECONDS_MAX
        finally:
            for pid in stopped:
                os.kill(pid, signal.SIGCONT)

        async def answered() -> bool:
            with suppress(grpc.aio.AioRpcError):
                return bool(await call(channel, READ_EVENTS))
            return False

        await until(answered)


async def test_two_meshes_on_one_machine_do_not_meet(world: World, tmp_path: Path) -> None:
    async with running(tmp_path / "n", {"svc_oms": ["svc_oms-0"], "svc_risk": ["svc_risk-0"]}) as other:
        assert {proxy.address for proxy in world.topology.proxies}.isdisjoint(proxy.address for proxy in other.topology.proxies)
        await asyncio.gather(*(each.call("svc_risk-0", "svc-oms", READ_EVENTS) for each in (world, other)))
        assert other.applications["svc_oms-0"].paths() == [READ_EVENTS]
