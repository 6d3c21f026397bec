"""Waiting for a server whose holder was killed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mesh.local.embedded import await_predecessor


@pytest.mark.parametrize("text", [None, "", "no number\n", f"{2**22 + 1}\n/data\n", f"{os.getpid()}\n/data\n"])
def test_nobody_is_waited_for_but_a_running_server(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "postmaster.pid").write_text(text)
    await_predecessor(tmp_path, timeout_seconds=60.0)
