"""Certificates: they follow each other under load, they expire, they name somebody else, and somebody shows one that is not his."""

from __future__ import annotations

import asyncio
import datetime
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from mesh.local.ca import Authority, publish_certificate
from mesh.local.ca.authority import Svid
from mesh.local.compiler.tls import spiffe_id
from mesh.local.control.main import AUTHORITY_DIRECTORY
from mesh.local.operator import NAMESPACE, TRUST_DOMAIN
from mesh.local.options import Options
from mesh.local.sidecar import CONTROL
from mesh.local.topology import sidecar_name
from tests.chaos import manifests, sidecars
from tests.chaos.envoy_stats import sidecar_stats
from tests.chaos.fault import Fault
from tests.chaos.faults.kills import NO_CALL
from tests.chaos.impostor import Impostor, TurnedAwayError
from tests.chaos.manifests import Json
from tests.chaos.pulse import CANCEL, KINDS, ORDER, READ
from tests.chaos.scene import Scene
from tests.chaos.stage import PLAIN, Stage

CERTIFICATE_SECONDS = 60
SHORT_LIVED = Stage("short-lived certificates", Options(ephemeral_ports=True, own_manifests=True, certificate_seconds=CERTIFICATE_SECONDS))
CONNECTION_SECONDS = 6
"""How long a connection is used: below what a certificate has left when it is replaced."""
SHUT_SECONDS = 2 * CONNECTION_SECONDS
LOOK_SECONDS = 0.1

CHECK_ORDERS = "/trademesh.risk.v1.PreTradeService/CheckOrders"
PERMISSION_DENIED = "7"


def now() -> datetime.datetime:
    """Return the wall clock."""
    return datetime.datetime.now(datetime.UTC)


def authority(scene: Scene) -> Authority:
    """Return the mesh's own authority, which its owner may use as the control process does."""
    return Authority.open(scene.world.mesh.layout.data(CONTROL) / AUTHORITY_DIRECTORY, trust_domain=TRUST_DOMAIN, now=now)


def svid(scene: Scene, account: str) -> Svid:
    """Return a certificate for a workload's name."""
    return authority(scene).issue(spiffe_id(TRUST_DOMAIN, NAMESPACE, account), seconds=3_600)


def brief(content: str) -> str:
    """Return a file of manifests in which no connection is used for long."""
    found = manifests.documents(content)
    for item in found:
        if item.get("kind") == "DestinationRule":
            for policy in _policies(item):
                policy["connectionPool"]["tcp"]["maxConnectionDuration"] = f"{CONNECTION_SECONDS}s"
    return manifests.text(found)


def _policies(item: Json) -> list[Json]:
    policies = (item["spec"]["trafficPolicy"], *(subset.get("trafficPolicy", {}) for subset in item["spec"].get("subsets", ())))
    return [policy for policy in policies if "connectionPool" in policy]


@asynccontextmanager
async def brief_connections(scene: Scene, target: str) -> AsyncIterator[None]:
    """Use no connection for long, so that new ones are made all the while."""
    async with manifests.kept(scene) as files:
        await manifests.put(scene, {name: brief(content) for name, content in files.items() if name.startswith("svc-")})
        yield


async def rotated(scene: Scene, target: str) -> list[str]:
    """Every workload's certificate is replaced, each before it expires."""
    before = {name: sidecars.identity(scene, name)[0] for name in sidecars.everybody(scene)}
    deadline = time.monotonic() + CERTIFICATE_SECONDS
    left = dict(before)
    while left and time.monotonic() < deadline:
        left = {name: old for name, old in left.items() if sidecars.identity(scene, name)[0].serial_number == old.serial_number}
        await asyncio.sleep(LOOK_SECONDS)
    scene.note(f"{len(before) - len(left)} of {len(before)} certificates replaced")
    # Time for connections that are made with the new ones alone.
    await asyncio.sleep(CONNECTION_SECONDS)
    return [f"the certificate of {name} was not replaced" for name in left]


@asynccontextmanager
async def control_stopped(scene: Scene, target: str) -> AsyncIterator[None]:
    """Stop the control process, so that nobody replaces certificates."""
    async with brief_connections(scene, target):
        processes = scene.stop(CONTROL)
        try:
            yield
        finally:
            scene.resume(processes)


async def expired(scene: Scene, target: str) -> list[str]:
    """What is open when certificates expire lives on for a connection's time; nothing new is opened with them."""
    ends = [sidecars.identity(scene, name)[0].not_valid_after_utc for name in sidecars.everybody(scene)]
    # The wall clock is what certificates go by.
    lasts = time.monotonic() + (max(ends) - now()).total_seconds()
    first = time.monotonic() + (min(ends) - now()).total_seconds()
    await asyncio.sleep(max(0.0, first - time.monotonic()))
    scene.note("the first certificate has expired")
    findings = [f"{kind} failed before: {dict(words)}" for kind in KINDS if (words := _failed_before(scene, kind, first))]
    await asyncio.sleep(max(0.0, lasts + SHUT_SECONDS - time.monotonic()))
    shut = time.monotonic()
    await asyncio.sleep(CONNECTION_SECONDS)
    lived = sum(not beat.failure for kind in KINDS for beat in scene.pulse.since(kind, lasts))
    scene.note(f"{lived} calls passed on open connections after the last certificate had expired")
    if not lived:
        findings.append("no open connection has outlived its certificate")
    for kind in (ORDER, READ, CANCEL):
        beats = scene.pulse.since(kind, shut)
        findings += [
            f"{kind} passed {beat.began - lasts:.1f} s after the last certificate had expired" for beat in beats if not beat.failure
        ]
    return findings


def _failed_before(scene: Scene, kind: str, moment: float) -> Counter[str]:
    """Return the failures of calls that began and ended in a certificate's life before a moment on the monotonic clock."""
    beats = scene.pulse.since(kind, moment - CERTIFICATE_SECONDS)
    return Counter(beat.failure for beat in beats if beat.failure and beat.ended < moment)


async def _restarted_sidecars(scene: Scene, service: str) -> None:
    scene.kill(*(sidecar_name(name) for name in scene.replicas(service)))
    await scene.returned()


async def _names_refused(scene: Scene, name: str) -> int:
    """Return how many certificates a workload's Envoy has refused for their names."""
    return sum((await sidecar_stats(scene.world.mesh, name, "fail_verify_san")).values())


class WrongName:
    """Has all replicas of a service come up with another workload's certificate, one of the mesh's own authority."""

    def __init__(self, account: str) -> None:
        self._account = account

    @asynccontextmanager
    async def inject(self, scene: Scene, target: str) -> AsyncIterator[None]:
        """Exchange the certificates and end all connections; in the end the control process issues the right ones."""
        for name in scene.replicas(target):
            publish_certificate(sidecars.directory(scene, name), svid(scene, self._account))
        await _restarted_sidecars(scene, target)
        try:
            yield
        finally:
            # It issues all certificates anew when it starts. Whoever has an open connection is still who he was when he opened it.
            scene.kill(CONTROL)
            await scene.returned()
            await _restarted_sidecars(scene, target)

    async def during(self, scene: Scene, target: str) -> list[str]:
        """No order passes, because nobody is sure whom he would ask; and the reason is this one."""
        began = time.monotonic()
        await asyncio.sleep(CONNECTION_SECONDS / 2)
        orders = scene.pulse.since(ORDER, began)
        findings = [
            f"an order passed {beat.began - began:.2f} s in: risk's certificate is not risk's" for beat in orders if not beat.failure
        ]
        findings += [f"an order was refused in other words: {beat.failure}" for beat in orders if "UNAVAILABLE" not in beat.failure]
        if not sum([await _names_refused(scene, name) for name in scene.replicas("svc_oms")]):
            findings.append("no sidecar of svc_oms has refused a certificate for its name")
        return findings if orders else [*findings, "no order was tried"]


@asynccontextmanager
async def nothing_done(scene: Scene, target: str) -> AsyncIterator[None]:
    """Leave the mesh alone: what happens is what `during` tries."""
    yield


async def impostors_turned_away(scene: Scene, target: str) -> list[str]:
    """Call risk without a sidecar: with another workload's certificate, an expired, a foreign one, and none at all."""
    findings = []
    address = scene.world.mesh.instance(sidecar_name(scene.replicas(target)[0])).address
    impostor = Impostor(address, authority(scene).root_pem)
    for account in ("svc-portfolio", "edge"):
        status = (await impostor.call(svid(scene, account), CHECK_ORDERS)).grpc_status
        if status != PERMISSION_DENIED:
            findings.append(f"{account} may check orders: status {status}")
    status = (await impostor.call(svid(scene, "svc-oms"), CHECK_ORDERS)).grpc_status
    if status == PERMISSION_DENIED:
        findings.append("even svc-oms may not check orders, so that nothing is proven")
    name = spiffe_id(TRUST_DOMAIN, NAMESPACE, "svc-oms")
    data = scene.world.mesh.layout.data(CONTROL) / AUTHORITY_DIRECTORY
    past = Authority.open(data, trust_domain=TRUST_DOMAIN, now=lambda: now() - datetime.timedelta(hours=2))
    with impostor.foreign_authority() as foreign:
        elsewhere = authority(scene).issue(spiffe_id("elsewhere.local", NAMESPACE, "svc-oms"), seconds=60)
        strangers = {
            "nobody": None,
            "an expired certificate": past.issue(name, seconds=60),
            "a foreign authority": foreign.issue(name, seconds=60),
            "another trust domain": elsewhere,
        }
        for who, identity in strangers.items():
            try:
                answer = await impostor.call(identity, CHECK_ORDERS)
            except TurnedAwayError:
                continue
            findings.append(f"{who} got an answer: status {answer.grpc_status}")
    return findings


_wrong_name = WrongName("svc-custody")

FAULTS = (
    Fault(
        name="certificate-wrong-name",
        what="all replicas of risk show a certificate of svc-custody",
        expectation="nobody speaks to them: UNAVAILABLE, and no order; cancels pass",
        inject=_wrong_name.inject,
        during=_wrong_name.during,
        targets=("svc_risk",),
        # In it the control process starts anew, and then the sidecars.
        objective_seconds=20.0,
        unnoticed=frozenset({CANCEL, READ}),
        stage=PLAIN,
    ),
    Fault(
        name="certificate-impostor",
        what="somebody calls risk past all sidecars, as another workload, with an expired or a foreign certificate, and with none",
        expectation="another workload gets PERMISSION_DENIED, everybody else no connection",
        inject=nothing_done,
        during=impostors_turned_away,
        targets=("svc_risk",),
        objective_seconds=1.0,
        unnoticed=NO_CALL,
        stage=PLAIN,
    ),
    Fault(
        name="certificate-rotation",
        what="all certificates are replaced while new connections are made all the time",
        expectation="no call fails",
        inject=brief_connections,
        during=rotated,
        targets=("everybody",),
        objective_seconds=1.0,
        unnoticed=NO_CALL,
        stage=SHORT_LIVED,
    ),
    Fault(
        name="certificate-expiry",
        what="the control process stops for longer than certificates live",
        expectation="open connections live for their time, no new one is made; all is well once certificates are there again",
        inject=control_stopped,
        during=expired,
        targets=("everybody",),
        objective_seconds=15.0,
        stage=SHORT_LIVED,
    ),
)
