"""Partitions: a caller and a callee who do not hear each other, or only one the other, for every pair that talks over the network.

PostgreSQL and Redis are UNIX sockets of the same machine, which nothing parts from their users: they die and stop instead.
"""

from __future__ import annotations

import asyncio
import enum
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager

import psutil

from cli import rpcs
from mesh.local.addresses import edge_address
from mesh.local.edge import EDGE
from mesh.local.options import SERVICES
from mesh.local.parts import EXCHANGE, HOST, ISSUER, FeedLines
from mesh.local.services import CALLEES, FURTHER_PORTS
from mesh.local.sidecar import CONTROL, GRPC_PORT
from mesh.local.topology import sidecar_name
from tests.chaos.fault import Fault
from tests.chaos.faults.tokens import KEYS_STAY
from tests.chaos.firewall import Drop, dropped, permitted
from tests.chaos.manifests import control_log
from tests.chaos.pulse import CANCEL, DEPOSIT, ORDER, POSITIONS, QUOTES, READ, REPLACE, REPORTS, SOCKET, STREAM, VENUE
from tests.chaos.scene import Scene
from tests.chaos.sidecars import log_since
from tests.e2e.crash.load import ACCOUNTS
from trademesh.risk.v1 import risk_service_pb2

CONNECTED_SECONDS_MAX = 5.0
"""So soon a pair that was parted before is connected again, by the calls that are made all the while."""
NOTICED_SECONDS_MAX = 2.5
"""A ping each second, later by at most 15 %, and a second for its answer."""
GIVEN_UP_SECONDS = 10.0
HOLD_SECONDS = 3.0
KEYS_HOLD_SECONDS_MAX = 15.0
"""Keys are fetched every 10 s, each time by a connection of its own, which is given up after 2 s."""
LOOK_SECONDS = 0.02

ORDERS_RISK, RISK_PRICES, ORDERS_VENUE = "svc_oms->svc_risk", "svc_risk->svc_marketdata", f"svc_oms->{EXCHANGE}"
KEYS, EDGE_RISK = f"{CONTROL}->{ISSUER}", f"{EDGE}->svc_risk"
PAIRS = (
    KEYS,
    *(f"{EDGE}->{callee}" for callee in SERVICES),
    *(f"{caller}->{callee}" for caller, callees in CALLEES.items() for callee in callees),
    ORDERS_VENUE,
)
MAY_FAIL: Mapping[str, frozenset[str]] = {
    "edge->svc_oms": frozenset({ORDER, REPLACE, CANCEL, READ, VENUE, STREAM}),
    "edge->svc_custody": frozenset({DEPOSIT}),
    "edge->svc_marketdata": frozenset({QUOTES}),
    "edge->svc_portfolio": frozenset({POSITIONS}),
    "edge->svc_reporting": frozenset({REPORTS}),
    "edge->svc_gateway": frozenset({SOCKET}),
    **{f"svc_gateway->{callee}": frozenset({SOCKET}) for callee in CALLEES["svc_gateway"]},
    ORDERS_RISK: frozenset({ORDER, REPLACE, VENUE}),
    RISK_PRICES: frozenset({ORDER, REPLACE, VENUE}),
    ORDERS_VENUE: frozenset({VENUE}),
}
"""What lies behind a pair; everything else has its path whole."""
CLOSED: Mapping[str, frozenset[str]] = {ORDERS_RISK: frozenset({ORDER})}
"""What must not succeed: without risk there is no order."""
_DIRECT = {EXCHANGE, ISSUER}


Connection = tuple[int, str, int]
"""Local port, and whom it goes to: address and port."""


class Way(enum.Enum):
    """Which packets are dropped: those of the caller, those of the callee, or all."""

    THERE = "there"
    BACK = "back"
    BOTH = "both"


class Partition:
    """Cuts pairs, and sees that the cut is noticed and that nothing else suffers.

    Args:
        way: which packets are dropped.
        single: only between one replica and one replica, whom the seed draws.
    """

    def __init__(self, way: Way, *, single: bool = False) -> None:
        self._way, self._single = way, single
        self._open: dict[str, set[Connection]] = {}
        self._began, self._log_offset, self._nothing = 0.0, 0, False
        self._watch: asyncio.Task[list[str]] | None = None

    @asynccontextmanager
    async def inject(self, scene: Scene, target: str) -> AsyncIterator[None]:
        """Cut the pair."""
        caller, callee = target.split("->")
        # What is reached past the sidecars is called from 127.0.0.1, by whoever calls it.
        callers = {caller: HOST} if callee in _DIRECT else _ends(scene, caller)
        callees, port = _ends(scene, callee), _port(scene, caller, callee)
        if self._single:
            callers, callees = (dict([scene.random.choice(sorted(ends.items()))]) for ends in (callers, callees))
        sources, destinations = tuple(sorted(callers.values())), tuple(sorted(callees.values()))
        drops = []
        if self._way is not Way.BACK:
            drops.append(Drop(sources, destinations, f"tcp dport {port}"))
        if self._way is not Way.THERE:
            drops.append(Drop(destinations, sources, f"tcp sport {port}"))
        opened = await _opened(scene, target, callers, destinations, port)
        # A service gives up what it calls past its sidecar by rules of its own.
        self._open = {} if callee in _DIRECT else opened
        self._nothing = target != KEYS and not any(opened.values())
        self._log_offset = control_log(scene).stat().st_size
        async with dropped(drops):
            self._began = time.monotonic()
            scene.note(f"cut: {', '.join(callers)} from {', '.join(callees)}, {self._way.value}; open: {sum(map(len, opened.values()))}")
            # At once, and not when somebody comes to look: where the cut is outlasted, that is later.
            self._watch = asyncio.create_task(self._noticed(scene))
            try:
                yield
            finally:
                self._watch.cancel()

    async def during(self, scene: Scene, target: str) -> list[str]:
        """Wait until the cut is noticed, then see who suffers."""
        assert self._watch is not None, "inject first"
        findings = await self._watch
        if self._nothing:
            findings.append("nothing was cut: they had no connection")
        if target == KEYS:
            findings += await self._keys_missed(scene)
        await asyncio.sleep(max(0.0, self._began + HOLD_SECONDS - time.monotonic()))
        failed = scene.pulse.failures(self._began)
        may_fail = frozenset[str]() if self._single else MAY_FAIL.get(target, frozenset())
        if not self._single:
            findings += [f"{kind} failed: {dict(failed[kind].most_common(3))}" for kind in sorted(failed.keys() - may_fail)]
        for kind in sorted(CLOSED.get(target, ())) if not self._single else ():
            passed = [beat for beat in scene.pulse.since(kind, self._began) if not beat.failure]
            findings += [f"{kind} passed {beat.began - self._began:.2f} s after the cut" for beat in passed]
        return findings

    async def _noticed(self, scene: Scene) -> list[str]:
        """Return once no connection from before the cut is open at its caller."""
        while left := {name: here for name, before in self._open.items() if (here := before & _established(_envoy(scene, name)))}:
            if time.monotonic() > self._began + GIVEN_UP_SECONDS:
                return [f"not noticed by {name} after {GIVEN_UP_SECONDS:g} s: {sorted(here)}" for name, here in left.items()]
            await asyncio.sleep(LOOK_SECONDS)
        seconds = time.monotonic() - self._began
        if not any(self._open.values()):
            # Not noticed through a proxy: `during` says whether there was anything to notice.
            return []
        scene.note(f"noticed after {seconds:.2f} s")
        return [f"noticed after {seconds:.2f} s, which is to take {NOTICED_SECONDS_MAX:g} s"] if seconds > NOTICED_SECONDS_MAX else []

    async def _keys_missed(self, scene: Scene) -> list[str]:
        """Return once the control process could not fetch the issuer's keys: until then no packet has met the cut."""
        while KEYS_STAY not in log_since(control_log(scene), self._log_offset):
            if time.monotonic() > self._began + KEYS_HOLD_SECONDS_MAX:
                return [f"nothing was cut: keys were not missed in {KEYS_HOLD_SECONDS_MAX:g} s"]
            await asyncio.sleep(LOOK_SECONDS)
        scene.note(f"keys missed after {time.monotonic() - self._began:.2f} s")
        return []


def _ends(scene: Scene, party: str) -> dict[str, str]:
    """Return who stands at an end of a pair, with the address that he calls from and is called at."""
    if party in _DIRECT:
        return {party: HOST}
    if party == EDGE:
        return {EDGE: edge_address(_address(scene, scene.replicas(SERVICES[0])[0]))}
    return {name: _address(scene, name) for name in scene.replicas(party)}


def _address(scene: Scene, name: str) -> str:
    return scene.world.mesh.instance(sidecar_name(name)).address.partition(":")[0]


def _port(scene: Scene, caller: str, callee: str) -> int:
    """Return where a caller calls a callee; the edge calls nobody twice, so that a door beside gRPC's is for it."""
    if callee in _DIRECT:
        return int(scene.world.mesh.instance(callee).address.rpartition(":")[2])
    further = FURTHER_PORTS.get(callee, {}) if caller == EDGE else {}
    return next(iter(further), GRPC_PORT)


def _envoy(scene: Scene, name: str) -> psutil.Process:
    return psutil.Process(scene.world.mesh.instance(EDGE if name == EDGE else sidecar_name(name)).pid)


async def _opened(scene: Scene, target: str, callers: Iterable[str], destinations: Iterable[str], port: int) -> dict[str, set[Connection]]:
    """Return callers' connections to these, by caller, once there are any; none after a while, or of a pair without."""
    caller, _, callee = target.partition("->")
    if target == KEYS:
        return {}
    if target == EDGE_RISK:
        # The only one that no call of the pulse goes by.
        request = risk_service_pb2.GetRiskStateRequest(account_id=ACCOUNTS[0])
        for _ in scene.replicas("svc_risk"):
            await scene.pulse.calls.call(rpcs.GET_RISK_STATE, request)
    deadline = time.monotonic() + CONNECTED_SECONDS_MAX
    while True:
        if callee in _DIRECT:
            processes = {name: psutil.Process(scene.world.mesh.instance(name).pid) for name in scene.replicas(caller)}
        else:
            processes = {name: _envoy(scene, name) for name in callers}
        found = {name: _connections(process, destinations, port) for name, process in processes.items()}
        if any(found.values()) or time.monotonic() > deadline:
            return found
        await asyncio.sleep(LOOK_SECONDS)


def _connections(process: psutil.Process, destinations: Iterable[str], port: int) -> set[Connection]:
    """Return a process's established connections to these."""
    wanted = set(destinations)
    return {found for found in _established(process) if found[2] == port and found[1] in wanted}


def _established(process: psutil.Process) -> set[Connection]:
    """Return a process's established connections; calls to others may come from the same port."""
    return {
        (found.laddr.port, found.raddr.ip, found.raddr.port)
        for found in process.net_connections("tcp4")
        if found.status == psutil.CONN_ESTABLISHED
    }


_A, _B = (line.rpartition(":")[2] for line in (FeedLines.of(HOST).a, FeedLines.of(HOST).b))
LINES: Mapping[str, tuple[str, ...]] = {"A": (_A,), "B": (_B,), "both": (_A, _B)}
"""Ports of UDP on which market data listens for the venue's two lines."""


@asynccontextmanager
async def line_cut(scene: Scene, target: str) -> AsyncIterator[None]:
    """Keep a line of the venue's feed from all of its receivers."""
    receivers = tuple(_address(scene, name) for name in scene.replicas("svc_marketdata"))
    async with dropped([Drop((HOST,), receivers, f"udp dport {{ {', '.join(LINES[target])} }}")]):
        yield


async def prices_flow(scene: Scene, target: str) -> list[str]:
    """One line is enough for every order; without both there is no fresh price, and no order."""
    began = time.monotonic()
    await asyncio.sleep(HOLD_SECONDS)
    orders, failed = scene.pulse.since(ORDER, began), scene.pulse.failures(began)
    if target != "both":
        return [f"{kind} failed: {dict(words.most_common(3))}" for kind, words in failed.items()]
    findings = [f"{kind} failed: {dict(failed[kind].most_common(3))}" for kind in sorted(failed.keys() - {ORDER, REPLACE, VENUE})]
    stale = [beat.began for beat in orders if "REFERENCE_PRICE_STALE" in beat.failure]
    if not stale:
        return [*findings, "orders pass without prices"]
    return findings + [
        f"an order passed {beat.began - stale[0]:.2f} s later" for beat in orders if beat.began > stale[0] and not beat.failure
    ]


_both, _there, _back, _single = Partition(Way.BOTH), Partition(Way.THERE), Partition(Way.BACK), Partition(Way.BOTH, single=True)

_EXPECTATION = "noticed within 2.5 s; without risk no order; what has its path whole goes on, cancels above all"

FAULTS = (
    Fault(
        name="partition",
        what="a caller and a callee, all replicas of both, hear nothing of each other",
        expectation=_EXPECTATION,
        inject=_both.inject,
        during=_both.during,
        targets=PAIRS,
        objective_seconds=15.0,
        short=(ORDERS_RISK,),
        permitted=permitted,
    ),
    Fault(
        name="partition-there",
        what="callees hear nothing of a caller, who hears them",
        expectation=_EXPECTATION,
        inject=_there.inject,
        during=_there.during,
        targets=PAIRS,
        objective_seconds=15.0,
        permitted=permitted,
    ),
    Fault(
        name="partition-back",
        what="a caller hears nothing of callees, who hear him",
        expectation=f"{_EXPECTATION}; what risk reserved without being heard is given up",
        inject=_back.inject,
        during=_back.during,
        targets=PAIRS,
        objective_seconds=15.0,
        permitted=permitted,
    ),
    Fault(
        name="partition-replica",
        what="one replica of a caller and one of a callee hear nothing of each other",
        expectation="noticed within 2.5 s, and the other replica serves",
        inject=_single.inject,
        during=_single.during,
        targets=(f"{EDGE}->svc_oms", ORDERS_RISK, f"{EDGE}->svc_portfolio"),
        # 2.5 s to notice, and two attempts to connect, of a second each, before the replica has left the pool.
        objective_seconds=5.0,
        outlasted=True,
        permitted=permitted,
    ),
    Fault(
        name="feed-line-cut",
        what="market data hears nothing of one line of the venue's feed, then of both",
        expectation="one line is enough; without both, orders are refused and cancels pass; what was missed is asked for again",
        inject=line_cut,
        during=prices_flow,
        targets=tuple(LINES),
        objective_seconds=10.0,
        unnoticed=frozenset({CANCEL}),
        permitted=permitted,
    ),
)
