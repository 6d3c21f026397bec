"""The control process as the supervisor runs it."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mesh.local.compiler.tls import CURRENT
from mesh.local.layout import Layout
from mesh.local.report import State
from mesh.local.sidecar import MANIFESTS, control_unit, envoy_unit, proxies, write_secrets
from mesh.local.supervisor import StartError, Supervisor
from mesh.local.topology import Topology
from mesh.local.unit import Unit

WAIT_SECONDS_MAX = 30.0


@pytest.fixture
def layout(tmp_path: Path) -> Iterator[Layout]:
    created = Layout(tmp_path / "m")
    created.create()
    yield created
    shutil.rmtree(created.runtime)


def units(layout: Layout, **settings: str) -> list[Unit]:
    write_secrets(layout, ["svc_oms-0"])
    topology = Topology(proxies(layout, {"svc_oms": ["svc_oms-0"]}))
    return [control_unit(layout, topology, settings), *(envoy_unit(layout, proxy) for proxy in topology.proxies)]


async def test_sidecars_start_behind_it_and_it_ends_cleanly(layout: Layout) -> None:
    planned = units(layout)
    assert planned[0].command[:2] == (sys.executable, "-m")
    supervisor = Supervisor(planned, layout)
    await supervisor.start(timeout_seconds=WAIT_SECONDS_MAX)
    assert (layout.private("svc_oms-0") / "certificates" / CURRENT).is_symlink()
    await supervisor.stop()
    report = supervisor.report
    assert {item.last_end for item in report.instances} == {"stopped"}
    assert report.instance("control").state is State.STOPPED


async def test_manifests_that_cannot_be_compiled_end_the_start_with_their_reason(layout: Layout, tmp_path: Path) -> None:
    wrong = shutil.copytree(MANIFESTS, tmp_path / "wrong")
    (wrong / "svc-risk.yaml").write_text((MANIFESTS / "svc-risk.yaml").read_text().replace("mode: ISTIO_MUTUAL", "mode: DISABLE"))
    supervisor = Supervisor(units(layout, MANIFESTS_DIRECTORY=str(wrong)), layout)
    refusal = (
        r"(?s)control failed: exit code 78.*svc-risk\.yaml: DestinationRule/svc-risk: spec\.trafficPolicy\.tls\.mode: must be ISTIO_MUTUAL"
    )
    with pytest.raises(StartError, match=refusal):
        await supervisor.start(timeout_seconds=WAIT_SECONDS_MAX)
    assert supervisor.report.instance("control").restarts == 0


async def test_configuration_that_is_wrong_is_named(layout: Layout) -> None:
    [control, *_] = units(layout, CERTIFICATE_SECONDS="5")
    with pytest.raises(StartError, match="TRADEMESH_CERTIFICATE_SECONDS: must be at least 60"):
        await Supervisor([control], layout).start(timeout_seconds=WAIT_SECONDS_MAX)
