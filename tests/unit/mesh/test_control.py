"""The control plane on a clock of its own: when certificates change, which keys count, and what a mistake leaves in force."""

from __future__ import annotations

import datetime
import json
import logging
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm

from mesh.edge.documents import CERTIFICATE_FILE
from mesh.local.compiler import ManifestError
from mesh.local.compiler.documents import CLUSTERS_FILE, LISTENERS_FILE
from mesh.local.compiler.tls import CURRENT, IDENTITY_FILE
from mesh.local.control.keys import IssuerKeys, KeysError, check, fetch, nobody
from mesh.local.control.plane import BOOTSTRAP_FILE, ControlPlane, Paths
from mesh.local.sidecar import MANIFESTS
from mesh.local.topology import EdgeSite, Topology
from tests.unit.mesh.workloads import Immediate, proxy

URI = "http://127.0.0.1:1/jwks"


@dataclass
class Clock:
    moment: datetime.datetime = datetime.datetime(2026, 1, 2, 12, tzinfo=datetime.UTC)

    def __call__(self) -> datetime.datetime:
        return self.moment

    def advance(self, **much: float) -> None:
        self.moment += datetime.timedelta(**much)


class FakeIssuer:
    """Answers with its keys, or not at all."""

    def __init__(self) -> None:
        self.answer: bytes | None = None
        self.asked = 0

    def publish(self) -> str:
        """Have a new key; return its set in normal form."""
        key = ECAlgorithm.to_jwk(ec.generate_private_key(ec.SECP256R1()).public_key(), as_dict=True)
        self.answer = json.dumps({"keys": [{**key, "kid": "k"}]}).encode()
        return check(self.answer)

    def __call__(self, address: str) -> bytes:
        self.asked += 1
        if self.answer is None:
            raise KeysError(f"{address} does not answer")
        return self.answer


class Running:
    """A control plane over two sidecars and the edge, in a directory of its own."""

    def __init__(self, root: Path) -> None:
        self.clock, self.issuer = Clock(), FakeIssuer()
        self.proxies = (
            proxy("svc_oms-0", "svc-oms", 1, root=root),
            proxy("svc_risk-0", "svc-risk", 2, root=root),
            proxy("svc_risk-1", "svc-risk", 3, root=root),
        )
        self.unready: frozenset[str] = frozenset()
        edge = root / "edge"
        self.edge = EdgeSite(
            address="127.0.0.1",
            port=8443,
            names=("localhost",),
            identity=edge / "identity",
            certificates=edge / "certificates",
            configuration=edge / "configuration",
            admin_socket=edge / "admin.sock",
            authority_file=root / "authority.pem",
            access_log=edge / "access.jsonl",
        )
        self.manifests = root / "manifests"
        self.kept = root / "keys.json"
        if not self.manifests.exists():
            shutil.copytree(MANIFESTS, self.manifests)
        self.plane = ControlPlane(
            Topology(self.proxies, self.edge),
            Paths(self.manifests, root / "ca", self.kept, root / "edge-ca"),
            issuer="http://127.0.0.1:1",
            keys=IssuerKeys(URI, self.kept, self.issuer),
            certificate_seconds=3_600,
            keys_seconds=10.0,
            now=self.clock,
            unready=lambda: self.unready,
            asking=Immediate(),
        )

    def called(self, directory: Path) -> list[str]:
        """Return the addresses at which one configuration finds svc-risk."""
        clusters = json.loads((directory / CURRENT / CLUSTERS_FILE).read_text())["resources"]
        [found] = [cluster for cluster in clusters if cluster["name"] == "outbound|9000||svc-risk.trading.svc.cluster.local"]
        return [
            item["endpoint"]["address"]["socket_address"]["address"]
            for group in found["load_assignment"]["endpoints"]
            for item in group["lb_endpoints"]
        ]

    def listeners(self) -> str:
        return (self.proxies[0].configuration / CURRENT / LISTENERS_FILE).read_text()

    def generations(self) -> list[str]:
        directories = (*(proxy.certificates for proxy in self.proxies), self.edge.identity, self.edge.certificates)
        return [str(directory.joinpath(CURRENT).readlink()) for directory in directories]


@pytest.fixture
def running(tmp_path: Path) -> Running:
    return Running(tmp_path)


def test_a_sidecar_can_start_once_the_plane_has(running: Running) -> None:
    running.plane.start()
    for sidecar in running.proxies:
        assert json.loads((sidecar.configuration / BOOTSTRAP_FILE).read_text())["node"]["id"].startswith(f"sidecar~{sidecar.address}~")
        assert (sidecar.certificates / CURRENT / IDENTITY_FILE).exists()
        for path in (sidecar.configuration / BOOTSTRAP_FILE, sidecar.configuration / CURRENT / LISTENERS_FILE):
            assert path.stat().st_mode & 0o077 == 0, "it holds the sidecar's secret"
    assert (running.edge.identity / CURRENT / IDENTITY_FILE).exists()
    assert (running.edge.certificates / CURRENT / CERTIFICATE_FILE).exists()
    assert (running.edge.configuration / BOOTSTRAP_FILE).exists()


def test_certificates_are_replaced_at_half_of_their_life(running: Running) -> None:
    running.plane.start()
    running.clock.advance(minutes=29, seconds=59)
    running.plane.step()
    assert running.generations() == ["00000001"] * 5
    running.clock.advance(seconds=1)
    running.plane.step()
    assert running.generations() == ["00000002"] * 5


def test_until_the_issuer_answers_nobodys_keys_are_in_force(running: Running) -> None:
    running.plane.start()
    running.plane.step()
    before = running.listeners()
    assert '\\"kid\\": \\"nobody\\"' in before
    keys = running.issuer.publish()
    running.plane.step()
    assert running.listeners() == before, "asked again only after a second"
    running.clock.advance(seconds=1)
    running.plane.step()
    assert json.dumps(keys) in running.listeners()


def test_new_keys_are_found_and_a_silent_issuer_changes_nothing(running: Running, caplog: pytest.LogCaptureFixture) -> None:
    running.issuer.publish()
    running.plane.start()
    running.plane.step()
    first, asked = running.listeners(), running.issuer.asked
    running.clock.advance(seconds=9)
    running.plane.step()
    assert running.issuer.asked == asked
    running.issuer.answer = None
    with caplog.at_level(logging.WARNING):
        for _ in range(5):
            running.clock.advance(seconds=10)
            running.plane.step()
    assert running.listeners() == first
    assert len([record for record in caplog.records if "does not answer" in record.message]) == 1
    keys = running.issuer.publish()
    running.clock.advance(seconds=10)
    running.plane.step()
    assert json.dumps(keys) in running.listeners()


def test_the_last_good_keys_survive_a_restart_while_the_issuer_is_away(tmp_path: Path) -> None:
    first = Running(tmp_path)
    keys = first.issuer.publish()
    first.plane.start()
    first.plane.step()
    again = Running(tmp_path)
    again.plane.start()
    assert json.dumps(keys) in again.listeners()
    assert IssuerKeys("http://another/jwks", again.kept, again.issuer).current != keys


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"[]",
        b'{"keys": []}',
        b'{"keys": [{"kty": "oct", "k": "c2VjcmV0"}]}',
        b'{"keys": [{"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"}]}',
        b'{"keys": [{"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA", "d": "AA"}]}',
        b"x" * 70_000,
    ],
)
def test_what_is_no_set_of_public_keys_does_not_replace_one(running: Running, answer: bytes) -> None:
    keys = IssuerKeys(URI, running.kept, running.issuer)
    good = running.issuer.publish()
    assert keys.take(keys.ask())
    running.issuer.answer = answer
    with pytest.raises(KeysError):
        keys.ask()
    assert keys.current == good


def test_keys_come_over_http_only() -> None:
    for address in ("file:///etc/hostname", "http://127.0.0.1:1/jwks"):
        with pytest.raises(KeysError):
            fetch(address)
    assert "nobody" in check(nobody().encode())


def test_a_wrong_manifest_stops_the_start_and_writes_nothing(running: Running) -> None:
    (running.manifests / "svc-oms.yaml").write_text("kind: Nonsense")
    with pytest.raises(ManifestError, match=r"svc-oms\.yaml: object\.metadata: is required"):
        running.plane.start()
    assert not running.proxies[0].configuration.exists()
    assert not running.edge.identity.exists()


def test_a_manifest_that_goes_wrong_later_leaves_the_last_good_one_in_force(running: Running, caplog: pytest.LogCaptureFixture) -> None:
    running.plane.start()
    running.plane.step()
    before = running.listeners()
    path = running.manifests / "svc-oms.yaml"
    text = path.read_text()
    path.write_text(text.replace("subset: control", "subset: controll"))
    running.plane.step()
    assert running.listeners() == before
    assert "svc-oms.trading.svc.cluster.local has no subset controll" in caplog.text
    path.write_text(text.replace("svc-oms-outside", "svc-oms-users"))
    running.plane.step()
    assert "policy[svc-oms-users]" in running.listeners()


def test_a_route_that_the_edge_cannot_follow_leaves_the_last_good_configuration_in_force(
    running: Running, caplog: pytest.LogCaptureFixture
) -> None:
    running.plane.start()
    running.plane.step()
    before = running.listeners()
    path = running.manifests / "svc-oms.yaml"
    path.write_text(
        path.read_text().replace("        - uri:\n            exact: /trademesh.oms.v1.OrderService/CancelOrder\n", HEADER_MATCH)
    )
    running.plane.step()
    assert running.listeners() == before
    assert "the edge: svc-oms.trading.svc.cluster.local:9000: a route is matched by more than its path" in caplog.text
    with pytest.raises(ManifestError, match="matched by more than its path"):
        Running(running.manifests.parent).plane.start()


HEADER_MATCH = """        - uri:
            exact: /trademesh.oms.v1.OrderService/CancelOrder
          headers:
            x-any:
              exact: thing
"""


def test_new_keys_count_while_the_manifests_are_wrong(running: Running) -> None:
    running.issuer.publish()
    running.plane.start()
    running.plane.step()
    path = running.manifests / "svc-oms.yaml"
    path.write_text(path.read_text().replace("subset: control", "subset: controll"))
    running.plane.step()
    keys = running.issuer.publish()
    running.clock.advance(seconds=10)
    running.plane.step()
    assert json.dumps(keys) in running.listeners()


def test_callers_find_instances_that_are_ready(running: Running, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    running.plane.start()
    callers = (running.proxies[0].configuration, running.edge.configuration)
    both = [sidecar.address for sidecar in running.proxies[1:]]
    assert [running.called(caller) for caller in callers] == [both, both]
    running.unready = frozenset({"svc_risk-0"})
    running.plane.step()
    assert [running.called(caller) for caller in callers] == [both[1:], both[1:]]
    running.plane.step()
    running.unready = frozenset()
    running.plane.step()
    assert [running.called(caller) for caller in callers] == [both, both]
    said = [record.getMessage() for record in caplog.records if record.getMessage().startswith("svc_risk-0")]
    assert said == ["svc_risk-0 gets no calls until it is ready", "svc_risk-0 gets calls again"]
