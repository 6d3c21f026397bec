"""How the pulse tells recovery: from the last failure, by kind, and never from a moment's luck."""

from __future__ import annotations

import pytest

from tests.chaos.pulse import Beat, recovery_of


def beats(*spans: tuple[float, float, str]) -> list[Beat]:
    return [Beat(*span) for span in spans]


@pytest.mark.parametrize(
    ("found", "recovery"),
    [
        (beats((9, 9.5, ""), (10, 10.5, ""), (11, 11.5, ""), (12, 12.5, "")), 0.0),
        (beats((9, 9.5, ""), (10, 10.5, "gone"), (11, 11.5, ""), (12, 12.5, ""), (13, 13.5, "")), 1.5),
        (beats((9, 11, "gone"), (11, 11.5, ""), (12, 12.5, ""), (13, 13.5, "")), 1.5),
        (beats((10, 10.5, ""), (11, 11.5, ""), (12, 12.5, "gone"), (13, 13.5, ""), (14, 14.2, ""), (15, 15.1, "")), 3.5),
        (beats((10, 10.5, ""), (11, 11.5, ""), (12, 12.5, "gone"), (13, 13.5, ""), (14, 14.2, "")), None),
        (beats((5, 6, "gone"), (7, 8, ""), (9, 9.5, ""), (10, 10.5, "")), None),
        ([], None),
    ],
    ids=["untouched", "failed once", "under way when it struck", "failed again", "not for long enough", "nothing since", "no call"],
)
def test_recovery_counts_from_the_last_failure(found: list[Beat], recovery: float | None) -> None:
    assert recovery_of(found, since=10.0) == recovery
