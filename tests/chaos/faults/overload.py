"""Ten times the load that the mesh sustains: who is shed hears so at once and typed, the rest is served, and cancels pass."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import psutil

from mesh.local.edge import EDGE
from tests.chaos.envoy_stats import edge_stats
from tests.chaos.fault import Fault
from tests.chaos.offered import Answers, Offer, Offered, generator_missing, offer
from tests.chaos.scene import Scene
from tests.chaos.stage import FREE_PORTS, Stage

TIMES = 10
FIRST_RATE, STEP, RATE_MAX = 40.0, 1.6, 20_000.0
STEP_SECONDS, STEADY_SECONDS, OVERLOAD_SECONDS = 3, 5, 8
ANSWERED_SHARE = 0.98
STEADY_P99_MS = 2_000.0
"""A rate is sustained while so many of its orders are answered, and this soon."""
GOODPUT_SHARE = 0.7
CANCEL_FACTOR = 2.0
SILENT_SHARE = 0.01
"""Of what is offered, so much may end otherwise than answered or shed."""
MEMORY_GROWTH_BYTES = 256 * 2**20
FOREIGN_CORES = 0.3
"""With more of the machine used by others, times and rates say nothing about the mesh; what is safe must hold all the same."""
SAMPLE_SECONDS = 0.2

OVERLOADED = Stage("overload", FREE_PORTS, for_each=True)
_ALL_OF = (EDGE, "svc_oms", "svc_risk", "envoy")
_UNDER_WAY = r"^cluster\.outbound\|9000\|orders\|svc-oms\.trading\.svc\.cluster\.local;?\.upstream_rq_active$"
ORDERS_UNDER_WAY_MAX = 256
"""As `mesh/istio/svc-oms.yaml` has it."""


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
        began, busy, own = asyncio.get_running_loop().time(), _busy_seconds(), self._own_seconds()
        while not offered.done():
            for name, process in processes.items():
                self.growth[name] = max(self.growth.get(name, 0), process.memory_info().rss - self.before[name])
            stats = await edge_stats(self.scene.world.mesh, _UNDER_WAY)
            self.under_way = max(self.under_way, *stats.values(), 0)
            await asyncio.wait([offered], timeout=SAMPLE_SECONDS)
        found = offered.result()
        elapsed = asyncio.get_running_loop().time() - began
        used = self._own_seconds() - own + found.generator_cpu_seconds
        self.foreign = max(0.0, (_busy_seconds() - busy - used) / elapsed)
        return found

    def _own_seconds(self) -> float:
        """Processor time of the mesh and of this process."""
        total, me = 0.0, psutil.Process()
        for process in (me, *me.children(recursive=True)):
            try:
                times = process.cpu_times()
            except psutil.NoSuchProcess:
                continue
            total += times.user + times.system
        return total


def _busy_seconds() -> float:
    times = psutil.cpu_times()
    return float(times.user + times.system + times.nice + times.irq + times.softirq)


@dataclass
class _Measured:
    """One overload from its beginning to its judgement."""

    peak: float = 0.0
    sustained: float = 0.0
    steady: Offered | None = None
    overload: Offered | None = None
    watch: _Watch | None = None


_found = _Measured()


@asynccontextmanager
async def ten_times(scene: Scene, target: str) -> AsyncIterator[None]:
    """Find the peak, hold what is sustained, and offer ten times that; the load ends with the context."""
    with offer(scene.world.mesh, f"o{scene.random.getrandbits(32):08x}", scene.ledger) as load:
        await _climb(scene, load)
        _found.steady = await load.orders(_found.sustained, STEADY_SECONDS)
        _found.watch = _Watch(scene)
        offered = asyncio.create_task(load.orders(TIMES * _found.sustained, OVERLOAD_SECONDS))
        try:
            _found.overload = await _found.watch.over(offered)
        finally:
            offered.cancel()
            await asyncio.gather(offered, return_exceptions=True)
        yield


async def _climb(scene: Scene, load: Offer) -> None:
    """Raise the rate until it is no longer sustained."""
    _found.peak, _found.sustained, rate = 0.0, FIRST_RATE, FIRST_RATE
    while rate < RATE_MAX:
        answers = (await load.orders(rate, STEP_SECONDS)).orders
        scene.note(f"{rate:.0f} orders/s offered, {answers.ok:.0f} answered, p99 {answers.p99_ms:.0f} ms, {answers.shed:.0f} shed")
        _found.peak = max(_found.peak, answers.ok)
        if answers.ok < ANSWERED_SHARE * answers.offered or answers.p99_ms > STEADY_P99_MS:
            return
        _found.sustained, rate = rate, rate * STEP


async def judged(scene: Scene, target: str) -> list[str]:
    """Hold the overload to its promises. Ratios are judged where the machine was the mesh's own; the rest always."""
    steady, overload, watch = _found.steady, _found.overload, _found.watch
    assert steady is not None
    assert overload is not None
    assert watch is not None
    orders = overload.orders
    goodput = orders.ok / max(_found.peak, 1.0)
    slower = overload.cancels.p50_ms / max(steady.cancels.p50_ms, 0.001)
    scene.measured |= {
        "peak_per_s": round(_found.peak),
        "sustained_per_s": round(_found.sustained),
        "offered_per_s": round(orders.offered),
        "goodput_of_peak": round(goodput, 2),
        "shed_per_s": round(orders.shed),
        "cancel_p50_ms_before": round(steady.cancels.p50_ms, 1),
        "cancel_p50_ms": round(overload.cancels.p50_ms, 1),
        "cancel_p99_ms_before": round(steady.cancels.p99_ms, 1),
        "cancel_p99_ms": round(overload.cancels.p99_ms, 1),
        "memory_growth_mib": round(max(watch.growth.values(), default=0) / 2**20),
        "orders_under_way": watch.under_way,
        "foreign_cores": round(watch.foreign, 2),
    }
    scene.note(f"{target}: {scene.measured}; otherwise {orders.others}; cancels otherwise {overload.cancels.others}")
    findings = _unsafe(orders, watch)
    ratios = _too_little(orders, goodput, slower, overload.cancels, steady.cancels)
    if watch.foreign > FOREIGN_CORES:
        scene.note(f"{target}: others used {watch.foreign:.2f} cores, so this is not judged: {ratios}")
        return findings
    return findings + ratios


def _unsafe(orders: Answers, watch: _Watch) -> list[str]:
    findings = []
    if not orders.shed:
        findings.append(f"{orders.offered:.0f} orders/s were offered, and none was shed")
    if orders.hinted < orders.shed:
        findings.append(f"of {orders.shed:.0f} shed orders/s only {orders.hinted:.0f} were told when to come back")
    if watch.under_way > ORDERS_UNDER_WAY_MAX:
        findings.append(f"the edge had {watch.under_way} orders under way, its bound is {ORDERS_UNDER_WAY_MAX}")
    for name, growth in watch.growth.items():
        if growth > MEMORY_GROWTH_BYTES:
            findings.append(f"{name} grew by {growth / 2**20:.0f} MiB")
    return findings


def _too_little(orders: Answers, goodput: float, slower: float, cancels: Answers, before: Answers) -> list[str]:
    findings = []
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


FAULTS = (
    Fault(
        name="overload",
        what=f"{TIMES} times the orders that the mesh sustains, at a rate that does not wait for answers",
        expectation="shed with RESOURCE_EXHAUSTED and RetryInfo; goodput above 70 % of the peak; cancels within twice their latency",
        inject=ten_times,
        targets=(EDGE,),
        objective_seconds=15.0,
        during=judged,
        stage=OVERLOADED,
        permitted=generator_missing,
    ),
)
