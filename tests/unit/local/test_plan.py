"""What the processes of a mesh are told, and what is refused before any of them starts."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from kernel.client_endpoints import split_target
from kernel.config import Dsn
from kernel.identity import CLAIMS_HEADER, PEER_HEADER, SECRET_HEADER, Authenticator
from mesh.local.addresses import choose_addresses, edge_address
from mesh.local.layout import Layout, LocalMeshError
from mesh.local.operator import NAMESPACE, SECRET_FILE, TRUST_DOMAIN, Caller, Endpoint
from mesh.local.options import SERVICES, Options, Surroundings, surroundings
from mesh.local.parts import ISSUER, Doors, member_password
from mesh.local.plan import build_plan
from mesh.local.sidecar import CONTROL, MANIFESTS, proxies, write_secrets
from mesh.local.topology import ENVOY, Topology
from mesh.local.unit import Unit, start_waves

FREE_PORTS = Options(ephemeral_ports=True)


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port: int = holder.getsockname()[1]
        yield port


def units(layout: Layout, options: Options = FREE_PORTS, environment: Surroundings | None = None) -> dict[str, Unit]:
    return {unit.name: unit for unit in build_plan(layout, options, environment or Surroundings()).units}


@pytest.mark.parametrize(
    ("setting", "key"),
    [
        ("edge_port", "EDGE_PORT"),
        ("issuer_port", "ISSUER_PORT"),
        ("exchange_fix_port", "EXCHANGE_FIX_PORT"),
        ("exchange_itch_snapshot_port", "EXCHANGE_ITCH_SNAPSHOT_PORT"),
    ],
)
def test_a_port_in_use_is_named_with_the_key_that_chooses_another(taken_port: int, setting: str, key: str) -> None:
    # The others may be anything: a mesh may be running beside the tests.
    ports: dict[str, Any] = {field.name: 0 for field in fields(Surroundings) if field.name.endswith("_port")}
    with pytest.raises(LocalMeshError, match=rf"(?s){taken_port} .*in use.*TRADEMESH_{key}"):
        Doors.choose(Options(), Surroundings(**{**ports, setting: taken_port}))


def test_free_ports_are_two_different_ones() -> None:
    doors = Doors.choose(FREE_PORTS, Surroundings())
    assert doors.fix_port != doors.itch_snapshot_port


def test_the_plan_can_be_started_and_replicas_are_as_many_as_asked_for(layout: Layout) -> None:
    planned = units(layout, Options(replicas=3, ephemeral_ports=True))
    start_waves(list(planned.values()))
    for service in SERVICES:
        assert [name for name in planned if name.startswith(service)] == [f"{service}-{number}" for number in range(3)]


def test_secrets_stay_out_of_arguments_and_environments(layout: Layout) -> None:
    planned = units(layout)
    secrets = [path.read_text().strip() for path in layout.runtime.rglob(SECRET_FILE)]
    secrets.append(member_password(layout))
    assert len(secrets) > len(SERVICES)
    shown = " ".join(" ".join((*unit.command, *unit.environment.values())) for unit in planned.values())
    assert not any(secret in shown for secret in secrets)


def test_configuration_of_this_process_does_not_leak_into_services(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRADEMESH_MISSPELT", "1")
    assert not any("TRADEMESH_MISSPELT" in unit.environment for unit in units(layout).values())


def test_real_deployments_replace_the_embedded_parts(layout: Layout) -> None:
    real = Surroundings(postgres_dsn=Dsn("postgresql://admin:secret@db/postgres"), redis_url=Dsn("redis://:secret@bus:6379/0"))
    planned = units(layout, environment=real)
    assert "postgres" not in planned
    assert "redis" not in planned
    start_waves(list(planned.values()))


def test_a_misspelt_key_does_not_quietly_start_an_embedded_part() -> None:
    assert surroundings({"TRADEMESH_REDIS_URL": "redis://bus/0", "TRADEMESH_TEST_POSTGRES_DSN": "x"}).redis_url is not None
    with pytest.raises(LocalMeshError, match="TRADEMESH_POSTGRES_DNS: is not a known key"):
        surroundings({"TRADEMESH_POSTGRES_DNS": "postgresql://db/postgres"})


@pytest.mark.parametrize("count", [0, 9, -1])
def test_replicas_are_bounded(count: int) -> None:
    with pytest.raises(LocalMeshError, match="replicas"):
        Options(replicas=count)


def test_a_caller_with_the_instances_headers_is_believed_and_without_them_is_not(layout: Layout) -> None:
    write_secrets(layout, ["svc_oms-0", "svc_risk-0"])
    endpoint = Endpoint("svc_risk-0", layout.socket("svc_risk-0"))
    headers = dict(endpoint.metadata(Caller("ada", "demo", ("trader",), ("ACC-1",))))
    secret = (layout.private("svc_risk-0") / SECRET_FILE).read_text()
    authenticator = Authenticator(secret, trust_domain=TRUST_DOMAIN, namespace=NAMESPACE, now=lambda: 0.0)
    identity = authenticator.authenticate(headers[SECRET_HEADER], headers[PEER_HEADER], headers[CLAIMS_HEADER])
    assert identity.peer == "edge"
    assert identity.user is not None
    assert identity.user.accounts == {"ACC-1"}
    assert headers[SECRET_HEADER] != (layout.private("svc_oms-0") / SECRET_FILE).read_text()


def test_services_call_each_other_through_their_own_sidecars(layout: Layout) -> None:
    planned = units(layout)
    for caller, key, callee in (("svc_oms-0", "RISK", "svc-risk"), ("svc_risk-1", "OMS", "svc-oms")):
        target = planned[caller].environment[f"TRADEMESH_{key}_TARGETS"]
        assert split_target(target) == (f"unix:{layout.private(caller)}/egress.sock", f"{callee}.trading.svc.cluster.local:9000")
        assert "TRADEMESH_HEADERS_FILE" not in planned[caller].environment


def test_every_instance_has_a_sidecar_with_an_address_of_its_own(layout: Layout) -> None:
    planned = units(layout, Options(replicas=2, ephemeral_ports=True))
    sidecars = [unit for unit in planned.values() if unit.service == ENVOY]
    assert {unit.name for unit in sidecars} == {f"envoy-{service}-{number}" for service in SERVICES for number in range(2)}
    assert len({unit.address for unit in sidecars}) == len(sidecars)
    assert all(unit.after == (CONTROL,) for unit in sidecars)
    assert not any(CONTROL in unit.after for unit in planned.values() if unit.service in SERVICES)


def test_a_block_of_addresses_that_somebody_is_in_is_left_alone(tmp_path: Path) -> None:
    first = choose_addresses(tmp_path, ["a", "b"], [9000], free=lambda address, port: True)
    taken = first["b"]
    second = choose_addresses(tmp_path, ["a", "b"], [9000], free=lambda address, port: address != taken)
    assert first == choose_addresses(tmp_path, ["a", "b"], [9000], free=lambda address, port: True)
    assert second["a"].rsplit(".", 1)[0] != first["a"].rsplit(".", 1)[0]
    with pytest.raises(LocalMeshError, match="9000"):
        choose_addresses(tmp_path, ["a"], [9000], free=lambda address, port: False)


def test_a_topology_survives_its_file(layout: Layout, tmp_path: Path) -> None:
    write_secrets(layout, ["svc_oms-0"])
    topology = Topology(proxies(layout, {"svc_oms": ["svc_oms-0"]}, {"svc_oms": {8080: "http.sock"}}))
    topology.write(tmp_path / "topology.json")
    assert Topology.read(tmp_path / "topology.json") == topology
    assert (tmp_path / "topology.json").stat().st_mode & 0o077 == 0


def test_every_envoy_calls_from_an_address_of_its_own(layout: Layout) -> None:
    units(layout)
    topology = Topology.read(layout.private(CONTROL) / "topology.json")
    assert topology.edge is not None
    callers = [proxy.address for proxy in topology.proxies] + [topology.edge.source_address]
    assert len(set(callers)) == len(callers)
    assert topology.edge.source_address == edge_address(topology.proxies[0].address)


def test_a_mesh_with_manifests_of_its_own_follows_them_and_keeps_them(layout: Layout) -> None:
    options = Options(ephemeral_ports=True, own_manifests=True, certificate_seconds=60, token_seconds=30)
    planned = units(layout, options)
    followed = Path(planned[CONTROL].environment["TRADEMESH_MANIFESTS_DIRECTORY"])
    assert followed.parent == layout.root
    assert {path.name: path.read_text() for path in followed.iterdir()} == {
        path.name: path.read_text() for path in MANIFESTS.glob("*.yaml")
    }
    assert planned[CONTROL].environment["TRADEMESH_CERTIFICATE_SECONDS"] == "60"
    assert planned[ISSUER].environment["TRADEMESH_IDP_TOKEN_SECONDS"] == "30"
    (followed / "mesh.yaml").write_text("changed")
    units(layout, options)
    assert (followed / "mesh.yaml").read_text() == "changed"
    assert {"--own-manifests", "--certificate-seconds", "60", "--token-seconds", "30"} <= set(options.arguments())


def test_a_mesh_follows_the_manifests_of_the_checkout_unless_told(layout: Layout) -> None:
    assert units(layout)[CONTROL].environment["TRADEMESH_MANIFESTS_DIRECTORY"] == str(MANIFESTS)
