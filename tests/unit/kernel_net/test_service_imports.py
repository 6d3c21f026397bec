"""What a service's imports cost: a replica that was killed is back in time to matter, and an exporter that nobody asked for stays away."""

import json
import resource
import subprocess
import sys

import pytest

CPU_SECONDS_MAX = 0.6
_PROGRAM = "import json, sys, {module}; print(json.dumps(sorted(sys.modules)))"


def imported(module: str) -> tuple[float, list[str]]:
    """Import a module in a process of its own; return the CPU seconds that the process took and all that it has loaded."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-c", _PROGRAM.format(module=module)], check=True, capture_output=True, timeout=60)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, json.loads(done.stdout)


@pytest.mark.parametrize("module", ["svc_marketdata.main", "svc_oms.main", "svc_portfolio.main", "svc_risk.main"])
def test_a_service_is_imported_quickly_and_without_exporters(module: str) -> None:
    tries = []
    for _ in range(3):
        cpu_seconds, loaded = imported(module)
        assert not [name for name in loaded if name.startswith(("opentelemetry.exporter", "opentelemetry.proto"))]
        tries.append(cpu_seconds)
        if cpu_seconds <= CPU_SECONDS_MAX:
            return
    raise AssertionError(f"importing {module} took {tries} CPU seconds, at most {CPU_SECONDS_MAX} are wanted")
