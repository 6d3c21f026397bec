"""What is measured, and where it goes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from kernel.telemetry import HeadSampler, Metrics, RotatingLines, Sample, Telemetry, TelemetryConfig

PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-"


@pytest.mark.parametrize(("flags", "sampled"), [("00", False), ("01", True), ("02", False), ("03", True)])
def test_a_callers_decision_is_honoured_whatever_the_ratio(flags: str, sampled: bool) -> None:
    for ratio in (0.0, 1.0):
        assert HeadSampler(ratio).sampled([("a", "b"), ("traceparent", PARENT + flags)]) is sampled


def test_roots_are_sampled_by_chance() -> None:
    assert HeadSampler(0.5, chance=lambda: 0.4).sampled([])
    assert not HeadSampler(0.5, chance=lambda: 0.6).sampled([])
    assert not HeadSampler(0.0, chance=lambda: 0.0).sampled([])


@pytest.mark.parametrize("value", ["", "g", b"\x01"])
def test_a_malformed_traceparent_is_not_sampled(value: object) -> None:
    assert not HeadSampler(1.0).sampled([("traceparent", value)])


def test_metrics_are_asked_for_and_a_broken_one_stands_alone(caplog: pytest.LogCaptureFixture) -> None:
    metrics = Metrics()
    metrics.gauge("queue_depth", lambda: 3, lane="cancels")
    metrics.gauge("broken", lambda: 1 / 0)
    metrics.source(lambda: [Sample("x_total", 1)])
    assert list(metrics.collect()) == [Sample("queue_depth", 3, (("lane", "cancels"),)), Sample("x_total", 1)]
    assert "a metric source failed" in caplog.text


def test_a_file_is_bounded_and_rotated(tmp_path: Path) -> None:
    lines = RotatingLines(tmp_path / "deep" / "x.jsonl", bytes_max=100, files_kept=2)
    for number in range(60):
        lines.write([f"line {number:04}"])
    lines.close()
    names = sorted(path.name for path in (tmp_path / "deep").iterdir())
    assert names == ["x.jsonl", "x.jsonl.1", "x.jsonl.2"]
    assert all(path.stat().st_size <= 100 for path in (tmp_path / "deep").iterdir())
    assert (tmp_path / "deep" / "x.jsonl").read_text().endswith("line 0059\n")


async def test_metrics_are_exported_to_a_file_and_once_more_at_the_end(tmp_path: Path) -> None:
    telemetry = Telemetry(TelemetryConfig("svc-oms", "svc-oms-0", folder=tmp_path, metrics_interval_seconds=3_600))
    telemetry.metrics.gauge("horizon_lag_seconds", lambda: 0.25)
    telemetry.start()
    await telemetry.stop()
    [line] = [json.loads(text) for text in (tmp_path / "svc-oms-0.metrics.jsonl").read_text().splitlines()]
    assert line["samples"] == [{"name": "horizon_lag_seconds", "value": 0.25}]


def test_a_ratio_is_a_share() -> None:
    with pytest.raises(ValueError, match="root_ratio"):
        TelemetryConfig("s", "i", root_ratio=1.5)


def test_importing_the_network_half_leaves_exporters_and_instrumentation_alone() -> None:
    modules = "kernel.grpc_server, kernel.grpc_client, kernel.eventlog_servicer, kernel.streams, kernel.paging, kernel.telemetry"
    heavy = "('opentelemetry.exporter', 'opentelemetry.instrumentation')"
    program = f"import sys; import {modules}; print([name for name in sys.modules if name.startswith({heavy})])"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert result.stdout.strip() == "[]"
