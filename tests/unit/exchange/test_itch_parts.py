"""Names, stores, paces and line faults of the feed."""

from pathlib import Path

import pytest

from kernel.itch.moldudp64 import Request, decode_packet, encode_packet
from sandbox.exchange.faults import FaultError
from sandbox.exchange.market_data.line_faults import LineFaultBook
from sandbox.exchange.market_data.pace import Pace
from sandbox.exchange.market_data.session_names import SessionFileError, SessionNames
from sandbox.exchange.market_data.store import ANSWER_PACKETS_MAX, PacketStore
from tests.unit.exchange.venues import MONDAY_NS, instant_ns

SECOND = 1_000_000_000


def test_names_grow_within_a_second_over_restarts_and_days(tmp_path: Path) -> None:
    path = tmp_path / "session.json"
    names = [SessionNames(path).next(MONDAY_NS + offset).text for offset in (0, 0, 1, SECOND, 86_400 * SECOND, 86_401 * SECOND)]
    assert names == sorted(set(names))
    assert all(len(name) == 10 for name in names)
    assert [name[:6] for name in names] == ["260105"] * 4 + ["260106"] * 2


def test_a_clock_that_goes_back_does_not_bring_a_name_back(tmp_path: Path) -> None:
    names = SessionNames(tmp_path / "session.json")
    late = names.next(MONDAY_NS)
    for back in (60, 86_400, 86_400 * 40):
        again = names.next(MONDAY_NS - back * SECOND)
        assert again.text > late.text
        assert again.midnight_ns == instant_ns("2026-01-05 00:00")
        late = again


def test_an_emptied_directory_begins_later_than_it_was(tmp_path: Path) -> None:
    path = tmp_path / "session.json"
    before = SessionNames(path).next(MONDAY_NS)
    path.unlink()
    assert SessionNames(path).next(MONDAY_NS + SECOND).text > before.text


def test_the_last_second_of_a_day_has_names(tmp_path: Path) -> None:
    assert SessionNames(tmp_path / "session.json").next(instant_ns("2026-01-06 00:00") - 1).text < "260105ZZZZ"


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"date": "2026-01-05", "number": "7"}', '{"date": "later", "number": 7}'])
def test_a_file_that_says_nothing_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "session.json"
    path.write_text(text)
    with pytest.raises(SessionFileError, match="session"):
        SessionNames(path).next(MONDAY_NS)


def test_a_place_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SessionFileError):
        SessionNames(tmp_path / "nowhere" / "session.json").next(MONDAY_NS)


def stored(count: int, bytes_max: int = 1 << 20) -> PacketStore:
    """Packets of three messages each, from 1 on."""
    store = PacketStore("S", bytes_max)
    for first in range(1, 3 * count, 3):
        store.add(first, encode_packet("S", first, [b"%d" % number for number in range(first, first + 3)]))
    return store


def answered(store: PacketStore, sequence: int, count: int) -> list[int]:
    """The numbers that an answer brings; they must be what the packets say."""
    found: list[int] = []
    for data in store.answer(Request("S", sequence, count)):
        packet = decode_packet(data)
        assert [int(message) for message in packet.messages] == list(range(packet.sequence, packet.next_sequence))
        found += range(packet.sequence, packet.next_sequence)
    return found


@pytest.mark.parametrize(("sequence", "count"), [(1, 1), (2, 1), (3, 2), (1, 30), (5, 7), (30, 9)])
def test_exactly_what_was_asked_for_is_answered(sequence: int, count: int) -> None:
    assert answered(stored(10), sequence, count) == [number for number in range(sequence, sequence + count) if number <= 30]


def test_what_was_never_sent_is_not_answered() -> None:
    assert answered(stored(10), 31, 5) == []
    assert answered(PacketStore("S", 100), 1, 5) == []
    assert answered(stored(10), 0, 3) == [1, 2]


def test_what_was_lost_is_left_out() -> None:
    store = PacketStore("S", 1 << 20)
    store.add(1, encode_packet("S", 1, [b"1"]))
    store.add(3, encode_packet("S", 3, [b"3"]))
    assert answered(store, 1, 3) == [1, 3]


def test_an_answer_is_bounded() -> None:
    assert len(answered(stored(1_000), 1, 60_000)) == 3 * ANSWER_PACKETS_MAX


def test_the_oldest_is_forgotten() -> None:
    store = stored(5_000, bytes_max=3_000)
    assert answered(store, 1, 3) == []
    assert answered(store, 14_998, 3) == [14_998, 14_999, 15_000]


def test_a_pace() -> None:
    pace = Pace(10, 3, 0.0)
    assert [pace.take(0.0) for _ in range(4)] == [True, True, True, False]
    assert [pace.take(0.1), pace.take(0.1)] == [True, False]
    assert [pace.take(9.0) for _ in range(4)] == [True, True, True, False]


def bent(book: LineFaultBook, line: str, *packets: bytes) -> list[bytes]:
    return [sent for packet in packets for sent in book.bend(line, packet, is_data=packet != b"beat")]


@pytest.mark.parametrize(
    ("rule", "sent"),
    [
        ({"action": "drop", "skip": 1, "count": 2}, [b"1", b"4", b"beat"]),
        ({"action": "duplicate", "count": 1}, [b"1", b"1", b"2", b"3", b"4", b"beat"]),
        ({"action": "silence", "skip": 2}, [b"1", b"2"]),
        ({"action": "reorder", "count": 1, "distance": 2}, [b"2", b"3", b"1", b"4", b"beat"]),
        ({"action": "reorder", "skip": 3, "count": 1}, [b"1", b"2", b"3", b"beat", b"4"]),
        ({"action": "drop", "line": "B"}, [b"1", b"2", b"3", b"4", b"beat"]),
    ],
)
def test_what_rules_do_to_a_line(rule: dict[str, object], sent: list[bytes]) -> None:
    book = LineFaultBook(("A", "B"))
    book.add(rule)
    assert bent(book, "A", b"1", b"2", b"3", b"4", b"beat") == sent


def test_a_rule_about_everybody_loses_and_bends_nothing() -> None:
    book = LineFaultBook(("A", "B"))
    rule = book.add({"action": "lose", "skip": 1, "count": 1})
    assert [book.loses() for _ in range(3)] == [False, True, False]
    assert bent(book, "A", b"1") == [b"1"]
    assert book.rules() == [rule]
    assert book.remove(rule.rule_id)
    assert not book.remove(rule.rule_id)


def test_what_is_held_back_comes_after_the_rules_are_gone() -> None:
    book = LineFaultBook(("A", "B"))
    book.add({"action": "reorder", "distance": 3})
    assert bent(book, "A", b"1", b"2") == []
    book.clear()
    assert bent(book, "A", b"3", b"4", b"5", b"6") == [b"3", b"4", b"1", b"5", b"2", b"6"]


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({}, "action"),
        ({"action": "burn"}, "action"),
        ({"action": "drop", "line": "C"}, "line"),
        ({"action": "lose", "line": "A"}, "line"),
        ({"action": "drop", "count": 0}, "count"),
        ({"action": "drop", "skip": True}, "skip"),
        ({"action": "drop", "distance": 1}, "distance"),
        ({"action": "drop", "colour": "red"}, "colour"),
    ],
)
def test_wrong_rules_are_named(rule: dict[str, object], message: str) -> None:
    with pytest.raises(FaultError, match=message):
        LineFaultBook(("A", "B")).add(rule)
