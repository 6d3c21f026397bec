"""Answers to ResendRequest, field by field: administrative runs become one gap fill, stale orders are filled."""

import pytest

from kernel.fix.session import SessionNotReadyError
from kernel.fix.steps import AppMessage, ResendRange, StoredMessage
from tests.unit.fix.conversation import ORDER, Acceptor, raw

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
