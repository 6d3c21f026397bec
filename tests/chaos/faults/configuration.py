"""Configuration that changes under load, that is wrong, and that cannot change because the control process is away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

from mesh.local.sidecar import CONTROL
from mesh.local.topology import sidecar_name
from tests.chaos import manifests, sidecars
from tests.chaos.fault import Fault
from tests.chaos.faults.kills import NO_CALL
from tests.chaos.manifests import Json
from tests.chaos.pulse import CANCEL, READ, STREAM
from tests.chaos.scene import Scene
from tests.chaos.stage import PLAIN

CHANGES = 4
BETWEEN_SECONDS = 0.6
RESUMED_SECONDS_MAX = 2.0
"""So long a stream that ends with its listener is silent, a second of which is a heartbeat's."""

Change = Callable[[Json, int], None]
"""Changes an object in place; the number is another one at each change."""


def _routes(item: Json, number: int) -> None:
    if item["kind"] == "VirtualService":
        for http in item["spec"].get("http", ()):
            if http.get("timeout", "0s") != "0s":
                http["timeout"] = f"{int(http['timeout'].removesuffix('s')) + 1 + number}s"


def _policies(item: Json, number: int) -> None:
    if item["kind"] == "AuthorizationPolicy" and "rules" in item["spec"]:
        operation = item["spec"]["rules"][0]["to"][0]["operation"]
        if "paths" in operation:
            operation["paths"] = [*operation["paths"], f"/trademesh.chaos.v1.NoService/Method{number}"]


def _limits(item: Json, number: int) -> None:
    if item["kind"] == "DestinationRule":
        for policy in (item["spec"]["trafficPolicy"], *(found.get("trafficPolicy", {}) for found in item["spec"].get("subsets", ()))):
            if "http" in policy.get("connectionPool", {}):
                policy["connectionPool"]["http"]["http2MaxRequests"] += 1 + number


KINDS: Mapping[str, tuple[Change, ...]] = {
    "routes": (_routes,),
    "policies": (_policies,),
    "limits": (_limits,),
    "all": (_routes, _policies, _limits),
}


class HotChange:
    """Changes every service's manifests of a kind, one time after the other, and in the end back."""

    def __init__(self) -> None:
        self._files: dict[str, str] = {}

    @asynccontextmanager
    async def inject(self, scene: Scene, target: str) -> AsyncIterator[None]:
        """Remember how they were."""
        async with manifests.kept(scene) as self._files:
            yield

    async def during(self, scene: Scene, target: str) -> list[str]:
        """Change them; every Envoy takes all of it."""
        for number in range(CHANGES):
            await manifests.put(scene, {name: changed(content, KINDS[target], number) for name, content in self._files.items()})
            await asyncio.sleep(BETWEEN_SECONDS)
        return await _refused(scene)


async def _refused(scene: Scene) -> list[str]:
    findings = []
    for name in sidecars.everybody(scene):
        dump = await sidecars.asked(scene, name, "/config_dump")
        refused = [part["error_state"] for part in _parts(dump) if "error_state" in part]
        findings += [f"the Envoy of {name} refused: {error.get('details', '')[:200]}" for error in refused]
    return findings


def _parts(dump: Json) -> list[Json]:
    kinds = ("dynamic_listeners", "dynamic_active_clusters", "dynamic_warming_clusters")
    return [part for config in dump["configs"] for kind in kinds for part in config.get(kind, ())]


def changed(content: str, changes: tuple[Change, ...], number: int) -> str:
    """Return a file of manifests with these changes; the same text where they change nothing."""
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
        self._files: dict[str, str] = {}

    @asynccontextmanager
    async def inject(self, scene: Scene, target: str) -> AsyncIterator[None]:
        """Have somebody mend it in the end."""
        async with manifests.kept(scene) as self._files:
            yield

    async def during(self, scene: Scene, target: str) -> list[str]:
        """Make the mistake: it is refused by file, object and field, and nothing else changes."""
        mistake, before = MISTAKES[target], sidecars.generations(scene)
        right, findings = self._files[mistake.file], list[str]()
        assert mistake.right in right, f"{mistake.file} has no {mistake.right!r}"
        said = await manifests.put(scene, {mistake.file: right.replace(mistake.right, mistake.wrong)}, manifests.REFUSED)
        await asyncio.sleep(BETWEEN_SECONDS)
        if mistake.complaint not in said:
            findings.append(f"refused in other words: {said.strip()[-300:]}")
        after = sidecars.generations(scene)
        findings += [f"the configuration of {name} was replaced" for name in after if after[name] != before[name]]
        return findings


@asynccontextmanager
async def control_away(scene: Scene, target: str) -> AsyncIterator[None]:
    """Stop the control process, and kill sidecars, which have to start without it."""
    processes = scene.stop(CONTROL)
    try:
        scene.kill(*(sidecar_name(name) for name in scene.replicas(target)))
        yield
    finally:
        scene.resume(processes)


_hot_change, _bad_push = HotChange(), BadPush()

FAULTS = (
    Fault(
        name="hot-change",
        what="routes, policies and limits of all services change four times while calls run, and back",
        expectation="no call fails, streams end with their listener and are resumed, and every Envoy has taken all of it",
        inject=_hot_change.inject,
        during=_hot_change.during,
        targets=tuple(KINDS),
        objective_seconds=1.0,
        unnoticed=NO_CALL - {STREAM},
        # A listener that was replaced lives on for as long as it may drain, which is over in the middle of something else.
        resumed={STREAM: RESUMED_SECONDS_MAX},
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
        stage=PLAIN,
    ),
)
