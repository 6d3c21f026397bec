from typing import Any

import pytest

from sandbox.exchange.faults import RULES_MAX, FaultBook, FaultError, Subject


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({}, "action"),
        ({"action": "explode"}, "action"),
        ({"action": "reject", "colour": "red"}, "colour"),
        ({"action": "reject", "count": 0}, "count"),
        ({"action": "reject", "count": True}, "count"),
        ({"action": "reject", "skip": -1}, "skip"),
        ({"action": "delay", "delay_ms": 3_600_001}, "delay_ms"),
        ({"action": "reject", "text": "a\x01b"}, "text"),
        ({"action": "reject", "text": "na\u00efve"}, "text"),
        ({"action": "reject", "session": 5}, "session"),
        ({"action": "reject", "on": ["trade"]}, "on"),
        ({"action": "mute", "on": ["cancel"]}, "on"),
        ({"action": "bust", "on": ["new"]}, "on"),
        ({"action": "mute", "on": []}, "on"),
        ({"action": "delay", "until_closed": True}, "until_closed"),
        ({"action": "hold_fills", "until_closed": 1}, "until_closed"),
        ({"action": "bust", "price": "5"}, "price"),
    ],
)
def test_a_wrong_rule_is_refused_by_field(rule: dict[str, Any], message: str) -> None:
    with pytest.raises(FaultError, match=message):
        FaultBook().add(rule)


def test_the_first_rule_with_uses_left_applies() -> None:
    book = FaultBook()
    first = book.add({"action": "reject", "count": 1})
    second = book.add({"action": "silent", "on": ["new"]})
    subject = Subject("ALPHA", "AAPL", "ACC-1", ("a",))
    assert [book.for_request(subject, "new") for _ in range(3)] == [first, second, second]
    assert book.for_request(subject, "cancel") is None


def test_removal_and_clearing() -> None:
    book = FaultBook()
    rule = book.add({"action": "mute"})
    assert [book.active, book.remove(rule.rule_id), book.remove(rule.rule_id)] == [True, True, False]
    assert not book.active
    book.add({"action": "mute"})
    book.clear()
    assert book.rules() == []


def test_rules_are_bounded() -> None:
    book = FaultBook()
    for _ in range(RULES_MAX):
        book.add({"action": "mute"})
    with pytest.raises(FaultError, match="at most"):
        book.add({"action": "mute"})
