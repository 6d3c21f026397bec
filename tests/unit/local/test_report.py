"""The status document and the logs beside it."""

from __future__ import annotations

from pathlib import Path

from mesh.local.report import InstanceReport, MeshReport, Phase, State, read
from mesh.local.rotation import Rotation, tail


def test_a_report_comes_back_as_it_was_written(tmp_path: Path) -> None:
    instance = InstanceReport("svc_oms-0", "svc_oms", State.CRASH_LOOP, "/run/x", "/log", None, 4, 1.5, 2.5, "killed by SIGKILL")
    report = MeshReport(Phase.DEGRADED, 42, 1.0, (instance,), 7.25, "", {"exchange": "127.0.0.1:1"})
    report.write(tmp_path / "status.json")
    assert read(tmp_path / "status.json") == report
    assert (tmp_path / "status.json").stat().st_mode & 0o777 == 0o600


def test_a_document_that_cannot_be_read_is_none(tmp_path: Path) -> None:
    path = tmp_path / "status.json"
    assert read(path) is None
    for text in ("", "[]", '{"format": 99}', '{"format": 1, "phase": "ready"}'):
        path.write_text(text)
        assert read(path) is None


def test_a_full_log_moves_on_and_the_oldest_goes(tmp_path: Path) -> None:
    log, rotation = tmp_path / "a.log", Rotation(bytes_max=10, files_kept=2)
    with log.open("ab") as writer:
        for number in range(4):
            writer.write(b"%d" % number * 11)
            writer.flush()
            assert rotation.apply(log)
        writer.write(b"after")
    assert log.read_bytes() == b"after"
    assert (tmp_path / "a.log.1").read_bytes() == b"3" * 11
    assert (tmp_path / "a.log.2").read_bytes() == b"2" * 11
    assert not (tmp_path / "a.log.3").exists()
    assert not rotation.apply(log)
    assert not rotation.apply(tmp_path / "none.log")


def test_a_tail_has_whole_lines_only(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    log.write_text("first line\nsecond\nthird\n")
    assert tail(log, bytes_max=12) == ["third"]
    assert tail(log, lines_max=2) == ["second", "third"]
    assert tail(tmp_path / "none.log") == []
