"""What is said where sidecars could not watch their files."""

from __future__ import annotations

import errno
import os

import pytest

from mesh.local.layout import LocalMeshError
from mesh.local.watches import require_watches, take_one


def test_a_machine_with_too_few_watches_is_told_how_to_have_more() -> None:
    held: list[int] = []

    def take() -> int:
        if len(held) == 5:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        held.append(len(held))
        return held[-1]

    released: list[int] = []
    with pytest.raises(
        LocalMeshError, match=r"(?s)2 sidecars need 6 inotify instances, and this user can have 5 more.*max_user_instances=512"
    ):
        require_watches(2, take=take, release=released.append)
    assert released == held


def test_what_was_taken_is_given_back() -> None:
    for _ in range(100):
        require_watches(1)
    os.close(take_one())
