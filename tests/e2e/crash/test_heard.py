"""What a follower makes of streams that are whole, and of each way in which one is not."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest

from tests.e2e.crash.agreeing_holdings import ACCOUNT, BUYS, agreeing
from tests.e2e.crash.heard import Heard, order_stream, portfolio_stream
from tests.e2e.crash.holdings_record import Standing
from trademesh.oms.v1 import order_service_pb2 as oms
from trademesh.portfolio.v1 import portfolio_service_pb2 as portfolio
from trademesh.portfolio.v1 import position_pb2
from trademesh.type.v1 import log_position_pb2, stream_pb2

PLACES = [(1, 1), (4, 4), (5, 5)]
Message = oms.StreamOrderEventsResponse


def event(sequence: int, place: tuple[int, int]) -> Message:
    at = log_position_pb2.LogPosition(tx=place[0], position=place[1])
    return Message(sequence=sequence, resume_token=f"t{sequence}", event=oms.OrderEvent(log_position=at))


def heartbeat(last_sequence: int) -> Message:
    return Message(heartbeat=stream_pb2.StreamHeartbeat(last_sequence=last_sequence))


SNAPSHOT = Message(sequence=1, snapshot=oms.OrderSnapshot(complete=True))
WHOLE = [[SNAPSHOT, event(2, PLACES[0]), heartbeat(2)], [event(3, PLACES[1]), event(4, PLACES[2])]]
"""The messages of two connections."""


def orders_heard(connections: list[list[Message]]) -> list[str]:
    heard, records = Heard("stream", ACCOUNT), agreeing()
    for order in records.orders.histories.values():
        order.places = PLACES if order.order_id == BUYS else []
    for messages in connections:
        last = 0
        for message in messages:
            last = heard.note(message, last)
    return list(order_stream(heard, records.orders))


def test_a_stream_over_two_connections_is_whole() -> None:
    assert orders_heard(WHOLE) == []


@pytest.mark.parametrize(
    ("connections", "finding"),
    [
        ([WHOLE[0], WHOLE[1][:1]], "2 of 3 came; missing [(5, 5)]"),
        ([WHOLE[0], [WHOLE[0][1], *WHOLE[1]]], "repeated [(1, 1)]"),
        ([WHOLE[0], [event(3, PLACES[2]), event(4, PLACES[1])]], "in order: False"),
        ([WHOLE[0], [*WHOLE[1], event(5, (9, 9))]], "unknown [(9, 9)]"),
        ([WHOLE[0], [WHOLE[1][0], event(5, PLACES[2])]], "message 5 follows 3"),
        ([[*WHOLE[0], heartbeat(3)], WHOLE[1]], "a heartbeat says 3, 2 was the last"),
        ([WHOLE[0], [SNAPSHOT, *WHOLE[1]]], "snapshot on a stream that was resumed"),
        ([WHOLE[0], [Message(sequence=2, resync=stream_pb2.StreamResync()), *WHOLE[1]]], "resync on a stream"),
    ],
)
def test_a_broken_stream_is_found(connections: list[list[Message]], finding: str) -> None:
    findings = orders_heard(connections)
    assert any(finding in found for found in findings), findings


@pytest.mark.parametrize(
    ("spoil", "finding"),
    [
        (lambda events: None, None),
        (lambda events: events.pop(), "4 of 5 came; missing [5]"),
        (lambda events: events.append(events[0]), "repeated [1]"),
        (lambda events: events.reverse(), "in order: False"),
    ],
)
def test_changes_of_positions_come_once_and_in_order(spoil: Callable[[list[Any]], object], finding: str | None) -> None:
    heard, holdings = Heard("stream", ACCOUNT), agreeing().holdings
    holdings.portfolio.positions["OTHER", "AAPL"] = Standing(1, Decimal(1), Decimal(1), Decimal(0))
    for version in range(1, 6):
        change = position_pb2.PositionChange(instrument_id="AAPL", version=version)
        heard.events.append(portfolio.PortfolioEvent(position=portfolio.PositionMoved(change=change)))
    heard.events.insert(2, portfolio.PortfolioEvent(marks=portfolio.MarksMoved()))
    spoil(heard.events)
    findings = list(portfolio_stream(heard, holdings))
    assert findings == [] if finding is None else any(finding in found for found in findings), findings
