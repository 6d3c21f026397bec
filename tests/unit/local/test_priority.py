"""Groups of sessions that yield to others, where the kernel has such groups."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mesh.local.priority import group_yields

GROUPS = Path("/proc/self/autogroup")


@pytest.fixture
def session() -> Iterator[int]:
    """Return the process id of a session of its own."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, start_new_session=True) as process:
        yield process.pid
        process.kill()


@pytest.mark.skipif(not GROUPS.exists(), reason="this kernel schedules no sessions as groups")
def test_a_group_has_the_niceness_that_it_is_given(session: int) -> None:
    while not group_yields(session, 7):
        pass
    assert Path(f"/proc/{session}/autogroup").read_text().split()[-1] == "7"


def test_who_is_gone_or_has_no_group_is_left_alone(session: int) -> None:
    assert group_yields(2**22, 7)


def test_the_kernel_may_want_to_be_asked_again(session: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def busy(descriptor: int, text: bytes) -> int:
        raise BlockingIOError(errno.EAGAIN, "again")

    descriptor = os.dup(0)
    with monkeypatch.context() as kernel:
        kernel.setattr(os, "open", lambda path, flags: descriptor)
        kernel.setattr(os, "write", busy)
        asked = group_yields(session, 7)
    assert not asked
