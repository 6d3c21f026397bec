"""A peer that errs, races or means harm: what it says never loses a report, never confirms what it has not read, never stalls us."""

import time

import pytest

from kernel.fix.codec import MessageReader
from kernel.fix.fieldtypes import format_timestamp, parse_decimal
from kernel.fix.message import Garbled
from kernel.fix.steps import StoredMessage
from tests.unit.fix.conversation import REPORT, Acceptor, Initiator, raw

HEAD = "49=TW|52=<now>|56=ISLD"
DUPLICATE = "43=Y|49=TW|52=<now>|56=ISLD|122=<now>"
FILL = "6=0|14=0|17=E-1|37=V-1|39=0|54=1|55=AAPL|150=F|151=0"
ORDER = "11=A-1|38=100|40=1|54=1|55=AAPL|60=<now>"


@pytest.fixture
def initiator() -> Initiator:
    initiator = Initiator()
    initiator.logs_on()
    return initiator


@pytest.fixture
def acceptor() -> Acceptor:
    acceptor = Acceptor()
    acceptor.logs_on()
    return acceptor


def numbers(side: Acceptor) -> tuple[int, int]:
    return side.session.sequences.next_in, side.session.sequences.next_out


# The Logon.


@pytest.mark.parametrize(
    ("logout", "begin_string"),
    [
        (f"35=5|34=1|{HEAD}", "FIX.4.2"),
        ("35=5|34=1|49=ELSE|52=<now>|56=ISLD", "FIX.4.4"),
        ("35=5|34=1", "FIX.4.4"),
    ],
)
def test_a_refusal_that_is_not_the_venues_uses_up_no_number(logout: str, begin_string: str) -> None:
    initiator = Initiator()
    assert initiator.hears(logout, begin_string=begin_string) == []
    assert initiator.step.disconnect is not None
    assert numbers(initiator) == (1, 2)


@pytest.mark.parametrize("theirs", [0, 300])
def test_an_initiator_keeps_its_own_heartbeat_interval(theirs: int) -> None:
    """An answer of 0 would blind us to a dead link."""
    initiator = Initiator(heartbeat_seconds=30)
    initiator.logs_on(heartbeat=theirs)
    assert initiator.session.next_deadline() == pytest.approx(30)


def test_a_venue_may_say_more_in_its_logon_than_we_know() -> None:
    initiator = Initiator()
    initiator.hears(f"35=A|34=1|{HEAD}|98=0|108=30|58=welcome|1409=0")
    assert initiator.session.can_send
    assert Acceptor().hears(f"35=A|34=1|{HEAD}|98=0|108=30|58=please") == []


# The Logout.


@pytest.mark.parametrize(("message", "begin_string"), [(f"35=0|34=9|{HEAD}", "FIX.4.1"), ("35=0|34=9|49=ELSE|52=<now>|56=ISLD", "FIX.4.4")])
def test_a_logout_is_sent_once_and_its_timeout_is_not_put_off(acceptor: Acceptor, message: str, begin_string: str) -> None:
    acceptor.hears(f"35=0|34=2|{HEAD}", begin_string="FIX.4.1")
    for _ in range(2):
        acceptor.wait(2)
        assert not any(written.startswith("35=5") for written in acceptor.hears(message, begin_string=begin_string))
    acceptor.wait(1)
    assert acceptor.step.disconnect == "timed out: logout sent"


# What is confirmed.


@pytest.mark.parametrize("test_request_id", ["3", "SYNC", "SYNC-", "XSYNC-3", "SYNC-x"])
def test_only_an_answer_to_our_question_confirms(acceptor: Acceptor, test_request_id: str) -> None:
    acceptor.sends(("8", REPORT), ("8", REPORT))
    acceptor.hears(f"35=0|34=2|{HEAD}|112={test_request_id}")
    assert acceptor.session.confirmed_out == 0


# Reports.


@pytest.mark.parametrize(
    ("message", "begin_string"),
    [
        (f"35=8|34=2|{HEAD}|{FILL}|31=1e3", "FIX.4.4"),
        (f"35=8|34=2|{HEAD}|{FILL}|31=", "FIX.4.4"),
        (f"35=8|34=2|{HEAD}|{FILL}|17=E-2", "FIX.4.4"),
        (f"35=8|34=2|49=TW|52=<now-130>|56=ISLD|{FILL}", "FIX.4.4"),
        (f"35=8|34=2|49=TW|56=ISLD|{FILL}", "FIX.4.4"),
        (f"35=8|34=2|49=TW|52=<now>|56=ELSE|{FILL}", "FIX.4.4"),
        (f"35=8|34=2|{HEAD}|{FILL}", "FIX.4.2"),
        (f"35=3|34=2|{HEAD}|45=x", "FIX.4.4"),
        (f"35=j|34=2|{HEAD}|45=2", "FIX.4.4"),
    ],
)
def test_a_report_that_is_refused_is_handed_over_for_the_record(initiator: Initiator, message: str, begin_string: str) -> None:
    """Its number is used up, so nobody will send it again; it may have been a fill."""
    initiator.hears(message, begin_string=begin_string)
    assert numbers(initiator)[0] == 3
    assert initiator.step.delivered == []
    (refused,) = initiator.step.refused
    assert refused.sequence == 2
    assert refused.message.raw.startswith(b"8=FIX")
    assert refused.problem


def test_a_report_may_have_tags_that_we_do_not_know(initiator: Initiator) -> None:
    """Venues borrow tags of later versions and invent their own; a fill is a fill."""
    for number in (2, 3):  # the second time by its known shape
        assert initiator.hears(f"35=8|34={number}|{HEAD}|{FILL}|1057=Y|4999=x|9001=z") == []
    assert initiator.hears(f"35=8|34=4|{HEAD}|{FILL}|1057=")[0].endswith("58=Tag specified without a value|371=1057|372=8|373=4")
    assert initiator.delivered == [2, 3]


def test_a_refused_message_whose_number_is_still_expected_is_not_recorded(initiator: Initiator) -> None:
    initiator.hears(f"35=8|34=2|43=Y|{HEAD}|{FILL}")
    assert numbers(initiator)[0] == 2
    assert initiator.step.refused == []
    initiator.hears(f"35=0|34=2|{HEAD}|999=x")
    assert initiator.step.refused == [], "a heartbeat tells nothing"


@pytest.mark.parametrize("answer", ["35=4|34=2|49=TW|52=<now>|56=ISLD|36=8", f"35=4|34=2|{DUPLICATE}|36=8|123=Y"])
def test_reports_that_arrived_are_facts_whatever_becomes_of_their_numbers(initiator: Initiator, answer: str) -> None:
    """The venue answers our ResendRequest by skipping past what it had sent live: we have that, and it happened."""
    initiator.hears(*(f"35=8|34={number}|{HEAD}|{FILL}" for number in (4, 6)), f"35=3|34=7|{HEAD}|45=1", f"35=0|34=5|{HEAD}")
    assert initiator.delivered == []
    assert initiator.hears(answer) == []
    assert initiator.delivered == [4, 6, 7]
    assert numbers(initiator)[0] == 8
    assert initiator.session.synchronised


def test_orders_that_their_sender_withdrew_by_a_gap_fill_are_not_executed(acceptor: Acceptor) -> None:
    acceptor.hears(f"35=D|34=4|{HEAD}|{ORDER}")
    acceptor.hears(f"35=4|34=2|{DUPLICATE}|36=5|123=Y")
    assert acceptor.delivered == []
    assert numbers(acceptor)[0] == 5


# Resends.


def test_a_resend_by_an_owner_whose_clock_is_behind_is_no_accuracy_problem(initiator: Initiator) -> None:
    """122 must not be after 52: the venue would refuse the message and log us out."""
    ahead = format_timestamp(initiator.now.utc.replace(minute=31))
    stored = StoredMessage(1, "D", b"11=A\x01", ahead)
    initiator.session.receive(initiator.reader.feed(raw(f"35=2|34=2|{HEAD}|7=1|16=0", now=initiator.now)), initiator.now)
    step = initiator.session.resend([stored], initiator.now)
    assert f"\x0152={ahead}\x01".encode() in step.writes[0]
    assert f"\x01122={ahead}\x01".encode() in step.writes[0]


def test_a_resend_request_beyond_our_gap_belongs_to_the_gap(initiator: Initiator) -> None:
    """It is served at once, but its number is still missing: the gap stays open until that is filled too."""
    initiator.hears(f"35=8|34=4|{HEAD}|{FILL}")
    initiator.hears(f"35=2|34=5|{HEAD}|7=1|16=0")
    initiator.hears(f"35=8|34=2|{DUPLICATE}|{FILL}", f"35=8|34=3|{DUPLICATE}|{FILL}")
    assert initiator.delivered == [2, 3, 4]
    assert not initiator.session.synchronised
    assert initiator.wait(10)[0].startswith("35=2|")
    initiator.hears(f"35=4|34=5|{DUPLICATE}|36=6|123=Y")
    assert initiator.session.synchronised


# Bounds.


def test_what_waits_beyond_a_gap_is_bounded_in_bytes() -> None:
    acceptor = Acceptor(queue_bytes_max=1_000)
    acceptor.logs_on()
    live = [f"35=D|34={number}|{HEAD}|{ORDER}|58={'x' * 300}" for number in range(3, 9)]
    acceptor.hears(*live)
    assert acceptor.session.held_bytes <= 1_000
    acceptor.hears(*(f"35=D|34={number}|{DUPLICATE}|{ORDER}" for number in range(2, 9)))
    assert acceptor.delivered == [2, 3, 4, 5, 6, 7, 8]
    assert acceptor.session.held_bytes == 0


def test_a_full_queue_is_worked_off_in_linear_time(acceptor: Acceptor) -> None:
    count = 10_000
    message = MessageReader().feed(raw(f"35=0|34=3|{HEAD}", now=acceptor.now))[0]
    assert not isinstance(message, Garbled)
    acceptor.hears(f"35=0|34=3|{HEAD}")
    gaps = acceptor.session._gaps
    for number in range(4, count):
        gaps.hold(number, message)
    started = time.process_time()
    for number in range(3, count):
        assert gaps.take(number) is not None
        gaps.advance(number + 1, 0.0)
    assert time.process_time() - started < 0.5


@pytest.mark.parametrize("text", ["0" * 60_000 + "x", "1." + "0" * 60_000 + "x", "-" + "0" * 60_000 + "1"])
def test_a_long_number_is_refused_without_thinking(text: str) -> None:
    started = time.process_time()
    with pytest.raises(ValueError, match="FIX float"):
        parse_decimal(text)
    assert time.process_time() - started < 0.1


def test_a_run_of_garbage_is_one_notice() -> None:
    items = MessageReader().feed(b"\x018=" * 10_000 + b"8=FIX")
    assert len(items) == 1
