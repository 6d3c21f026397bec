"""Which instances take calls, by the supervisor's status document; and what the control plane makes of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from mesh.local.control.readiness import Readiness, unready
from mesh.local.report import InstanceReport, MeshReport, Phase, State
from mesh.local.topology import sidecar_name
from tests.unit.mesh.workloads import proxy

PROXIES = (
    proxy("svc_oms-0", "svc-oms", 1),
    proxy("svc_oms-1", "svc-oms", 2),
    proxy("svc_risk-0", "svc-risk", 3),
    proxy("svc_risk-1", "svc-risk", 4),
)


def status(phase: Phase = Phase.DEGRADED, **states: State) -> MeshReport:
    """Everything is ready but what is named, with underscores for dashes."""
    names = [name for item in PROXIES for name in (item.instance, sidecar_name(item.instance))]
    found = tuple(InstanceReport(name, "any", states.get(name.replace("-", "_"), State.READY), "", "") for name in names)
    return MeshReport(phase, 1, 0.0, found)


@pytest.mark.parametrize("state", [State.NOT_READY, State.BACKOFF, State.STARTING, State.CRASH_LOOP, State.GIVEN_UP, State.STOPPED])
def test_an_instance_that_is_not_ready_gets_no_calls(state: State) -> None:
    assert unready(status(svc_oms_1=state), PROXIES) == {"svc_oms-1"}


def test_nor_does_one_whose_sidecar_is_not() -> None:
    assert unready(status(envoy_svc_risk_0=State.BACKOFF, svc_oms_0=State.BACKOFF), PROXIES) == {"svc_risk-0", "svc_oms-0"}


def test_of_a_service_without_any_ready_instance_all_are_called() -> None:
    found = status(svc_oms_0=State.NOT_READY, envoy_svc_oms_1=State.NOT_READY, svc_risk_1=State.BACKOFF)
    assert unready(found, PROXIES) == {"svc_risk-1"}


@pytest.mark.parametrize("phase", [Phase.STARTING, Phase.STOPPING, Phase.STOPPED, Phase.FAILED])
def test_a_start_and_an_end_leave_nobody_out(phase: Phase) -> None:
    assert unready(status(phase, svc_oms_1=State.STARTING), PROXIES) == frozenset()


def test_instances_that_the_supervisor_does_not_know_are_called() -> None:
    assert unready(MeshReport(Phase.READY, 1, 0.0, ()), PROXIES) == frozenset()


def test_the_document_is_followed_and_an_unreadable_one_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "status.json"
    readiness = Readiness(path, PROXIES)
    assert readiness.unready() == frozenset()
    status(svc_oms_1=State.NOT_READY).write(path)
    assert readiness.unready() == {"svc_oms-1"}
    path.write_text("{")
    assert readiness.unready() == {"svc_oms-1"}
    path.unlink()
    assert readiness.unready() == {"svc_oms-1"}
    status(Phase.READY).write(path)
    assert readiness.unready() == frozenset()


def test_without_a_document_all_are_called() -> None:
    assert Readiness(None, PROXIES).unready() == frozenset()
