"""Many times the load that the mesh sustains: who is shed hears so at once and typed, the rest is served, and cancels pass."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Protocol

import psutil

from mesh.local.edge import EDGE
from tests.bench.machine import cpu_seconds
from tests.chaos.envoy_stats import edge_stats
from tests.chaos.fault import Fault
from tests.chaos.offered import Answers, Offered, generator_missing, offer
from tests.chaos.offered_by_python import PythonOffer
from tests.chaos.scene import Scene
from tests.chaos.stage import FREE_PORTS, Stage
from tests.e2e.crash.load import Load

TIMES = 10
TIMES_OF_PYTHON = 3
FIRST_RATE, STEP, RATE_MAX = 40.0, 1.6, 20_000.0
STEP_SECONDS, STEADY_SECONDS, OVERLOAD_SECONDS = 3, 5, 8
ANSWERED_SHARE = 0.98
STEADY_P99_MS = 2_000.0
"""A rate is sustained while so many of its orders are answered, and this soon."""
GOODPUT_SHARE = 0.7
CANCEL_FACTOR = 2.0
SILENT_SHARE = 0.01
"""Of what is offered, so much may end otherwise than answered or shed."""
SURELY_TOO_MUCH = 2.0
MEMORY_GROWTH_BYTES = 256 * 2**20
FOREIGN_CORES = 0.3
"""With more of the machine used by others, times and rates say nothing about the mesh; what is safe must hold all the same."""
SAMPLE_SECONDS = 0.2

OVERLOADED = Stage("overload", FREE_PORTS, for_each=True)
_ALL_OF = (EDGE, "svc_oms", "svc_risk", "envoy")
_UNDER_WAY = r"^cluster\.outbound\|9000\|orders\|svc-oms\.trading\.svc\.cluster\.local;?\.upstream_rq_active$"
ORDERS_UNDER_WAY_MAX = 128
"""As `mesh/istio/svc-oms.yaml` has it."""


class Offering(Protocol):
    """A generator of load."""

    async def orders(self, rate: float, seconds: int) -> Offered:
        """Offer so many orders a second, whatever comes back, and cancels beside them."""
        ...


@dataclass
class _Watch:
    """What is looked at while load is offered: memory, orders under way behind the edge, and who else uses the machine."""

    scene: Scene
    before: dict[str, int] = field(default_factory=dict)
    growth: dict[str, int] = field(default_factory=dict)
    under_way: int = 0
    foreign: float = 0.0

    async def over(self, offered: asyncio.Task[Offered]) -> Offered:
        """Return what was offered, once it was."""
        processes = {item.name: psutil.Process(item.pid) for part in _ALL_OF for item in self.scene.world.mesh.instances(part)}
        self.before = {name: process.memory_info().rss for name, process in processes.items()}
        began, busy, own = asyncio.get_running_loop().time(), _busy_seconds(), cpu_seconds([os.getpid()])
        while not offered.done():
            for name, process in processes.items():
                self.growth[name] = max(self.growth.get(name, 0), process.memory_info().rss - self.before[name])
            stats = await edge_stats(self.scene.world.mesh, _UNDER_WAY)
            self.under_way = max(self.under_way, *stats.values(), 0)
            await asyncio.wait([offered], timeout=SAMPLE_SECONDS)
        found = offered.result()
        elapsed = asyncio.get_running_loop().time() - began
        used = cpu_seconds([os.getpid()]) - own + found.generator_cpu_seconds
        self.foreign = max(0.0, (_busy_seconds() - busy - used) / elapsed)
        return found


def _busy_seconds() -> float:
    times = psutil.cpu_times()
    return float(times.user + times.system + times.nice + times.irq + times.softirq)


class Overload:
    """One kind of overload: how many times the sustained load, and by which generator."""

    def __init__(self, times: float, generator: Callable[[Scene], AbstractContextManager[Offering]]) -> None:
        self._times, self._generator = times, generator
        self._peak = 0.0
        self._steady: Offered | None = None
        self._overload: Offered | None = None
        self._watch: _Watch | None = None

    @asynccontextmanager
    async def inject(self, scene: Scene, target: str) -> AsyncIterator[None]:
        """Find the peak, hold what is sustained, and offer a multiple of that; the load has ended when this is entered."""
        with self._generator(scene) as load:
            self._peak, sustained = await _climb(scene, load)
            self._steady = await load.orders(sustained, STEADY_SECONDS)
            self._watch = _Watch(scene)
            offered = asyncio.create_task(load.orders(self._times * sustained, OVERLOAD_SECONDS))
            try:
                self._overload = await self._watch.over(offered)
            finally:
                offered.cancel()
                await asyncio.gather(offered, return_exceptions=True)
        scene.measured["sustained_per_s"] = round(sustained)
        yield

    async def judged(self, scene: Scene, target: str) -> list[str]:
        """Hold the overload to its promises. Ratios are judged where the machine was the mesh's own; the rest always."""
        steady, overload, watch = self._steady, self._overload, self._watch
        assert steady is not None
        assert overload is not None
        assert watch is not None
        orders, cancels, before = overload.orders, overload.cancels, steady.cancels
        goodput = orders.ok / max(self._peak, 1.0)
        scene.measured |= {
            "peak_per_s": round(self._peak),
            "offered_per_s": round(orders.offered),
            "goodput_of_peak": round(goodput, 2),
            "shed_per_s": round(orders.shed),
            "cancel_p50_ms_before": round(before.p50_ms, 1),
            "cancel_p50_ms": round(cancels.p50_ms, 1),
            "cancel_p99_ms_before": round(before.p99_ms, 1),
            "cancel_p99_ms": round(cancels.p99_ms, 1),
            "memory_growth_mib": round(max(watch.growth.values(), default=0) / 2**20),
            "orders_under_way": watch.under_way,
            "foreign_cores": round(watch.foreign, 2),
            "ratios_judged": watch.foreign <= FOREIGN_CORES,
        }
        scene.note(f"{target}: {scene.measured}; otherwise {orders.others}; cancels otherwise {cancels.others}")
        findings, ratios = _unsafe(orders, cancels, self._peak, watch), _too_little(orders, goodput, cancels, before)
        if watch.foreign > FOREIGN_CORES:
            scene.note(f"{target}: others used {watch.foreign:.2f} cores, so this is not judged: {ratios}")
            return findings
        return findings + ratios


async def _climb(scene: Scene, load: Offering) -> tuple[float, float]:
    """Raise the rate until it is no longer sustained; return the most that was answered, and the highest rate that was sustained."""
    peak, sustained, rate = 0.0, FIRST_RATE, FIRST_RATE
    while rate < RATE_MAX:
        answers = (await load.orders(rate, STEP_SECONDS)).orders
        scene.note(f"{rate:.0f} orders/s offered, {answers.ok:.0f} answered, p99 {answers.p99_ms:.0f} ms, {answers.shed:.0f} shed")
        peak = max(peak, answers.ok)
        if answers.ok < ANSWERED_SHARE * answers.offered or answers.p99_ms > STEADY_P99_MS:
            break
        sustained, rate = rate, rate * STEP
    return peak, sustained


def _unsafe(orders: Answers, cancels: Answers, peak: float, watch: _Watch) -> list[str]:
    findings = []
    if not cancels.ok:
        findings.append(f"no cancel was answered: {cancels.others}")
    if not orders.shed and orders.offered > SURELY_TOO_MUCH * peak:
        findings.append(f"{orders.offered:.0f} orders/s were offered, and none was shed")
    if orders.hinted < orders.shed:
        findings.append(f"of {orders.shed:.0f} shed orders/s only {orders.hinted:.0f} were told when to come back")
    if watch.under_way > ORDERS_UNDER_WAY_MAX:
        findings.append(f"the edge had {watch.under_way} orders under way, its bound is {ORDERS_UNDER_WAY_MAX}")
    for name, growth in watch.growth.items():
        if growth > MEMORY_GROWTH_BYTES:
            findings.append(f"{name} grew by {growth / 2**20:.0f} MiB")
    return findings


def _too_little(orders: Answers, goodput: float, cancels: Answers, before: Answers) -> list[str]:
    findings = []
    slower = cancels.p50_ms / max(before.p50_ms, 0.001)
    decided = cancels.decided(OVERLOAD_SECONDS)
    if decided < ANSWERED_SHARE * cancels.offered:
        findings.append(f"of {cancels.offered:.0f} cancels/s {decided:.0f} were decided, {cancels.shed:.0f} shed: {cancels.others}")
    if goodput < GOODPUT_SHARE:
        findings.append(f"goodput was {goodput:.0%} of the peak ({orders.ok:.0f} orders/s), at least {GOODPUT_SHARE:.0%} must stay")
    if slower > CANCEL_FACTOR:
        findings.append(f"cancels took {cancels.p50_ms:.0f} ms instead of {before.p50_ms:.0f}: {slower:.1f} times as long")
    if orders.held_back > SILENT_SHARE * orders.offered:
        findings.append(f"{orders.held_back:.0f} of {orders.offered:.0f} orders/s found no stream free: so much was not offered")
    silent = sum(orders.others.values())
    if silent > SILENT_SHARE * orders.offered * OVERLOAD_SECONDS:
        findings.append(f"{silent} orders were neither answered nor shed: {orders.others}")
    return findings


def _by_go(scene: Scene) -> AbstractContextManager[Offering]:
    return offer(scene.world.mesh, f"o{scene.random.getrandbits(32):08x}", scene.ledger)


def _by_python(scene: Scene) -> AbstractContextManager[Offering]:
    return nullcontext(PythonOffer(scene.world.mesh, Load(scene.random, f"o{scene.random.getrandbits(32):08x}"), scene.ledger))


_TEN_TIMES, _THREE_TIMES = Overload(TIMES, _by_go), Overload(TIMES_OF_PYTHON, _by_python)
_EXPECTATION = "shed with RESOURCE_EXHAUSTED and RetryInfo; goodput above 70 % of the peak; cancels within twice their latency"

FAULTS = (
    Fault(
        name="overload",
        what=f"{TIMES} times the orders that the mesh sustains, at a rate that does not wait for answers",
        expectation=_EXPECTATION,
        inject=_TEN_TIMES.inject,
        targets=(EDGE,),
        objective_seconds=15.0,
        during=_TEN_TIMES.judged,
        stage=OVERLOADED,
        permitted=generator_missing,
    ),
    Fault(
        name="overload-small",
        what=f"{TIMES_OF_PYTHON} times the orders that the mesh sustains, which is what a Python client can offer beside it",
        expectation=_EXPECTATION,
        inject=_THREE_TIMES.inject,
        targets=(EDGE,),
        objective_seconds=15.0,
        during=_THREE_TIMES.judged,
        stage=OVERLOADED,
    ),
)
