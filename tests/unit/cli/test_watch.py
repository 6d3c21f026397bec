"""Following orders: resuming after a break, counting what never came."""

from __future__ import annotations

import json

import pytest

from cli import watch
from cli.exits import Exit
from cli.watch import OrderFeed
from kernel.errors import PermissionDeniedError, Reason, UnavailableError
from tests.unit.cli.desk import FakeServices, run
from trademesh.oms.v1 import order_pb2, order_service_pb2

LOST = UnavailableError(Reason.DEPENDENCY_UNAVAILABLE, "the replica is gone")
Message = order_service_pb2.StreamOrderEventsResponse


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "RECONNECT_SECONDS_MIN", 0.0)


def snapshot(sequence: int) -> Message:
    return Message(sequence=sequence, resume_token=f"t{sequence}", snapshot=order_service_pb2.OrderSnapshot(complete=True))


def event(sequence: int) -> Message:
    change = order_service_pb2.OrderEvent(type="oms.v1.OrderAcknowledged", order=order_pb2.Order(order_id="o", quantity="1"))
    return Message(sequence=sequence, resume_token=f"t{sequence}", event=change)


def heartbeat(last: int) -> Message:
    message = Message()
    message.heartbeat.last_sequence = last
    return message


def feed(*connections: list[Message | UnavailableError]) -> OrderFeed:
    services = FakeServices(streams=[list(connection) for connection in connections])
    return OrderFeed(services, order_service_pb2.StreamOrderEventsRequest(account_id="ACC-1"), give_up_seconds=0.0)


def exhaust(followed: OrderFeed) -> list[int]:
    seen = []
    with pytest.raises(UnavailableError):
        for message in followed.messages():
            seen.append(message.sequence)
            followed.give_up_seconds = 0.0 if message.sequence == 99 else 60.0
    return seen


def test_a_broken_stream_goes_on_behind_the_last_message_seen(capsys: pytest.CaptureFixture[str]) -> None:
    services = FakeServices(streams=[[snapshot(1), event(2), LOST], [event(3), event(4)]])
    assert run(services, "watch", "--account", "ACC-1", "--count", "3", "--json") == Exit.DONE
    assert [request.resume_token for request in services.requests] == ["", "t2"]
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["sequence"] for line in lines] == ["1", "2", "3", "4"]


def test_what_never_came_is_counted_by_number_and_by_heartbeat() -> None:
    followed = feed([snapshot(1), event(2), event(5), heartbeat(5), heartbeat(7), event(99)])
    assert exhaust(followed) == [1, 2, 5, 0, 0, 99]
    assert followed.gaps == 2 + 2 + 91


def test_a_whole_stream_has_no_gaps_over_several_connections() -> None:
    followed = feed([snapshot(1), event(2), heartbeat(2), LOST], [event(3)], [event(4), heartbeat(4)], [event(99 - 94)], [event(6)])
    with pytest.raises(IndexError):
        for _ in followed.messages():
            followed.give_up_seconds = 60.0
    assert followed.gaps == 0
    assert followed.connections == 6


def test_a_refusal_is_not_tried_again(capsys: pytest.CaptureFixture[str]) -> None:
    services = FakeServices(streams=[[PermissionDeniedError(Reason.ACCOUNT_NOT_ALLOWED, "not yours")]])
    assert run(services, "watch", "--account", "ACC-1") == Exit.DENIED
    assert "ACCOUNT_NOT_ALLOWED" in capsys.readouterr().err


def test_people_see_what_happened_to_which_order(capsys: pytest.CaptureFixture[str]) -> None:
    filled = event(2)
    filled.event.type = "oms.v1.ExecutionRecorded"
    filled.event.execution.last_quantity, filled.event.execution.last_price = "1", "232.5"
    assert run(FakeServices(streams=[[snapshot(1), filled]]), "watch", "--account", "ACC-1", "--count", "1") == Exit.DONE
    shown = capsys.readouterr().out
    assert "-- live --" in shown
    assert "ExecutionRecorded" in shown
    assert "[1 @ 232.5]" in shown
