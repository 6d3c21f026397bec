"""Each row of the FIX session matrix (FIX 4.4 Volume 2; FIX Session Layer test cases 2020), acceptor side, exact answers."""

from typing import Any

import pytest

from kernel.fix.steps import Role, SessionConfig
from tests.unit.fix.conversation import ORDER, REPORT, Acceptor, raw

HEAD = "49=TW|52=<now>|56=ISLD"
D_BODY = "11=A-1|38=100|40=1|54=1|55=AAPL|60=<now>"


@pytest.fixture
def acceptor() -> Acceptor:
    acceptor = Acceptor()
    assert acceptor.logs_on() == ["35=A|34=1|49=ISLD|52=<now>|56=TW|98=0|108=30"]
    return acceptor


def next_in(acceptor: Acceptor) -> int:
    return acceptor.session.sequences.next_in


def test_order_is_delivered_once(acceptor: Acceptor) -> None:
    assert acceptor.hears(f"35=D|34=2|{HEAD}|{D_BODY}") == []
    assert acceptor.delivered == [2]
    assert next_in(acceptor) == 3


def test_bad_checksum_is_ignored(acceptor: Acceptor) -> None:
    data = raw(f"35=0|34=2|{HEAD}", now=acceptor.now)
    bad = data[:-4] + (b"000" if data[-4:-1] != b"000" else b"001") + b"\x01"
    assert acceptor.hears_bytes(bad) == []
    assert next_in(acceptor) == 2
    assert acceptor.hears(f"35=0|34=2|{HEAD}") == []
    assert next_in(acceptor) == 3


@pytest.mark.parametrize("length", [-7, 9])
def test_bad_body_length_is_ignored_and_the_next_message_is_not_lost(acceptor: Acceptor, length: int) -> None:
    good = raw(f"35=1|34=2|{HEAD}|112=HI", now=acceptor.now)
    head, rest = good.split(b"\x0135=", 1)
    stated = int(head.rsplit(b"=", 1)[1])
    bad = head.replace(b"9=%d" % stated, b"9=%d" % (stated + length)) + b"\x0135=" + rest
    assert acceptor.hears_bytes(bad + good) == ["35=0|34=2|49=ISLD|52=<now>|56=TW|112=HI"]
    assert next_in(acceptor) == 3


@pytest.mark.parametrize(
    "fields", [f"34=2|35=0|{HEAD}", f"35=0|34=2|{HEAD}|abc=1", f"35=0|34=2|{HEAD}|1a2=1", f"35=0|34=2|{HEAD}|noequals"]
)
def test_wrong_first_fields_and_unparsable_tags_are_ignored(acceptor: Acceptor, fields: str) -> None:
    assert acceptor.hears(fields) == []
    assert acceptor.step.disconnect is None
    assert next_in(acceptor) == 2


@pytest.mark.parametrize(
    ("logon", "begin_string"),
    [
        ("35=A|34=1|49=STRANGER|52=<now>|56=ISLD|98=0|108=30", "FIX.4.4"),
        ("35=A|34=1|49=TW|52=<now>|56=OTHER|98=0|108=30", "FIX.4.4"),
        ("35=A|34=1|49=TW|52=<now-130>|56=ISLD|98=0|108=30", "FIX.4.4"),
        ("35=A|34=1|49=TW|52=yesterday|56=ISLD|98=0|108=30", "FIX.4.4"),
        ("35=A|34=1|49=TW|56=ISLD|98=0|108=30", "FIX.4.4"),
        ("35=A|34=1|49=TW|52=<now>|56=ISLD|98=0|108=30", "FIX.4.9"),
        ("35=A|34=1|49=TW|52=<now>|56=ISLD|98=0", "FIX.4.4"),
        ("35=A|34=1|49=TW|52=<now>|56=ISLD|98=0|108=-1", "FIX.4.4"),
        ("35=A|34=1|49=TW|52=<now>|56=ISLD|98=0|108=301", "FIX.4.4"),
        ("35=A|34=0|49=TW|52=<now>|56=ISLD|98=0|108=30", "FIX.4.4"),
        ("35=A|34=1|49=TW|52=<now>|56=ISLD|98=0|108=30|141=Y", "FIX.4.4"),
        ("35=0|34=1|49=TW|52=<now>|56=ISLD", "FIX.4.4"),
        (f"35=D|34=1|{HEAD}|{D_BODY}", "FIX.4.4"),
    ],
)
def test_bad_logon_is_closed_silently(logon: str, begin_string: str) -> None:
    acceptor = Acceptor()
    assert acceptor.hears(logon, begin_string=begin_string) == []
    assert acceptor.step.disconnect is not None
    assert acceptor.session.sequences == (acceptor.step.sequences)
    assert (next_in(acceptor), acceptor.session.sequences.next_out) == (1, 1)


def test_garbled_logon_is_closed_silently() -> None:
    acceptor = Acceptor()
    assert acceptor.hears_bytes(b"8=FIX.4.4\x019=5\x0135=A\x0110=000\x01" + b"x" * 10) == []
    assert acceptor.step.disconnect is not None


def test_second_logon_is_closed_silently(acceptor: Acceptor) -> None:
    assert acceptor.logs_on(2) == []
    assert acceptor.step.disconnect == "a second Logon"


def test_logon_timeout() -> None:
    acceptor = Acceptor(logon_timeout_seconds=10.0)
    assert acceptor.wait(9.9) == []
    assert acceptor.step.disconnect is None
    assert acceptor.wait(0.2) == []
    assert acceptor.step.disconnect is not None


def test_wrong_begin_string_later_logs_out(acceptor: Acceptor) -> None:
    assert acceptor.hears(f"35=1|34=2|{HEAD}|112=id", begin_string="FIX.4.1") == [
        "35=5|34=2|49=ISLD|52=<now>|56=TW|58=Incorrect BeginString"
    ]
    assert acceptor.hears(f"35=5|34=3|{HEAD}") == []
    assert acceptor.step.disconnect == "logout"


def test_logout_unanswered_times_out(acceptor: Acceptor) -> None:
    acceptor.hears(f"35=1|34=2|{HEAD}|112=id", begin_string="FIX.4.1")
    assert acceptor.wait(5) == []
    assert acceptor.step.disconnect is not None


def test_number_too_high_asks_once_queues_and_processes_in_order(acceptor: Acceptor) -> None:
    assert acceptor.hears(f"35=D|34=4|{HEAD}|{D_BODY}") == ["35=2|34=2|49=ISLD|52=<now>|56=TW|7=2|16=0"]
    assert acceptor.hears(f"35=1|34=5|{HEAD}|112=LATER") == []
    assert not acceptor.session.synchronised
    assert acceptor.hears(f"35=D|34=2|43=Y|49=TW|52=<now>|56=ISLD|122=<now>|{D_BODY}") == []
    assert acceptor.hears(f"35=D|34=3|43=Y|49=TW|52=<now>|56=ISLD|122=<now>|{D_BODY}") == ["35=0|34=3|49=ISLD|52=<now>|56=TW|112=LATER"]
    assert acceptor.delivered == [2, 3, 4]
    assert acceptor.hears(f"35=D|34=4|43=Y|49=TW|52=<now>|56=ISLD|122=<now>|{D_BODY}") == []
    assert acceptor.delivered == [2, 3, 4]
    assert acceptor.session.synchronised


def test_peers_resend_request_is_served_during_our_gap(acceptor: Acceptor) -> None:
    acceptor.sends(("8", REPORT))
    assert acceptor.hears(f"35=0|34=7|{HEAD}") == ["35=2|34=3|49=ISLD|52=<now>|56=TW|7=2|16=0"]
    answer = acceptor.hears(f"35=2|34=8|{HEAD}|7=2|16=2")
    assert answer == [
        "35=8|34=2|43=Y|49=ISLD|52=<now>|56=TW|122=<now>|6=0|14=0|17=E-1|37=V-1|39=0|54=1|55=AAPL|150=0|151=100",
    ]
    assert acceptor.hears("35=4|34=2|43=Y|49=TW|52=<now>|56=ISLD|122=<now>|36=9|123=Y") == []
    assert next_in(acceptor) == 9


def test_gap_inside_the_resend_is_asked_for_again(acceptor: Acceptor) -> None:
    acceptor.hears(f"35=D|34=6|{HEAD}|{D_BODY}")
    resent = "43=Y|49=TW|52=<now>|56=ISLD|122=<now>"
    assert acceptor.hears(f"35=D|34=2|{resent}|{D_BODY}") == []
    assert acceptor.hears(f"35=D|34=4|{resent}|{D_BODY}") == ["35=2|34=3|49=ISLD|52=<now>|56=TW|7=3|16=0"]
    assert acceptor.hears(f"35=D|34=5|{resent}|{D_BODY}") == []
    assert acceptor.hears(f"35=D|34=3|{resent}|{D_BODY}") == []
    assert acceptor.delivered == [2, 3, 4, 5, 6]


def test_gap_without_progress_is_asked_for_again_then_given_up(acceptor: Acceptor) -> None:
    acceptor.hears(f"35=0|34=6|{HEAD}")
    for number in (3, 4, 5):
        assert acceptor.wait(10)[:1] == [f"35=2|34={number}|49=ISLD|52=<now>|56=TW|7=2|16=0"]
        acceptor.hears(f"35=0|34={number + 4}|{HEAD}")
    acceptor.wait(10)
    assert acceptor.step.disconnect is not None


def test_number_too_low_logs_out_and_closes(acceptor: Acceptor) -> None:
    expected = ["35=5|34=2|49=ISLD|52=<now>|56=TW|58=MsgSeqNum too low, expecting 2 but received 1"]
    assert acceptor.hears(f"35=0|34=1|{HEAD}") == expected
    assert acceptor.step.disconnect is not None


def test_poss_dup_already_processed_is_ignored(acceptor: Acceptor) -> None:
    acceptor.hears(f"35=D|34=2|{HEAD}|{D_BODY}")
    assert acceptor.hears(f"35=D|34=2|43=Y|49=TW|52=<now>|56=ISLD|122=<now>|{D_BODY}") == []
    assert acceptor.delivered == [2]


def test_poss_dup_not_yet_processed_is_delivered(acceptor: Acceptor) -> None:
    assert acceptor.hears(f"35=D|34=2|43=Y|49=TW|52=<now>|56=ISLD|122=<now>|{D_BODY}") == []
    assert acceptor.step.delivered[0].poss_dup


@pytest.mark.parametrize("sequence", [2, 3])
def test_poss_dup_without_orig_sending_time(acceptor: Acceptor, sequence: int) -> None:
    acceptor.hears(f"35=D|34=2|{HEAD}|{D_BODY}")
    reject = f"35=3|34=2|49=ISLD|52=<now>|56=TW|45={sequence}|58=Required tag missing|371=122|372=D|373=1"
    assert acceptor.hears(f"35=D|34={sequence}|43=Y|{HEAD}|{D_BODY}") == [reject]
    assert next_in(acceptor) == 3
    assert acceptor.step.disconnect is None


def test_orig_sending_time_after_sending_time(acceptor: Acceptor) -> None:
    acceptor.hears(f"35=D|34=2|{HEAD}|{D_BODY}")
    assert acceptor.hears(f"35=D|34=2|43=Y|49=TW|52=<now>|56=ISLD|122=<now+10>|{D_BODY}") == [
        "35=3|34=2|49=ISLD|52=<now>|56=TW|45=2|58=SendingTime accuracy problem|372=D|373=10",
        "35=5|34=3|49=ISLD|52=<now>|56=TW",
    ]
    assert next_in(acceptor) == 3


@pytest.mark.parametrize("time", ["<now-130>", "<now+130>"])
def test_sending_time_out_of_range(acceptor: Acceptor, time: str) -> None:
    assert acceptor.hears(f"35=0|34=2|49=TW|52={time}|56=ISLD") == [
        "35=3|34=2|49=ISLD|52=<now>|56=TW|45=2|58=SendingTime accuracy problem|372=0|373=10",
        "35=5|34=3|49=ISLD|52=<now>|56=TW",
    ]
    assert next_in(acceptor) == 3


@pytest.mark.parametrize("head", ["49=WT|52=<now>|56=ISLD", "49=TW|52=<now>|56=DLSI", "49=WT|52=<now>|56=DLSI"])
def test_comp_id_mismatch(acceptor: Acceptor, head: str) -> None:
    assert acceptor.hears(f"35=D|34=2|{head}|{D_BODY}") == [
        "35=3|34=2|49=ISLD|52=<now>|56=TW|45=2|58=CompID problem|372=D|373=9",
        "35=5|34=3|49=ISLD|52=<now>|56=TW",
    ]
    assert next_in(acceptor) == 3
    assert acceptor.delivered == []


def test_missing_comp_id_and_sending_time(acceptor: Acceptor) -> None:
    reject = "35=3|34=2|49=ISLD|52=<now>|56=TW|45=2|58=Required tag missing|371=56|372=0|373=1"
    assert acceptor.hears("35=0|34=2|49=TW|52=<now>") == [reject]
    reject = "35=3|34=3|49=ISLD|52=<now>|56=TW|45=3|58=Required tag missing|371=52|372=0|373=1"
    assert acceptor.hears("35=0|34=3|49=TW|56=ISLD") == [reject]


def test_missing_sequence_number_logs_out_and_closes(acceptor: Acceptor) -> None:
    assert acceptor.hears(f"35=0|{HEAD}") == ["35=5|34=2|49=ISLD|52=<now>|56=TW|58=MsgSeqNum missing or malformed"]
    assert acceptor.step.disconnect is not None


def test_gap_fill(acceptor: Acceptor) -> None:
    assert acceptor.hears(f"35=4|34=2|{HEAD}|36=20|123=Y") == []
    assert next_in(acceptor) == 20


def test_gap_fill_too_low_and_too_high(acceptor: Acceptor) -> None:
    assert acceptor.hears(f"35=4|34=5|{HEAD}|36=20|123=Y") == ["35=2|34=2|49=ISLD|52=<now>|56=TW|7=2|16=0"]
    assert next_in(acceptor) == 2
    assert acceptor.hears("35=4|34=1|43=Y|49=TW|52=<now>|56=ISLD|122=<now>|36=9|123=Y") == []
    assert next_in(acceptor) == 2
    assert acceptor.hears("35=4|34=2|43=Y|49=TW|52=<now>|56=ISLD|122=<now>|36=5|123=Y") == []
    assert next_in(acceptor) == 20


@pytest.mark.parametrize("number", [2, 7, 1])
def test_sequence_reset_counts_whatever_its_own_number(acceptor: Acceptor, number: int) -> None:
    assert acceptor.hears(f"35=4|34={number}|{HEAD}|36=20") == []
    assert next_in(acceptor) == 20


def test_sequence_reset_to_the_expected_number_changes_nothing(acceptor: Acceptor) -> None:
    assert acceptor.hears(f"35=4|34=1|{HEAD}|36=2|123=N") == []
    assert next_in(acceptor) == 2


@pytest.mark.parametrize("gap_fill", ["|123=N", "|123=Y", ""])
def test_reset_below_expected_is_rejected(acceptor: Acceptor, gap_fill: str) -> None:
    reject = "35=3|34=2|49=ISLD|52=<now>|56=TW|45=2|58=Value is incorrect (out of range) for this tag|371=36|372=4|373=5"
    assert acceptor.hears(f"35=4|34=2|{HEAD}|36=1{gap_fill}") == [reject]
    assert next_in(acceptor) == 2


def test_unsupported_application_type(acceptor: Acceptor) -> None:
    expected = ["35=j|34=2|49=ISLD|52=<now>|56=TW|45=2|58=Unsupported Message Type|372=8|380=3"]
    assert acceptor.hears(f"35=8|34=2|{HEAD}|6=0|14=0|17=E|37=V|39=0|54=1|55=AAPL|150=0|151=1") == expected
    assert next_in(acceptor) == 3
    assert acceptor.hears(f"35=6|34=3|{HEAD}|23=x")[0].endswith("45=3|58=Unsupported Message Type|372=6|380=3")


def test_invalid_message_type(acceptor: Acceptor) -> None:
    assert acceptor.hears(f"35=*|34=2|{HEAD}") == ["35=3|34=2|49=ISLD|52=<now>|56=TW|45=2|58=Invalid MsgType|372=*|373=11"]
    assert next_in(acceptor) == 3


def test_test_request_is_answered(acceptor: Acceptor) -> None:
    assert acceptor.hears(f"35=1|34=2|{HEAD}|112=HELLO") == ["35=0|34=2|49=ISLD|52=<now>|56=TW|112=HELLO"]


def test_heartbeat_test_request_and_drop() -> None:
    acceptor = Acceptor()
    acceptor.logs_on(heartbeat=10)
    assert acceptor.wait(9.9) == []
    assert acceptor.wait(0.1) == ["35=0|34=2|49=ISLD|52=<now>|56=TW"]
    assert acceptor.session.next_deadline() == pytest.approx(12)
    assert acceptor.wait(2) == ["35=1|34=3|49=ISLD|52=<now>|56=TW|112=TEST"]
    assert acceptor.wait(10) == ["35=0|34=4|49=ISLD|52=<now>|56=TW"]
    assert acceptor.step.disconnect is None
    assert acceptor.wait(2) == []
    assert acceptor.step.disconnect == "the peer is silent"


def test_any_message_answers_a_test_request() -> None:
    acceptor = Acceptor()
    acceptor.logs_on(heartbeat=10)
    acceptor.wait(12)
    acceptor.hears(f"35=D|34=2|{HEAD}|{D_BODY}")
    acceptor.wait(11)
    assert acceptor.step.disconnect is None
    assert acceptor.wait(1) == ["35=1|34=4|49=ISLD|52=<now>|56=TW|112=TEST"]


def test_heartbeats_are_off_at_zero() -> None:
    acceptor = Acceptor()
    acceptor.logs_on(heartbeat=0)
    assert acceptor.session.next_deadline() is None
    assert acceptor.wait(10_000) == []
    assert acceptor.step.disconnect is None


def test_logon_with_a_number_too_high_is_answered_then_the_gap_is_asked_for() -> None:
    acceptor = Acceptor()
    assert acceptor.logs_on(5) == [
        "35=A|34=1|49=ISLD|52=<now>|56=TW|98=0|108=30",
        "35=2|34=2|49=ISLD|52=<now>|56=TW|7=1|16=0",
    ]
    assert acceptor.hears(f"35=5|34=6|{HEAD}") == ["35=5|34=3|49=ISLD|52=<now>|56=TW"]
    assert acceptor.step.disconnect == "logout"
    assert next_in(acceptor) == 1, "what came before the Logout is still missing"


def test_logon_with_a_number_too_low_is_told() -> None:
    acceptor = Acceptor(next_in=10)
    assert acceptor.logs_on(3) == ["35=5|34=1|49=ISLD|52=<now>|56=TW|58=MsgSeqNum too low, expecting 10 but received 3"]
    assert acceptor.step.disconnect is not None


def test_logon_with_reset_where_it_is_accepted() -> None:
    acceptor = Acceptor(next_in=10, next_out=20, accept_reset=True)
    answer = acceptor.hears(f"35=A|34=1|{HEAD}|98=0|108=30|141=Y")
    assert answer == ["35=A|34=1|49=ISLD|52=<now>|56=TW|98=0|108=30|141=Y"]
    assert acceptor.step.reset
    assert (next_in(acceptor), acceptor.session.sequences.next_out) == (2, 2)


def test_poss_resend_is_told_to_the_application(acceptor: Acceptor) -> None:
    acceptor.hears(f"35=D|34=2|{HEAD}|97=Y|{D_BODY}")
    assert acceptor.step.delivered[0].poss_resend


def test_reject_is_delivered_and_never_rejected(acceptor: Acceptor) -> None:
    assert acceptor.hears(f"35=3|34=2|{HEAD}|45=1|58=no") == []
    assert acceptor.delivered == [2]
    assert acceptor.hears(f"35=3|34=3|{HEAD}|999=1") == []
    assert next_in(acceptor) == 4


def test_last_sequence_processed_confirms_what_we_sent(acceptor: Acceptor) -> None:
    acceptor.sends(("8", REPORT), ("8", REPORT))
    acceptor.hears("35=0|34=2|49=TW|52=<now>|56=ISLD|369=2")
    assert acceptor.session.confirmed_out == 2
    acceptor.hears("35=0|34=3|49=TW|52=<now>|56=ISLD|369=999")
    assert acceptor.session.confirmed_out == 3


def test_order_with_an_order_body_is_sent_in_field_order(acceptor: Acceptor) -> None:
    (written,) = acceptor.sends(("D", list(reversed(ORDER))))
    assert written == "35=D|34=2|49=ISLD|52=<now>|56=TW|11=A-1|38=100|40=1|54=1|55=AAPL|60=<now>"


@pytest.mark.parametrize(
    ("field", "options"),
    [
        ("sender", {"sender": ""}),
        ("target", {"target": "A\x01B"}),
        ("target", {"target": "ISLD"}),
        ("sender", {"sender": "x" * 65}),
        ("heartbeat_seconds", {"heartbeat_seconds": -1}),
        ("heartbeat_seconds", {"heartbeat_seconds": 301}),
    ],
)
def test_a_bad_configuration_names_its_field(field: str, options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"^{field}: "):
        SessionConfig(**{"role": Role.ACCEPTOR, "sender": "ISLD", "target": "TW", "app_types": frozenset(), **options})
