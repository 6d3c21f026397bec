"""What a person sees of the mesh."""

from __future__ import annotations

import os
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from mesh.local import screens
from mesh.local.layout import Layout
from mesh.local.report import InstanceReport, MeshReport, Phase, State
from mesh.local.started import started_screen

OMS = InstanceReport("svc_oms-0", "svc_oms", State.READY, "/run/oms.sock", "/log", os.getpid(), 1, 100.0, None, "killed by SIGKILL")
LOOPING = InstanceReport("svc_risk-0", "svc_risk", State.CRASH_LOOP, "/run/risk.sock", "/log", None, 5, 100.0, 203.5, "exit code 1")
SEED = InstanceReport("seed", "seed", State.DONE, "", "/log", None, 0, 100.0, None, "exit code 0")
SIDECAR = InstanceReport("envoy-svc_oms-0", "envoy", State.READY, "127.9.9.1:9000", "/log", os.getpid(), 0, 100.0, None, "")
FACTS = {"edge": "127.0.0.1:8443", "edge_authority_file": "/state/authority.pem", "issuer": "http://127.0.0.1:8480"}
REPORT = MeshReport(Phase.DEGRADED, 42, 100.0, (OMS, LOOPING, SEED), 7.3)


def printed(*renderables: object) -> str:
    out = StringIO()
    console = Console(file=out, width=200)
    for renderable in renderables:
        console.print(renderable)
    return out.getvalue()


def test_the_table_shows_restarts_uptime_memory_and_the_crash_loop() -> None:
    shown = printed(screens.status_table(screens.view(REPORT, now=200.0)))
    assert "svc_oms-0" in shown
    assert "1m 40s" in shown
    assert "crash-loop" in shown
    assert "exit code 1; starts again in 3.5 s" in shown


def test_the_document_has_the_same_as_numbers() -> None:
    document = screens.status_document(REPORT, running=True)
    assert document["phase"] == "degraded"
    oms, risk, seed = document["instances"]
    assert oms["pid"] == os.getpid()
    assert oms["rss_mib"] > 1
    assert (risk["pid"], risk["rss_mib"], risk["uptime_seconds"]) == (None, None, None)
    assert seed["note"] == ""
    assert screens.status_document(REPORT, running=False) == {"phase": "stopped", "running": False, "instances": []}


def test_the_memory_of_a_process_that_is_gone_is_unknown() -> None:
    assert screens.resident_mib(2**22 + 1) is None


@pytest.mark.parametrize(("seconds", "text"), [(4.9, "4s"), (200, "3m 20s"), (18_120, "5h 02m"), (187_200, "2d 4h")])
def test_durations_have_two_units_at_most(seconds: float, text: str) -> None:
    assert screens.duration(seconds) == text


def test_the_screen_after_the_start_says_how_to_trade_look_and_stop(tmp_path: Path) -> None:
    out = StringIO()
    running = replace(REPORT, instances=(OMS, SIDECAR, LOOPING, SEED), facts=FACTS)
    started_screen(Console(file=out, width=200), running, Layout(tmp_path))
    shown = out.getvalue()
    for needed in ("7.3 s", "127.9.9.1:9000", "trademesh order buy", "trademesh token", str(tmp_path / "logs"), "make down"):
        assert needed in shown
    for door in ("https://127.0.0.1:8443/v1/accounts", "wss://127.0.0.1:8443/v1/ws", "https://127.0.0.1:8443/docs", *FACTS.values()):
        assert door in shown
    assert "/run/oms.sock" not in shown, "nobody comes in beside the sidecar"
    assert len(shown.splitlines()) <= 30


def test_progress_says_each_thing_once() -> None:
    out = StringIO()
    progress = screens.ProgressView(Console(file=out, width=200))
    progress.update(REPORT)
    progress.update(REPORT)
    lines = out.getvalue().splitlines()
    assert len(lines) == 3
    assert "crash-loop: exit code 1" in lines[1]
