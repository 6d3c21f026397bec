"""How the pulse tells recovery: by kind, by the last failure of all, and never from a moment's luck."""

from __future__ import annotations

import math

import pytest

from tests.chaos.pulse import Beat, interruption_of, outage_of, well


def beats(*spans: tuple[float, float, str]) -> list[Beat]:
    return [Beat(*span) for span in spans]


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (beats((9, 9.5, ""), (10, 10.5, ""), (11, 11.5, ""), (12, 12.5, "")), True),
        (beats((9, 11, "gone"), (11, 11.5, ""), (12, 12.5, ""), (13, 13.5, "")), True),
        (beats((10, 10.5, ""), (11, 11.5, ""), (12, 12.5, "gone"), (13, 13.5, ""), (14, 14.2, "")), False),
        (beats((5, 6, "gone"), (7, 8, ""), (9, 9.5, ""), (10, 10.5, "")), False),
        ([], False),
    ],
    ids=["untouched", "failed once", "not for long enough", "nothing since", "no call"],
)
def test_a_kind_is_well_after_some_calls_in_a_row(found: list[Beat], expected: bool) -> None:
    assert well(found, since=10.0) is expected


@pytest.mark.parametrize(
    ("found", "outage"),
    [
        (beats((9, 9.5, ""), (10, 10.5, ""), (11, 11.5, "")), 0.0),
        (beats((10, 10.5, "gone"), (11, 11.5, ""), (12, 12.5, "")), 1.5),
        (beats((9, 11, "gone"), (11, 11.5, "")), 1.5),
        (beats((5, 9, "gone"), (9, 9.5, ""), (10, 10.5, "")), 0.0),
        # A call that hung while others succeeded, and failed long after all seemed well.
        (beats((10, 10.1, ""), (10.2, 10.3, ""), (10.4, 10.5, ""), (10.6, 12.6, "hung"), (12.7, 12.8, "")), 2.8),
        (beats((10, 10.1, ""), (11, 13, "gone")), 3.0),
        (beats((11, 12, "gone"), (13, 13.5, ""), (29, 30.5, "the next fault"), (31, 31.5, "")), 3.5),
        (beats((28, 29.9, "gone"), (31, 31.5, "")), 21.5),
        ([], 0.0),
    ],
    ids=[
        "untouched",
        "once",
        "under way",
        "before",
        "hung among successes",
        "for good",
        "until the next",
        "into the next",
        "no call",
    ],
)
def test_an_outage_lasts_until_what_follows_the_last_failure(found: list[Beat], outage: float) -> None:
    assert outage_of(found, since=10.0, until=30.0) == pytest.approx(outage)


def test_without_an_end_all_failures_count() -> None:
    assert outage_of(beats((28, 29.9, "gone"), (31, 31.5, "again"), (32, 33, "")), since=10.0, until=math.inf) == 23.0


@pytest.mark.parametrize(
    ("found", "longest"),
    [
        (beats((9, 9.5, ""), (12, 12.5, "")), 0.0),
        (beats((9, 9.5, ""), (11, 11.5, "gone"), (12, 12.5, "")), 1.5),
        (beats((11, 11.5, "gone"), (12, 12.5, "gone"), (14, 14.2, ""), (15, 15.1, "gone"), (16, 16.5, "")), 3.2),
        (beats((8, 9.5, "before"), (9.6, 10.5, ""), (11, 11.5, "gone"), (12, 12.5, "")), 1.5),
        (beats((28, 28.5, "gone"), (29, 31, "after it ended"), (31.5, 32, "")), 4.0),
        (beats((9, 9.5, ""), (28, 28.5, "gone"), (29, 29.5, "gone")), math.inf),
    ],
    ids=["untouched", "once", "the longest of two", "before it began", "beyond its end", "not over"],
)
def test_an_interruption_lasts_from_the_call_that_failed_to_the_next_success(found: list[Beat], longest: float) -> None:
    assert interruption_of(found, since=10.0, until=30.0) == pytest.approx(longest)
