"""The same questions to Envoys that the compiler configured and to Envoys that Istio did, with the same answers."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc.aio
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from mesh.conformance import plain
from mesh.conformance.committed import read
from mesh.conformance.run import SOCKETS
from mesh.conformance.workloads import issuers, shipped, workloads
from mesh.local.ca import flip
from mesh.local.compiler import Documents, Proxy, compile_mesh, load, registry
from tests.integration.mesh.world import CANCEL, CHECK, CREATE, GET_ORDER, READ_EVENTS, RISK_STATE, World, call, running, until

pytestmark = pytest.mark.processes

INSTANCES = {"svc_oms": ["svc_oms-0", "svc_oms-1"], "svc_risk": ["svc_risk-0", "svc_risk-1"], "edge": ["edge-0"]}
ORDERS, CONTROL = "outbound|9000|orders|svc-oms", "outbound|9000|control|svc-oms"
NOWHERE = "/trademesh.oms.v1.OrderService/Nothing"
# More than a caller may have under way in the pool of orders (`http2MaxRequests` in svc-oms.yaml).
ORDERS_MAX, SENT = 128, 200
# The private key of the point that is everybody's: see `KEYS`.
KEY = ec.derive_private_key(1, ec.SECP256R1())

Answer = Any


def token(**changes: Any) -> str:
    claims = {"iss": "https://issuer.trademesh.local", "aud": "trademesh", "sub": "ada", "tenant": "demo"}
    whole = {**claims, "roles": ["trader"], "accounts": ["ACC-1"], "exp": int(time.time() + 300), **changes}
    return jwt.encode(whole, KEY, algorithm="ES256", headers={"kid": "conformance"})


def of_the_compiler(world: World) -> dict[str, Documents]:
    """Return what the manifests are compiled to for this world's instances, in the localities in which Istio was asked."""
    manifests = load(shipped())
    asked = {proxy.instance: proxy for proxy in workloads(manifests)}
    proxies = [replace(proxy, locality=asked[proxy.instance].locality) for proxy in world.topology.proxies]
    # The edge only calls here.
    return compile_mesh(registry(manifests, proxies), proxies, issuers(manifests))


def of_istio(world: World) -> dict[str, Documents]:
    """Return what Istio answered for instances of these names, moved to this world's sockets."""
    answered = read()
    assert answered is not None
    asked = {proxy.instance: proxy for proxy in workloads(load(shipped()))}
    places = {asked[proxy.instance].address: proxy.address for proxy in world.topology.proxies}
    return {proxy.instance: plain.documents(answered.runs[SOCKETS][proxy.instance], proxy, places) for proxy in world.topology.proxies}


async def configure(world: World, found: Mapping[str, Documents]) -> None:
    """Give every Envoy its documents, and wait until it has taken them."""
    for proxy in world.topology.proxies:
        before = await updates(world, proxy)
        flip(proxy.configuration, found[proxy.instance].files())

        async def taken(proxy: Proxy = proxy, before: Mapping[str, int] = before) -> bool:
            now = await updates(world, proxy)
            assert now["rejected"] == before["rejected"], f"{proxy.instance} does not take it"
            return now["lds"] > before["lds"] and now["cds"] > before["cds"]

        await until(taken)


async def updates(world: World, proxy: Proxy) -> dict[str, int]:
    lines = (await world.admin(proxy.instance, "/stats?filter=update_(success|rejected)")).splitlines()
    counts = {name: int(value) for name, _, value in (line.partition(": ") for line in lines) if value.strip().isdigit()}
    return {
        "lds": counts.get("listener_manager.lds.update_success", 0),
        "cds": counts.get("cluster_manager.cds.update_success", 0),
        "rejected": counts.get("listener_manager.lds.update_rejected", 0) + counts.get("cluster_manager.cds.update_rejected", 0),
    }


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with running(tmp_path / "m", INSTANCES) as started:
        yield started


async def said(calling: Awaitable[Any]) -> Answer:
    """Return an answer, or the code and words of a refusal."""
    try:
        return await calling
    except grpc.aio.AioRpcError as error:
        return error.code().name, error.details()


async def allowed(world: World) -> Answer:
    return (
        await said(world.call("edge-0", "svc-oms", CREATE, token=token())),
        await said(world.call("svc_risk-0", "svc-oms", READ_EVENTS)),
        await said(world.call("svc_oms-0", "svc-risk", CHECK)),
    )


async def denied(world: World) -> Answer:
    expired, other = token(exp=int(time.time()) - 600), token(aud="somebody-else")
    return (
        await said(world.call("edge-0", "svc-oms", CREATE)),
        await said(world.call("edge-0", "svc-oms", CREATE, token=expired)),
        await said(world.call("edge-0", "svc-oms", CREATE, token=other)),
        await said(world.call("edge-0", "svc-oms", CREATE, token=token(iss="https://elsewhere.example"))),
        await said(world.call("edge-0", "svc-oms", NOWHERE, token=token())),
        await said(world.call("svc_risk-0", "svc-oms", CREATE, token=token())),
        await said(world.call("svc_oms-0", "svc-risk", RISK_STATE)),
        # Not among the hosts that its Sidecar lists.
        await said(world.call("svc_oms-0", "svc-custody", READ_EVENTS)),
    )


async def limited(world: World) -> Answer:
    """What becomes of more orders than may be under way at once, of cancels meanwhile, and of everybody once the service goes on."""
    replicas = [world.applications[f"svc_oms-{number}"] for number in (0, 1)]
    for application in replicas:
        application.calls.clear()
        application.goes_on.clear()

    def arrived(path: str) -> int:
        return sum(application.paths().count(path) for application in replicas)

    try:
        async with world.channel("edge-0", "svc-oms") as channel:

            def sent(path: str, number: int) -> list[asyncio.Future[Answer]]:
                return [asyncio.ensure_future(said(call(channel, path, token=token()))) for _ in range(number)]

            orders = sent(CREATE, SENT)
            await until(lambda: arrived(CREATE) + sum(order.done() for order in orders) == SENT)
            refused = [order for order in orders if order.done()]
            cancels = sent(CANCEL, 20)
            await until(lambda: arrived(CANCEL) + sum(cancel.done() for cancel in cancels) == len(cancels))
            waiting = [call for call in (*orders, *cancels) if not call.done()]
            for application in replicas:
                application.goes_on.set()
            await asyncio.gather(*waiting)
            again = await said(call(channel, CREATE, token=token()))
    finally:
        for application in replicas:
            application.goes_on.set()
    held = [order for order in orders if order not in refused]
    return tally(refused), tally(held), tally(cancels), again


def tally(calls: list[asyncio.Future[Answer]]) -> dict[str, int]:
    """Return how often each answer was given."""
    return Counter(str(done.result()) for done in calls)


async def retried(world: World) -> Answer:
    """How often all replicas together execute one call that every one of them refuses."""
    counts = {}
    for application in world.applications.values():
        application.refuses = lambda path: True
        application.calls.clear()
    for path in (CREATE, CANCEL, GET_ORDER):
        outcome = await said(world.call("edge-0", "svc-oms", path, token=token()))
        counts[path] = (outcome, sorted(world.applications[f"svc_oms-{number}"].paths().count(path) for number in (0, 1)))
    outcome = await said(world.call("svc_oms-0", "svc-risk", CHECK))
    counts[CHECK] = (outcome, sorted(world.applications[f"svc_risk-{number}"].paths().count(CHECK) for number in (0, 1)))
    for application in world.applications.values():
        application.refuses = lambda path: False
    return counts


async def timed_out(world: World) -> Answer:
    """What a caller hears that sets no deadline itself, and about how long that takes, of a service that does not answer."""
    for application in world.applications.values():
        application.goes_on.clear()
    began = time.monotonic()
    try:
        async with world.channel("edge-0", "svc-oms") as channel:
            metadata = (("authorization", f"Bearer {token()}"),)
            method: Any = channel.unary_unary(CREATE)
            outcome = await said(method(b"", timeout=60.0, metadata=metadata))
    finally:
        for application in world.applications.values():
            application.goes_on.set()
    # Both sidecars keep the route's time, and either may be the first to say so.
    assert outcome[0] in ("UNAVAILABLE", "DEADLINE_EXCEEDED"), outcome
    return 11.0 < time.monotonic() - began < 25.0


async def ejected(world: World) -> Answer:
    """How many hosts leave each pool when one refuses orders: some of order entry's, none of what cancels go by."""
    sick = world.applications["svc_oms-0"]
    sick.refuses = lambda path: path == CREATE
    async with world.channel("edge-0", "svc-oms") as channel:

        async def one_gone() -> bool:
            with suppress(grpc.aio.AioRpcError):
                await call(channel, CREATE, token=token())
            return await gone(world, ORDERS) == 1

        await until(one_gone)
        cancels = [await said(call(channel, CANCEL, token=token())) for _ in range(5)]
    sick.refuses = lambda path: False
    return cancels, await gone(world, CONTROL)


async def gone(world: World, cluster: str) -> int:
    lines = (await world.admin("edge-0", "/clusters")).splitlines()
    return sum("/failed_outlier_check" in line for line in lines if line.startswith(cluster))


PROBES: tuple[Callable[[World], Awaitable[Answer]], ...] = (allowed, denied, limited, retried, timed_out, ejected)


async def test_istios_configuration_and_the_compilers_give_the_same_answers(world: World) -> None:
    answers: dict[str, dict[str, Answer]] = {}
    for name, documents in (("compiler", of_the_compiler(world)), ("istio", of_istio(world))):
        await configure(world, documents)
        answers[name] = {probe.__name__: await probe(world) for probe in PROBES}
    assert answers["istio"] == answers["compiler"]
    # `make conformance` reads this.
    print(f"\nprobes: {sum(len(answer) if isinstance(answer, (tuple, dict)) else 1 for answer in answers['istio'].values())}")
    assert [answer["peer"] for answer in answers["istio"]["allowed"]] == ["edge", "svc-risk", "svc-oms"]
    # UNIMPLEMENTED is a path that no route is for, UNAVAILABLE a host that is not listed.
    assert {code for code, *_ in answers["istio"]["denied"]} == {"PERMISSION_DENIED", "UNAUTHENTICATED", "UNIMPLEMENTED", "UNAVAILABLE"}
    overflow = ("UNAVAILABLE", "upstream connect error or disconnect/reset before headers. reset reason: overflow")
    refused, held, cancels, again = answers["istio"]["limited"]
    assert refused == {str(overflow): SENT - ORDERS_MAX}
    assert (held, cancels) == ({str(again): ORDERS_MAX}, {str(again): 20})
    assert sum(answers["istio"]["retried"][CREATE][1]) == 1
    assert sum(answers["istio"]["retried"][GET_ORDER][1]) == 2
    assert answers["istio"]["timed_out"]
    assert answers["istio"]["ejected"][1] == 0
