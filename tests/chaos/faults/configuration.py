"""Configuration that changes under load, that is wrong, and that cannot change because the control process is away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

from mesh.local.sidecar import CONTROL, ENVOY
from tests.chaos import manifests, sidecars
from tests.chaos.fault import Fault
from tests.chaos.faults.kills import NO_CALL
from tests.chaos.manifests import Json
from tests.chaos.pulse import CANCEL, READ
from tests.chaos.scene import Scene
from tests.chaos.stage import PLAIN

CHANGES = 4
BETWEEN_SECONDS = 0.6

Change = Callable[[Json, int], None]
"""Changes an object in place; the number is another one at each change."""


def _routes(item: Json, number: int) -> None:
    if item["kind"] == "VirtualService":
        for http in item["spec"]["http"]:
            if http.get("timeout", "0s") != "0s":
                http["timeout"] = f"{int(http['timeout'].removesuffix('s')) + 1 + number}s"


def _policies(item: Json, number: int) -> None:
    if item["kind"] == "AuthorizationPolicy" and "rules" in item["spec"]:
        operation = item["spec"]["rules"][0]["to"][0]["operation"]
        operation["paths"] = [*operation["paths"], f"/trademesh.chaos.v1.NoService/Method{number}"]


def _limits(item: Json, number: int) -> None:
    if item["kind"] == "DestinationRule":
        for policy in (item["spec"]["trafficPolicy"], *(found.get("trafficPolicy", {}) for found in item["spec"].get("subsets", ()))):
            if "connectionPool" in policy:
                policy["connectionPool"]["http"]["http2MaxRequests"] += 1 + number


KINDS: Mapping[str, tuple[Change, ...]] = {
    "routes": (_routes,),
    "policies": (_policies,),
    "limits": (_limits,),
    "all": (_routes, _policies, _limits),
}


@asynccontextmanager
async def changed(scene: Scene, target: str) -> AsyncIterator[None]:
    """Change every service's manifests of a kind, one time after the other, and back."""
    async with manifests.kept(scene) as files:
        for number in range(CHANGES):
            await manifests.put(scene, {name: _changed(content, KINDS[target], number) for name, content in files.items()})
            await asyncio.sleep(BETWEEN_SECONDS)
        yield


async def followed(scene: Scene, target: str) -> list[str]:
    """Every Envoy works with what lies in front of it, and refused nothing."""
    findings = []
    for name in sidecars.everybody(scene):
        dump = await sidecars.asked(scene, name, "/config_dump")
        refused = [part["error_state"] for part in _parts(dump) if "error_state" in part]
        findings += [f"the Envoy of {name} refused: {error.get('details', '')[:200]}" for error in refused]
    return findings


def _parts(dump: Json) -> list[Json]:
    kinds = ("dynamic_listeners", "dynamic_active_clusters", "dynamic_warming_clusters")
    return [part for config in dump["configs"] for kind in kinds for part in config.get(kind, ())]


def _changed(content: str, changes: tuple[Change, ...], number: int) -> str:
    found = manifests.documents(content)
    for item in found:
        for change in changes:
            if "kind" in item and "spec" in item:
                change(item, number)
    return manifests.text(found) if found != manifests.documents(content) else content


@dataclass(frozen=True, slots=True)
class Mistake:
    """What somebody gets wrong in a file, and what the control process has to say of it."""

    file: str
    right: str
    wrong: str
    complaint: str


MISTAKES: Mapping[str, Mistake] = {
    "unknown-field": Mistake(
        "svc-risk.yaml", "timeout: 12s", "timeOut: 12s", "svc-risk.yaml: VirtualService/svc-risk: spec.http[0].timeOut: "
    ),
    "wrong-value": Mistake(
        "svc-oms.yaml", "mode: ISTIO_MUTUAL", "mode: SIMPLE", "svc-oms.yaml: DestinationRule/svc-oms: spec.trafficPolicy.tls.mode: "
    ),
    "no-subset": Mistake("svc-oms.yaml", "subset: control", "subset: controll", "svc-oms.yaml: VirtualService/svc-oms: "),
    "broken-yaml": Mistake("trading.yaml", "spec: {}", "spec: {", "trading.yaml: cannot be read: "),
    "beyond-the-edge": Mistake(
        "svc-oms.yaml",
        "exact: /trademesh.oms.v1.OrderService/CancelOrder\n",
        "exact: /trademesh.oms.v1.OrderService/CancelOrder\n          headers: {x-any: {exact: thing}}\n",
        "the edge: svc-oms.trading.svc.cluster.local:9000: ",
    ),
}


class BadPush:
    """Puts a wrong manifest where the control process reads, and sees what it makes of it."""

    def __init__(self) -> None:
        self._before: dict[str, str] = {}
        self._said = ""

    @asynccontextmanager
    async def inject(self, scene: Scene, target: str) -> AsyncIterator[None]:
        """Make the mistake; somebody mends it in the end."""
        mistake, self._before = MISTAKES[target], sidecars.generations(scene)
        async with manifests.kept(scene) as files:
            wrong = files[mistake.file].replace(mistake.right, mistake.wrong)
            assert wrong != files[mistake.file], f"{mistake.file} has no {mistake.right!r}"
            self._said = await manifests.put(scene, {mistake.file: wrong}, manifests.REFUSED)
            yield

    async def during(self, scene: Scene, target: str) -> list[str]:
        """It is refused by file, object and field, and nothing else changes."""
        findings = []
        if MISTAKES[target].complaint not in self._said:
            findings.append(f"refused in other words: {self._said.strip()[-300:]}")
        after = sidecars.generations(scene)
        findings += [f"the configuration of {name} was replaced" for name in after if after[name] != self._before[name]]
        return findings


@asynccontextmanager
async def control_away(scene: Scene, target: str) -> AsyncIterator[None]:
    """Stop the control process, and kill sidecars, which have to start without it."""
    processes = scene.stop(CONTROL)
    try:
        scene.kill(*(f"{ENVOY}-{name}" for name in scene.replicas(target)))
        yield
    finally:
        scene.resume(processes)


_bad_push = BadPush()

FAULTS = (
    Fault(
        name="hot-change",
        what="routes, policies and limits of all services change four times while calls run, and back",
        expectation="no call fails, and every Envoy has taken all of it",
        inject=changed,
        during=followed,
        targets=tuple(KINDS),
        objective_seconds=1.0,
        unnoticed=NO_CALL,
        short=("all",),
        stage=PLAIN,
    ),
    Fault(
        name="bad-push",
        what="a wrong manifest is put where the control process reads",
        expectation="it is refused by file, object and field, the old one stays in force, and no call fails",
        inject=_bad_push.inject,
        during=_bad_push.during,
        targets=tuple(MISTAKES),
        objective_seconds=1.0,
        unnoticed=NO_CALL,
        short=("no-subset",),
        stage=PLAIN,
    ),
    Fault(
        name="control-away",
        what="the control process stops, and both sidecars of a service die meanwhile",
        expectation="they come back with the last configuration; nothing waits for the control process",
        inject=control_away,
        targets=("svc_marketdata", "svc_portfolio", "svc_risk"),
        objective_seconds=10.0,
        outlasted=True,
        unnoticed=frozenset({CANCEL, READ}),
        short=("svc_portfolio",),
        stage=PLAIN,
    ),
)
