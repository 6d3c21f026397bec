"""When a process starts again and when it is left down."""

from __future__ import annotations

import random

import pytest

from mesh.local.backoff import RestartHistory, RestartPolicy

EXACT = RestartPolicy(jitter=0.0, delay_seconds_min=1.0, delay_seconds_max=10.0, failures_max=7, failures_max_unproven=4)


def test_the_delay_doubles_up_to_its_bound_and_then_the_unit_is_given_up() -> None:
    history = RestartHistory(EXACT)
    delays = [history.record_exit(was_ready=True, uptime_seconds=0.1) for _ in range(7)]
    assert delays == [1.0, 2.0, 4.0, 8.0, 10.0, 10.0, None]


def test_what_was_never_ready_is_given_up_earlier() -> None:
    history = RestartHistory(EXACT)
    assert [history.record_exit(was_ready=False, uptime_seconds=99.0) for _ in range(4)] == [1.0, 2.0, 4.0, None]


def test_a_stable_run_forgets_earlier_failures() -> None:
    history = RestartHistory(EXACT)
    for _ in range(5):
        history.record_exit(was_ready=True, uptime_seconds=0.1)
    assert history.looping
    assert history.record_exit(was_ready=True, uptime_seconds=EXACT.stable_seconds) == 1.0
    assert not history.looping


def test_jitter_spreads_the_delay_within_its_fraction_only() -> None:
    policy = RestartPolicy(delay_seconds_min=1.0, jitter=0.25)
    delays = [RestartHistory(policy, random.Random(seed)).record_exit(was_ready=True, uptime_seconds=0.0) for seed in range(200)]
    known = [delay for delay in delays if delay is not None]
    assert len(known) == 200
    assert 0.75 <= min(known) < 0.8
    assert 1.2 < max(known) <= 1.25


@pytest.mark.parametrize(
    "wrong",
    [{"delay_seconds_min": 0.0}, {"delay_seconds_min": 20.0}, {"jitter": 1.0}, {"loop_failures": 9}, {"failures_max_unproven": 0}],
)
def test_a_policy_without_sense_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must"):
        RestartPolicy(**wrong)  # type: ignore[arg-type]
