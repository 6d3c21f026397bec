from __future__ import annotations

import itertools

from kernel.retry_hints import Spread


def test_callers_come_back_evenly_spread_and_never_before_the_least() -> None:
    spread = Spread()
    found = sorted(spread.seconds(0.5) for _ in range(100))
    assert 0.5 <= found[0] < found[-1] < 1.0
    assert max(later - sooner for sooner, later in itertools.pairwise(found)) < 3 * 0.5 / 100
