"""When a mesh of healthy services also trades."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from kernel.errors import Reason, UnavailableError
from mesh.local.layout import Layout, LocalMeshError
from mesh.local.links import WAIT_SECONDS_MAX, await_links, fresh_prices, venue_link
from mesh.local.operator import Answer, Operator
from mesh.local.seed_data import instrument_ids
from mesh.local.venue_control import tell
from trademesh.risk.v1 import risk_service_pb2


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


class Risk:
    """Answers as risk's replicas do: prices by instrument and freshness, or an error."""

    def __init__(self, answer: dict[str, bool] | UnavailableError) -> None:
        self.answer = answer

    def call(self, *_: object, **__: object) -> Answer:
        if isinstance(self.answer, UnavailableError):
            raise self.answer
        prices = [risk_service_pb2.DecisionPrice(instrument_id=name, fresh=fresh) for name, fresh in self.answer.items()]
        return Answer(risk_service_pb2.ListReferencePricesResponse(prices=prices))


def asked_of(answer: dict[str, bool] | UnavailableError) -> str:
    return fresh_prices(cast("Operator", Risk(answer)))


def test_every_instrument_needs_a_price_on_which_orders_may_be_approved() -> None:
    everyone = dict.fromkeys(instrument_ids(), True)
    assert asked_of(everyone) == ""
    assert asked_of({**everyone, "AAPL": False}) == "risk has no fresh price of AAPL"
    assert "MSFT" in asked_of({name: True for name in everyone if name != "MSFT"})
    assert "does not answer" in asked_of(UnavailableError(Reason.DEPENDENCY_UNAVAILABLE, "away"))


def test_it_asks_until_everything_is_linked(layout: Layout) -> None:
    clock = Clock()
    path = layout.create_private("exchange") / "control.sock"
    with exchange(path, {"ok": True, "members_connected": 0}, {"ok": True, "members_connected": 1}) as asked:
        await_links([lambda: venue_link(path)], now=clock.read, pause=clock.pause)
    assert asked == [{"op": "status"}, {"op": "status"}]
    assert clock.now > 0


def test_what_is_missing_in_the_end_is_named(layout: Layout) -> None:
    clock, path = Clock(), layout.create_private("exchange") / "control.sock"
    checks = [lambda: venue_link(path), lambda: asked_of({})]
    with pytest.raises(LocalMeshError, match="the exchange does not answer and risk has no fresh price of AAPL"):
        await_links(checks, now=clock.read, pause=clock.pause)
    assert clock.now >= WAIT_SECONDS_MAX


def test_a_refused_operation_says_why(layout: Layout) -> None:
    path = layout.create_private("exchange") / "control.sock"
    with exchange(path, {"ok": False, "error": "no trade is known"}) as asked, pytest.raises(LocalMeshError, match="no trade is known"):
        tell(path, "trade.bust", exec_id="E-1")
    assert asked == [{"op": "trade.bust", "exec_id": "E-1"}]
