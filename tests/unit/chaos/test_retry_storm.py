"""What callers in a storm know after attempts that failed, and what proxies may repeat."""

from __future__ import annotations

import pytest

from tests.chaos.faults.retry_storm import Tries, excess, learn
from tests.e2e.crash.client import Failure, Ledger

KEY = ("CRASH-0", "k-1")
SHED = Failure("RESOURCE_EXHAUSTED", "OVERLOADED", "")
TYPED = Failure("UNAVAILABLE", "RISK_UNAVAILABLE", "")
BARE = Failure("UNAVAILABLE", "", "upstream connect error")
LATE = Failure("DEADLINE_EXCEEDED", "", "")
WRONG = Failure("INVALID_ARGUMENT", "FIELD_INVALID", "")


@pytest.mark.parametrize(
    ("failures", "known"),
    [
        ([SHED], "refused"),
        ([WRONG], "refused"),
        ([TYPED, SHED], "refused"),
        ([TYPED, TYPED], "nothing persisted"),
        ([BARE, SHED], "open"),
        ([BARE, TYPED], "open"),
        ([TYPED, BARE], "open"),
        ([LATE], "open"),
        ([BARE, WRONG], "open"),
    ],
)
def test_one_attempt_that_is_open_leaves_the_command_open(failures: list[Failure], known: str) -> None:
    ledger = Ledger()
    learn(ledger, KEY, failures)
    assert (KEY in ledger.refused) == (known == "refused")
    assert (KEY in ledger.lost) == (known != "refused")
    if KEY in ledger.lost:
        told = ledger.lost[KEY]
        assert (told.code == "UNAVAILABLE" and told.reason != "") == (known == "nothing persisted")


def test_a_fifth_of_the_calls_may_be_repeated() -> None:
    before, within, beyond = Tries(100, 10), Tries(1_300, 10 + 210), Tries(1_300, 10 + 250)
    assert excess({"edge": before}, {"edge": within}, 6.0) == []
    assert excess({"edge": before}, {"edge": beyond}, 6.0) == ["edge made 1200 calls, 250 of them repetitions; the budget allows 208"]


@pytest.mark.parametrize("after", [{}, {"edge": Tries(3, 0)}], ids=["dead", "started anew"])
def test_who_has_lost_his_numbers_is_not_believed(after: dict[str, Tries]) -> None:
    findings = excess({"edge": Tries(100, 10)}, after, 6.0)
    assert any("are not known" in finding for finding in findings)


def test_no_call_proves_nothing() -> None:
    assert excess({"edge": Tries(100, 10)}, {"edge": Tries(100, 10)}, 6.0) == ["no proxy has called anybody, so that nothing is proven"]
