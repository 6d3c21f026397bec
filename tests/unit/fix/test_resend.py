"""Answers to ResendRequest, field by field: administrative runs become one gap fill, stale orders are filled."""

import pytest

from kernel.fix.session import SessionNotReadyError
from kernel.fix.steps import AppMessage, ResendRange, StoredMessage
from tests.unit.fix.conversation import ORDER, Acceptor, raw, shown

HEAD = "49=TW|52=<now>|56=ISLD"
DUPLICATE = "43=Y|49=ISLD|52=<now>|56=TW|122=<now>"
ORDER_TEXT = "11=A-1|38=100|40=1|54=1|55=AAPL|60=<now>"


@pytest.fixture
def acceptor() -> Acceptor:
    """Administrative messages 1 to 4, application messages 5 and 6, administrative 7 and 8, application 9."""
    acceptor = Acceptor()
    acceptor.logs_on()
    for number in (2, 3, 4):
        acceptor.hears(f"35=1|34={number}|{HEAD}|112=HELLO")
    acceptor.sends(("D", ORDER), ("D", ORDER))
    for number in (5, 6):
        acceptor.hears(f"35=1|34={number}|{HEAD}|112=HELLO")
    acceptor.sends(("D", ORDER))
    return acceptor


def gap_fill(begin: int, new: int) -> str:
    return f"35=4|34={begin}|{DUPLICATE}|36={new}|123=Y"


def order(number: int) -> str:
    return f"35=D|34={number}|{DUPLICATE}|{ORDER_TEXT}"


@pytest.mark.parametrize(
    ("begin", "end", "expected"),
    [
        (2, 4, [gap_fill(2, 5)]),
        (2, 6, [gap_fill(2, 5), order(5), order(6)]),
        (2, 8, [gap_fill(2, 5), order(5), order(6), gap_fill(7, 9)]),
        (2, 9, [gap_fill(2, 5), order(5), order(6), gap_fill(7, 9), order(9)]),
        (1, 0, [gap_fill(1, 5), order(5), order(6), gap_fill(7, 9), order(9)]),
        (1, 999_999, [gap_fill(1, 5), order(5), order(6), gap_fill(7, 9), order(9)]),
        (9, 50, [order(9)]),
        (7, 7, [gap_fill(7, 8)]),
    ],
)
def test_runs_are_collapsed(acceptor: Acceptor, begin: int, end: int, expected: list[str]) -> None:
    assert acceptor.hears(f"35=2|34=7|{HEAD}|7={begin}|16={end}") == expected
    assert acceptor.hears(f"35=1|34=8|{HEAD}|112=STILL") == ["35=0|34=10|49=ISLD|52=<now>|56=TW|112=STILL"]


def test_policy_fills_stale_messages_into_the_run(acceptor: Acceptor) -> None:
    acceptor.policy = lambda message: message.sequence != 6
    assert acceptor.hears(f"35=2|34=7|{HEAD}|7=2|16=0") == [gap_fill(2, 5), order(5), gap_fill(6, 9), order(9)]
    acceptor.policy = lambda message: False
    assert acceptor.hears(f"35=2|34=8|{HEAD}|7=2|16=0") == [gap_fill(2, 10)]


def test_original_sending_time_is_kept(acceptor: Acceptor) -> None:
    acceptor.wait(1)
    (written,) = acceptor.hears(f"35=2|34=7|{HEAD}|7=9|16=9")
    assert (
        written == f"35=D|34=9|43=Y|49=ISLD|52=<now>|56=TW|122=20260803-09:30:00.000|{ORDER_TEXT.replace('<now>', '20260803-09:30:00.000')}"
    )


def test_nothing_is_sent_or_read_until_the_resend_is_done(acceptor: Acceptor) -> None:
    data = raw(f"35=2|34=7|{HEAD}|7=5|16=6", now=acceptor.now) + raw(f"35=1|34=8|{HEAD}|112=AFTER", now=acceptor.now)
    step = acceptor.session.receive(acceptor.reader.feed(data), acceptor.now)
    assert step.resend == ResendRange(5, 6)
    assert step.writes == []
    assert not acceptor.session.can_send
    with pytest.raises(SessionNotReadyError):
        acceptor.session.send([AppMessage("D", ORDER)], acceptor.now)
    with pytest.raises(SessionNotReadyError):
        acceptor.session.synchronise(acceptor.now)
    later = acceptor.now._replace(monotonic_seconds=acceptor.now.monotonic_seconds + 35)
    assert acceptor.session.tick(later).writes == [], "no heartbeat between resent messages"
    step = acceptor.session.resend([], acceptor.now)
    assert [data.count(b"36=7\x01") for data in step.writes] == [1, 0]
    assert b"112=AFTER" in step.writes[1]
    assert acceptor.session.can_send


def test_long_range_is_answered_in_parts(acceptor: Acceptor) -> None:
    stored = StoredMessage(5, "D", b"11=A\x01", "20260803-09:30:00.000")
    acceptor.session.receive(acceptor.reader.feed(raw(f"35=2|34=7|{HEAD}|7=1|16=0", now=acceptor.now)), acceptor.now)
    step = acceptor.session.resend([stored], acceptor.now, through=5)
    assert step.resend == ResendRange(6, 9)
    assert len(step.writes) == 2
    step = acceptor.session.resend([], acceptor.now)
    assert step.resend is None
    assert len(step.writes) == 1


def test_too_much_input_during_a_resend_disconnects() -> None:
    acceptor = Acceptor(queue_max=3)
    acceptor.logs_on()
    numbers = "".join(f"35=0|34={number}|{HEAD}\n" for number in range(3, 8)).splitlines()
    data = raw(f"35=2|34=2|{HEAD}|7=1|16=0", now=acceptor.now)
    acceptor.session.receive(acceptor.reader.feed(data), acceptor.now)
    step = acceptor.session.receive(acceptor.reader.feed(b"".join(raw(text, now=acceptor.now) for text in numbers)), acceptor.now)
    assert step.disconnect is not None


def test_messages_beyond_the_queues_bound_come_again_with_the_resend() -> None:
    acceptor = Acceptor(queue_max=2)
    acceptor.logs_on()
    body = "11=A|38=1|40=1|54=1|55=AAPL|60=<now>"
    acceptor.hears(*(f"35=D|34={number}|{HEAD}|{body}" for number in (4, 5, 6, 7)))
    acceptor.hears(*(f"35=D|34={number}|43=Y|49=TW|52=<now>|56=ISLD|122=<now>|{body}" for number in range(2, 8)))
    assert acceptor.delivered == [2, 3, 4, 5, 6, 7]
    assert acceptor.session.synchronised


def parts(acceptor: Acceptor, size: int) -> list[str]:
    """Every part that is still owed, `size` numbers at a time."""
    written: list[str] = []
    while (wanted := acceptor.step.resend) is not None:
        through = min(wanted.begin + size - 1, wanted.end)
        stored = [acceptor.stored[number] for number in range(wanted.begin, through + 1) if number in acceptor.stored]
        acceptor.step = acceptor.session.resend(stored, acceptor.now, through=through)
        written += [shown(data, acceptor.now) for data in acceptor.step.writes]
    return written


def asks_for(acceptor: Acceptor, begin: int, end: int) -> None:
    """A ResendRequest that is not answered yet."""
    data = raw(f"35=2|34=7|{HEAD}|7={begin}|16={end}", now=acceptor.now)
    acceptor.step = acceptor.session.receive(acceptor.reader.feed(data), acceptor.now)


def defers(acceptor: Acceptor) -> None:
    """The application has an order to send while a resend is under way."""
    step = acceptor.session.defer([AppMessage("D", ORDER)], acceptor.now)
    assert step.writes == []
    assert step.sequences == acceptor.session.sequences
    acceptor.stored.update({message.sequence: message for message in step.stored})


def test_parts_say_what_the_whole_says(acceptor: Acceptor) -> None:
    asks_for(acceptor, 1, 0)
    assert parts(acceptor, 2) == [gap_fill(1, 3), gap_fill(3, 5), order(5), order(6), gap_fill(7, 9), order(9)]
    assert acceptor.session.can_send


def test_what_is_deferred_follows_the_resend_and_nothing_in_between_is_repeated(acceptor: Acceptor) -> None:
    asks_for(acceptor, 5, 6)
    defers(acceptor)
    defers(acceptor)
    assert parts(acceptor, 1) == [order(5), order(6), order(10), order(11)]
    assert acceptor.sends(("D", ORDER))[0].startswith("35=D|34=12|49=")


def test_what_is_deferred_while_deferred_messages_go_out_follows_them(acceptor: Acceptor) -> None:
    asks_for(acceptor, 9, 0)
    defers(acceptor)
    acceptor.step = acceptor.session.resend([acceptor.stored[9]], acceptor.now)
    assert acceptor.step.resend == ResendRange(10, 10)
    defers(acceptor)
    assert parts(acceptor, 1) == [order(10), order(11)]
    assert acceptor.session.can_send


def test_messages_are_deferred_only_during_a_resend(acceptor: Acceptor) -> None:
    with pytest.raises(SessionNotReadyError):
        acceptor.session.defer([AppMessage("D", ORDER)], acceptor.now)


def test_a_peer_that_takes_part_after_part_is_alive(acceptor: Acceptor) -> None:
    asks_for(acceptor, 5, 9)
    for through in (5, 6, 7):
        acceptor.now = acceptor.now._replace(monotonic_seconds=acceptor.now.monotonic_seconds + 70)
        assert acceptor.session.tick(acceptor.now).disconnect is None
        acceptor.session.resend([], acceptor.now, through=through)
    acceptor.now = acceptor.now._replace(monotonic_seconds=acceptor.now.monotonic_seconds + 73)
    assert acceptor.session.tick(acceptor.now).disconnect == "the peer is silent"
