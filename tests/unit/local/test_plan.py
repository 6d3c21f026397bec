"""What the processes of a mesh are told, and what is refused before any of them starts."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from kernel.client_endpoints import read_headers
from kernel.config import Dsn
from kernel.identity import CLAIMS_HEADER, PEER_HEADER, SECRET_HEADER, Authenticator
from mesh.local.layout import Layout, LocalMeshError
from mesh.local.operator import NAMESPACE, SECRET_FILE, TRUST_DOMAIN, Caller, Endpoint
from mesh.local.options import Options, Surroundings, surroundings
from mesh.local.parts import Doors, member_password
from mesh.local.plan import build_plan
from mesh.local.services import SERVICES
from mesh.local.sidecar import HEADERS_FILE, write_headers, write_secrets
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


def test_a_port_in_use_is_named_with_the_key_that_chooses_another(taken_port: int) -> None:
    with pytest.raises(LocalMeshError, match=rf"(?s){taken_port} .*in use.*TRADEMESH_EXCHANGE_FIX_PORT"):
        Doors.choose(Options(), Surroundings(exchange_fix_port=taken_port))
    with pytest.raises(LocalMeshError, match="TRADEMESH_EXCHANGE_FEED_PORT"):
        Doors.choose(Options(), Surroundings(exchange_fix_port=0, exchange_feed_port=taken_port))


def test_free_ports_are_two_different_ones() -> None:
    doors = Doors.choose(FREE_PORTS, Surroundings())
    assert doors.fix_port != doors.feed_port


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


def test_a_service_attaches_each_callees_own_secret_and_its_own_name(layout: Layout) -> None:
    write_secrets(layout, ["svc_oms-0", "svc_risk-0", "svc_risk-1"])
    write_headers(layout, "svc_oms-0", service="svc_oms", callees=["svc_risk-0", "svc_risk-1"])
    by_target = read_headers(layout.private("svc_oms-0") / HEADERS_FILE)
    for callee in ("svc_risk-0", "svc_risk-1"):
        secret = (layout.private(callee) / SECRET_FILE).read_text()
        authenticator = Authenticator(secret, trust_domain=TRUST_DOMAIN, namespace=NAMESPACE, now=lambda: 0.0)
        headers = dict(by_target[f"unix:{layout.socket(callee)}"])
        assert authenticator.authenticate(headers[SECRET_HEADER], headers[PEER_HEADER], "").peer == "svc-oms"
