"""Field errors: session Reject (35=3) with 371, 372, 373 and the standard text; the number is used up each time."""

from typing import Any

import pytest

from tests.unit.fix.conversation import Acceptor

HEAD = "49=TW|52=<now>|56=ISLD"
D_BODY = "11=A-1|38=100|40=1|54=1|55=AAPL|60=<now>"


def reject_of(message: str, **options: Any) -> str:
    acceptor = Acceptor(**options)
    acceptor.logs_on()
    answers = acceptor.hears(message)
    assert acceptor.session.sequences.next_in == 3
    assert len(answers) == 1, answers
    prefix = "35=3|34=2|49=ISLD|52=<now>|56=TW|45=2|58="
    assert answers[0].startswith(prefix), answers[0]
    assert acceptor.delivered == []
    return answers[0].removeprefix(prefix)


@pytest.mark.parametrize("tag", ["999", "0", "-1"])
def test_invalid_tag_number(tag: str) -> None:
    assert reject_of(f"35=0|34=2|{HEAD}|{tag}=HI") == f"Invalid tag number|371={tag}|372=0|373=0"


def test_user_defined_tag_where_none_is_agreed() -> None:
    assert reject_of(f"35=0|34=2|{HEAD}|5000=HI", user_defined_tags=False) == "Invalid tag number|371=5000|372=0|373=0"


def test_user_defined_tag_is_accepted_by_default() -> None:
    acceptor = Acceptor()
    acceptor.logs_on()
    assert acceptor.hears(f"35=D|34=2|{HEAD}|{D_BODY}|9001=x") == []
    assert acceptor.delivered == [2]


@pytest.mark.parametrize(
    ("message", "tag", "kind"),
    [
        ("35=D|34=2|{head}|38=100|40=1|54=1|55=AAPL|60=<now>", 11, "D"),
        ("35=D|34=2|{head}|11=A|38=100|40=1|54=1|60=<now>", 55, "D"),
        ("35=1|34=2|{head}", 112, "1"),
        ("35=F|34=2|{head}|11=B|54=1|55=AAPL|60=<now>", 41, "F"),
        ("35=2|34=2|{head}|7=1", 16, "2"),
    ],
)
def test_required_tag_missing(message: str, tag: int, kind: str) -> None:
    assert reject_of(message.format(head=HEAD)) == f"Required tag missing|371={tag}|372={kind}|373=1"


def test_tag_not_defined_for_this_type() -> None:
    assert reject_of(f"35=0|34=2|{HEAD}|41=HI") == "Tag not defined for this message type|371=41|372=0|373=2"


def test_tag_without_value() -> None:
    assert reject_of(f"35=D|34=2|{HEAD}|11=|38=1|40=1|54=1|55=AAPL|60=<now>") == "Tag specified without a value|371=11|372=D|373=4"


@pytest.mark.parametrize(
    ("tag", "value"),
    [(40, "X"), (54, "Z"), (59, "9"), (43, "y"), (97, "1")],
)
def test_value_out_of_range(tag: int, value: str) -> None:
    fields = {11: "A", 38: "100", 40: "1", 54: "1", 55: "AAPL", 59: "0", 60: "<now>"}
    head = f"49=TW|52=<now>|56=ISLD|{tag}={value}" if tag in (43, 97) else HEAD
    body = "|".join(f"{key}={value if key == tag else text}" for key, text in fields.items())
    assert reject_of(f"35=D|34=2|{head}|{body}") == f"Value is incorrect (out of range) for this tag|371={tag}|372=D|373=5"


@pytest.mark.parametrize(
    ("tag", "value"),
    [(38, "+200.00"), (38, "NaN"), (38, "1e5"), (38, "1" * 21), (44, "1." + "1" * 19), (40, "12"), (60, "20260803"), (60, "x"), (44, "")],
)
def test_incorrect_data_format(tag: int, value: str) -> None:
    fields = {11: "A", 38: "100", 40: "2", 44: "1", 54: "1", 55: "AAPL", 60: "<now>"}
    body = "|".join(f"{key}={value if key == tag else text}" for key, text in fields.items())
    text = "Incorrect data format for value" if value else "Tag specified without a value"
    assert reject_of(f"35=D|34=2|{HEAD}|{body}") == f"{text}|371={tag}|372=D|373={6 if value else 4}"


def test_header_field_after_the_body_began() -> None:
    message = "35=D|11=A|38=1|40=1|54=1|55=AAPL|60=<now>|34=2|49=TW|52=<now>|56=ISLD"
    assert reject_of(message) == "Tag specified out of required order|371=34|372=D|373=14"


def test_fields_of_the_body_may_come_in_any_order() -> None:
    acceptor = Acceptor()
    acceptor.logs_on()
    assert acceptor.hears("35=D|56=ISLD|34=2|52=<now>|49=TW|60=<now>|55=AAPL|54=1|40=1|38=1|11=A") == []
    assert acceptor.delivered == [2]


def test_repeated_tag() -> None:
    assert reject_of(f"35=D|34=2|{HEAD}|11=A|40=1|40=2|54=1|38=1|55=AAPL|60=<now>") == "Tag appears more than once|371=40|372=D|373=13"


def test_repeated_tag_inside_a_group_entry() -> None:
    message = f"35=D|34=2|{HEAD}|{D_BODY}|453=1|448=P|447=D|447=D|452=1"
    assert reject_of(message) == "Tag appears more than once|371=447|372=D|373=13"


@pytest.mark.parametrize("group", ["386=3|336=PRE-OPEN|336=AFTER-HOURS", "386=1", "386=1|336=A|336=B"])
def test_group_count_not_equal(group: str) -> None:
    message = f"35=D|34=2|{HEAD}|11=A|40=1|54=1|38=1|55=AAPL|{group}|60=<now>"
    assert reject_of(message) == "Incorrect NumInGroup count for repeating group|371=386|372=D|373=16"


@pytest.mark.parametrize("group", ["386=0", "386=2|336=A|336=B|625=x", "453=2|448=P|447=D|452=1|802=2|523=a|803=1|523=b|448=Q|452=3"])
def test_groups_with_the_right_count(group: str) -> None:
    acceptor = Acceptor()
    acceptor.logs_on()
    assert acceptor.hears(f"35=D|34=2|{HEAD}|{D_BODY}|{group}") == []
    assert acceptor.delivered == [2]


def test_malformed_sending_time_after_the_logon() -> None:
    assert reject_of("35=0|34=2|49=TW|52=2026|56=ISLD") == "Incorrect data format for value|371=52|372=0|373=6"


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("7=0|16=0", "Value is incorrect (out of range) for this tag|371=7|372=2|373=5"),
        ("7=9|16=0", "Value is incorrect (out of range) for this tag|371=7|372=2|373=5"),
        ("7=-1|16=0", "Incorrect data format for value|371=7|372=2|373=6"),
    ],
)
def test_resend_request_for_numbers_that_were_not_sent(message: str, expected: str) -> None:
    assert reject_of(f"35=2|34=2|{HEAD}|{message}") == expected


@pytest.mark.parametrize(
    ("tag", "value", "text", "reason"),
    [
        (11, "", "Tag specified without a value", 4),
        (38, "many", "Incorrect data format for value", 6),
        (40, "X", "Value is incorrect (out of range) for this tag", 5),
        (60, "now", "Incorrect data format for value", 6),
    ],
)
def test_values_are_checked_also_where_the_same_fields_passed_before(tag: int, value: str, text: str, reason: int) -> None:
    acceptor = Acceptor()
    acceptor.logs_on()
    fields = {11: "A", 38: "100", 40: "1", 54: "1", 55: "AAPL", 60: "<now>"}
    for number in (2, 3):
        assert acceptor.hears(f"35=D|34={number}|{HEAD}|" + "|".join(f"{key}={field}" for key, field in fields.items())) == []
    (answer,) = acceptor.hears(f"35=D|34=4|{HEAD}|" + "|".join(f"{key}={field}" for key, field in {**fields, tag: value}.items()))
    assert answer.endswith(f"58={text}|371={tag}|372=D|373={reason}")
    assert acceptor.delivered == [2, 3]
