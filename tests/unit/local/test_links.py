"""When a mesh of healthy services also trades."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from mesh.local.layout import Layout, LocalMeshError
from mesh.local.links import WAIT_SECONDS_MAX, await_links, missing
from mesh.local.venue_control import tell

LINKED = {"ok": True, "feed_readers": 1, "members_connected": 1}


@contextmanager
def exchange(path: Path, *answers: dict[str, Any]) -> Iterator[list[dict[str, Any]]]:
    """Answer one connection after the other, as the exchange's control socket does; yield what was asked."""
    asked: list[dict[str, Any]] = []
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def serve() -> None:
            for answer in answers:
                connection, _ = listener.accept()
                with connection, connection.makefile("rb") as lines:
                    asked.append(json.loads(lines.readline()))
                    connection.sendall(json.dumps(answer).encode() + b"\n")

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield asked
        thread.join(timeout=5.0)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def read(self) -> float:
        return self.now

    def pause(self, seconds: float) -> None:
        self.now += seconds


@pytest.mark.parametrize(
    ("readers", "members", "venue_link", "absent"),
    [(1, 1, True, 0), (0, 1, True, 1), (1, 0, True, 1), (0, 0, True, 2), (1, 0, False, 0), (0, 0, False, 1)],
)
def test_prices_are_always_wanted_and_the_session_where_there_is_to_be_one(
    readers: int, members: int, *, venue_link: bool, absent: int
) -> None:
    assert len(missing({"feed_readers": readers, "members_connected": members}, venue_link=venue_link)) == absent


def test_it_asks_until_everything_is_linked(layout: Layout) -> None:
    clock = Clock()
    path = layout.create_private("exchange") / "control.sock"
    with exchange(path, {**LINKED, "feed_readers": 0}, LINKED) as asked:
        await_links(path, venue_link=True, now=clock.read, pause=clock.pause)
    assert asked == [{"op": "status"}, {"op": "status"}]
    assert clock.now > 0


def test_what_is_missing_in_the_end_is_named(layout: Layout) -> None:
    clock = Clock()
    with pytest.raises(LocalMeshError, match="the exchange does not answer"):
        await_links(layout.create_private("exchange") / "control.sock", venue_link=True, now=clock.read, pause=clock.pause)
    assert clock.now >= WAIT_SECONDS_MAX


def test_a_refused_operation_says_why(layout: Layout) -> None:
    path = layout.create_private("exchange") / "control.sock"
    with exchange(path, {"ok": False, "error": "no trade is known"}) as asked, pytest.raises(LocalMeshError, match="no trade is known"):
        tell(path, "trade.bust", exec_id="E-1")
    assert asked == [{"op": "trade.bust", "exec_id": "E-1"}]
