"""Several logs read as one, also across rotation."""

from __future__ import annotations

from io import StringIO
from pathlib import Path

import pytest

from mesh.local.layout import Layout, LocalMeshError
from mesh.local.log_reader import Follower, matching_logs, merged, show
from mesh.local.rotation import Rotation


@pytest.fixture
def logs(layout: Layout) -> Layout:
    for name in ("svc_oms-0", "svc_oms-1", "svc_risk-0", "postgres"):
        layout.log(name).write_text("")
    return layout


def line(second: int, text: str) -> str:
    return f'{{"time":"2026-01-02T14:30:{second:02}.000Z","message":"{text}"}}'


def test_a_service_names_all_its_replicas_and_an_instance_itself(logs: Layout) -> None:
    assert list(matching_logs(logs, ["svc_oms"])) == ["svc_oms-0", "svc_oms-1"]
    assert list(matching_logs(logs, ["svc_oms-1", "postgres"])) == ["postgres", "svc_oms-1"]
    assert len(matching_logs(logs, [])) == 4


def test_a_name_that_fits_nothing_is_refused_with_those_that_do(logs: Layout) -> None:
    with pytest.raises(LocalMeshError, match=r"svc_omz.*svc_oms-0"):
        matching_logs(logs, ["svc_omz"])


def test_lines_come_in_the_order_of_their_time_and_a_traceback_stays_together() -> None:
    lines = {
        "a": [line(1, "first"), line(4, "boom"), "Traceback", "  File"],
        "b": [line(2, "second"), "2026-01-02 14:30:05.123 UTC [1] last"],
    }
    assert [text[-8:] for _, text in merged(lines)] == [
        line(1, "first")[-8:],
        line(2, "second")[-8:],
        line(4, "boom")[-8:],
        "raceback",
        "  File",
        "[1] last",
    ]


def test_a_follower_reads_whole_lines_and_survives_rotation(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    log.write_text("before\n")
    follower = Follower(log)
    with log.open("a") as writer:
        writer.write("one\ntw")
        writer.flush()
        assert follower.lines() == ["one"]
        writer.write("o\n")
        writer.flush()
        assert follower.lines() == ["two"]
        Rotation(bytes_max=1).apply(log)
        writer.write("new\n")
        writer.flush()
        assert follower.lines() == ["new"]
    assert Follower(tmp_path / "none.log").lines() == []


def test_the_last_lines_are_shown_with_their_instance(logs: Layout) -> None:
    logs.log("svc_oms-0").write_text(line(1, "a") + "\n" + line(3, "c") + "\n")
    logs.log("svc_oms-1").write_text(line(2, "b") + "\n")
    out = StringIO()
    show(matching_logs(logs, ["svc_oms"]), lines_max=2, follow=False, out=out)
    assert [text.partition(" | ")[0] for text in out.getvalue().splitlines()] == ["svc_oms-1", "svc_oms-0"]
