"""The ladder, step by step: other line, request, snapshot, declared gap; sessions; lines."""

import pytest

from kernel.itch.arbiter import Arbiter
from kernel.itch.moldudp64 import Request, encode_end_of_session, encode_heartbeat, encode_packet
from kernel.itch.steps import (
    ArbiterLimits,
    ArbiterStep,
    Delivered,
    GapDeclared,
    LineFound,
    LineLost,
    PacketRefused,
    RequestNeeded,
    SessionBegan,
    SessionEnded,
    SnapshotAccepted,
    SnapshotNeeded,
)

SESSION, LATER = "2611220001", "2611220002"
LIMITS = ArbiterLimits(
    hold_packets_max=4,
    hold_seconds=0.002,
    request_messages_max=100,
    request_timeout_seconds=0.1,
    request_attempts=2,
    recovery_packets_max=8,
)


def packet(*numbers: int, session: str = SESSION) -> bytes:
    return encode_packet(session, numbers[0], [b"%d" % number for number in numbers])


def numbers(steps: list[ArbiterStep]) -> list[int]:
    """The messages delivered."""
    return [int(message) for step in steps if isinstance(step, Delivered) for message in step.messages]


@pytest.fixture
def arbiter() -> Arbiter:
    arbiter = Arbiter(("A", "B"), LIMITS)
    assert arbiter.receive("A", packet(1, 2), 0.0) == [LineFound("A"), SessionBegan(SESSION), Delivered(SESSION, 1, (b"1", b"2"))]
    return arbiter


def test_the_second_line_adds_nothing(arbiter: Arbiter) -> None:
    assert arbiter.receive("B", packet(1, 2), 0.0) == [LineFound("B")]
    assert arbiter.counts.duplicate_packets == 1
    assert numbers(arbiter.receive("B", packet(2, 3), 0.0)) == [3]


def test_the_other_line_fills_the_gap_without_a_request(arbiter: Arbiter) -> None:
    assert numbers(arbiter.receive("A", packet(4), 0.0)) == []
    assert arbiter.next_deadline() == pytest.approx(0.002)
    assert numbers(arbiter.receive("B", packet(3), 0.001)) == [3, 4]
    assert arbiter.tick(0.01) == []
    assert not arbiter.is_recovering


def test_a_gap_that_stays_is_requested_again_and_then_needs_a_snapshot(arbiter: Arbiter) -> None:
    arbiter.receive("A", packet(6), 0.0)
    request = RequestNeeded(Request(SESSION, 3, 3))
    assert arbiter.tick(0.002) == [request]
    assert arbiter.is_recovering
    assert arbiter.tick(0.103) == [request]
    assert arbiter.tick(0.204) == [SnapshotNeeded(SESSION, 3)]
    steps = arbiter.snapshot(SESSION, 5, 0.3)
    assert steps == [SnapshotAccepted(SESSION, 5, 3, 4)]
    assert arbiter.tick(0.31) == [RequestNeeded(Request(SESSION, 5, 1))]
    assert numbers(arbiter.receive("answers", packet(5), 0.32)) == [5, 6]


def test_an_answer_in_parts_starts_the_attempts_anew(arbiter: Arbiter) -> None:
    arbiter.receive("A", packet(8), 0.0)
    arbiter.tick(0.002)
    arbiter.tick(0.103)
    assert numbers(arbiter.receive("answers", packet(3, 4), 0.15)) == [3, 4]
    assert arbiter.tick(0.21) == [RequestNeeded(Request(SESSION, 5, 3))]
    assert arbiter.tick(0.32) == [RequestNeeded(Request(SESSION, 5, 3))]


def test_many_held_packets_do_not_wait_for_the_time(arbiter: Arbiter) -> None:
    for number in (4, 5, 6):
        assert arbiter.receive("A", packet(number), 0.0) == []
    assert arbiter.receive("A", packet(7), 0.0) == [RequestNeeded(Request(SESSION, 3, 1))]


def test_a_large_gap_goes_to_the_snapshot_at_once(arbiter: Arbiter) -> None:
    arbiter.receive("A", packet(1_000), 0.0)
    assert arbiter.tick(0.002) == [SnapshotNeeded(SESSION, 3)]
    assert numbers(arbiter.snapshot(SESSION, 1_000, 0.1)) == [1_000]


def test_a_number_that_nobody_can_believe_costs_a_snapshot_and_no_more(arbiter: Arbiter) -> None:
    arbiter.receive("A", packet(2**60), 0.0)
    arbiter.receive("A", encode_heartbeat(SESSION, 2**63), 0.0)
    assert numbers(arbiter.receive("A", packet(3), 0.001)) == [3]
    assert arbiter.tick(0.01) == [SnapshotNeeded(SESSION, 4)]
    assert arbiter.snapshot(SESSION, 5, 0.1) == [SnapshotAccepted(SESSION, 5, 4, 4)]
    assert arbiter.tick(1.0) == []
    assert arbiter.held_packets == 0
    assert numbers(arbiter.receive("A", packet(5), 1.1)) == [5]


def test_a_snapshot_that_is_too_old_is_asked_for_again(arbiter: Arbiter) -> None:
    arbiter.receive("A", packet(1_000), 0.0)
    arbiter.tick(0.002)
    assert numbers(arbiter.receive("B", packet(3, 4, 5), 0.01)) == [3, 4, 5]
    assert arbiter.snapshot(SESSION, 4, 0.02) == [SnapshotNeeded(SESSION, 6)]


def test_without_a_snapshot_the_gap_is_declared(arbiter: Arbiter) -> None:
    arbiter.receive("A", packet(1_000), 0.0)
    arbiter.tick(0.002)
    assert arbiter.snapshot_failed(0.1) == [GapDeclared(SESSION, 3, 999), Delivered(SESSION, 1_000, (b"1000",))]
    assert arbiter.counts.lost_messages == 997


def test_a_snapshot_that_does_not_come_declares_the_gap(arbiter: Arbiter) -> None:
    arbiter.receive("A", packet(1_000), 0.0)
    arbiter.tick(0.002)
    assert arbiter.next_deadline() is not None
    steps = arbiter.tick(0.002 + LIMITS.snapshot_timeout_seconds)
    assert GapDeclared(SESSION, 3, 999) in steps


def test_a_snapshot_behind_what_was_delivered_is_not_accepted(arbiter: Arbiter) -> None:
    assert arbiter.snapshot(SESSION, 2, 0.1) == []
    assert arbiter.next_sequence == 3


def test_a_snapshot_of_a_later_session_begins_it(arbiter: Arbiter) -> None:
    assert arbiter.snapshot(LATER, 9, 0.1) == [SessionBegan(LATER), SnapshotAccepted(LATER, 9, 1, 8)]
    assert arbiter.receive("A", packet(3), 0.2) == []
    assert numbers(arbiter.receive("A", packet(9, session=LATER), 0.2)) == [9]


def test_a_heartbeat_shows_what_both_lines_lost(arbiter: Arbiter) -> None:
    assert arbiter.receive("A", encode_heartbeat(SESSION, 5), 0.0) == []
    assert arbiter.tick(0.002) == [RequestNeeded(Request(SESSION, 3, 2))]


def test_what_is_held_is_bounded_and_missing_later(arbiter: Arbiter) -> None:
    for number in range(4, 20):
        arbiter.receive("A", packet(number), 0.0)
    assert arbiter.held_packets == LIMITS.recovery_packets_max
    assert arbiter.counts.dropped_packets == 8
    assert numbers(arbiter.receive("answers", packet(3), 0.01)) == list(range(3, 12))
    assert arbiter.tick(0.02) == [RequestNeeded(Request(SESSION, 12, 8))]


def test_the_end_comes_after_what_is_missing(arbiter: Arbiter) -> None:
    assert arbiter.receive("A", encode_end_of_session(SESSION, 4), 0.0) == []
    assert arbiter.receive("B", packet(3), 0.001)[1:] == [Delivered(SESSION, 3, (b"3",)), SessionEnded(SESSION, 4)]
    assert arbiter.receive("A", encode_end_of_session(SESSION, 4), 0.002) == []


def test_a_later_session_declares_what_the_one_before_still_misses(arbiter: Arbiter) -> None:
    arbiter.receive("A", packet(4), 0.0)
    assert arbiter.receive("A", packet(1, session=LATER), 0.001) == [
        GapDeclared(SESSION, 3, 3),
        Delivered(SESSION, 4, (b"4",)),
        SessionBegan(LATER),
        Delivered(LATER, 1, (b"1",)),
    ]


def test_a_line_that_lags_behind_a_restart_is_ignored(arbiter: Arbiter) -> None:
    arbiter.receive("A", packet(1, session=LATER), 0.0)
    assert arbiter.receive("B", packet(3), 0.0) == [LineFound("B")]
    assert arbiter.counts.stale_packets == 1


def test_a_run_goes_on_where_an_earlier_one_stopped() -> None:
    arbiter = Arbiter(session=SESSION, next_sequence=3)
    assert numbers(arbiter.receive("A", packet(1, 2, 3), 0.0)) == [3]


def test_a_datagram_that_is_none_is_told(arbiter: Arbiter) -> None:
    (step,) = arbiter.receive("A", b"hello", 0.0)
    assert isinstance(step, PacketRefused)
    assert step.line == "A"
    assert "20 bytes" in str(step.error)


def test_a_line_is_lost_by_silence_and_found_by_several_packets(arbiter: Arbiter) -> None:
    arbiter.receive("B", packet(1), 0.0)
    assert arbiter.receive("A", encode_heartbeat(SESSION, 3), 1.0) == []
    assert arbiter.tick(1.6) == [LineLost("B")]
    assert arbiter.lines.is_up("A")
    assert not arbiter.lines.is_up("B")
    assert arbiter.lines.any_up
    assert arbiter.receive("B", encode_heartbeat(SESSION, 3), 1.7) == []
    assert arbiter.receive("B", encode_heartbeat(SESSION, 3), 1.8) == []
    assert arbiter.receive("B", encode_heartbeat(SESSION, 3), 1.9) == [LineFound("B")]
