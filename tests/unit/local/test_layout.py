"""The state directory: private, owned by one supervisor, and clear about what is wrong with it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mesh.local.layout import DIRECTORY_KEY, Layout, LocalMeshError, SupervisorLock, default_directory, running_supervisor


def test_the_environment_chooses_the_directory(tmp_path: Path) -> None:
    assert default_directory({DIRECTORY_KEY: str(tmp_path)}) == tmp_path
    assert default_directory({}).name == "trademesh"


def test_directories_are_private(layout: Layout) -> None:
    assert layout.root.stat().st_mode & 0o066 == 0
    assert layout.logs.stat().st_mode & 0o777 == 0o700
    assert layout.create_private("svc_oms-0").stat().st_mode & 0o777 == 0o700
    assert len(os.fsencode(layout.socket("svc_marketdata-99"))) < 108


def test_a_directory_that_cannot_be_made_says_what_to_set(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LocalMeshError, match=DIRECTORY_KEY):
        Layout(tmp_path / "file" / "mesh").create()


def test_a_second_supervisor_is_refused_and_told_of_the_first(layout: Layout) -> None:
    lock = SupervisorLock(layout)
    lock.acquire()
    try:
        assert running_supervisor(layout) == os.getpid()
        with pytest.raises(LocalMeshError, match=str(os.getpid())):
            SupervisorLock(layout).acquire()
    finally:
        lock.release()
    assert running_supervisor(layout) is None


def test_a_dead_supervisors_process_id_blocks_nobody(layout: Layout) -> None:
    program = (
        "import os, sys, pathlib; from mesh.local.layout import Layout, SupervisorLock;"
        "SupervisorLock(Layout(pathlib.Path(sys.argv[1]))).acquire(); os.kill(os.getpid(), 9)"
    )
    dead = subprocess.run([sys.executable, "-c", program, str(layout.root)], check=False)
    assert dead.returncode == -9
    assert layout.lock_file.read_text() != ""
    assert running_supervisor(layout) is None
    lock = SupervisorLock(layout)
    lock.acquire()
    lock.release()
