from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pytest

from kernel.decider import Versioned, decide_all, fold, replay
from kernel.errors import FailedPreconditionError, InternalError, Reason


@dataclass(frozen=True)
class Recorded:
    version: int
    amount: int


class Account:
    """A balance that may not fall below zero."""

    def initial(self) -> int:
        return 0

    def decide(self, state: int, command: int) -> Sequence[int]:
        if state + command < 0:
            raise FailedPreconditionError(Reason.ORDER_TERMINAL, "not enough")
        return [command] if command else []

    def evolve(self, state: int, event: int) -> int:
        return state + event


def test_fold_applies_events_in_order() -> None:
    assert fold(lambda state, event: state * 10 + event, 0, [1, 2, 3]) == 123


def test_replay_continues_a_cached_state() -> None:
    state = replay(Account().evolve, Versioned(5, 2), [Recorded(3, 4), Recorded(4, -1)], lambda item: item.amount)
    assert state == Versioned(8, 4)


@pytest.mark.parametrize("versions", [(2,), (1, 3), (1, 1), (0,)])
def test_replay_refuses_gaps_and_repetitions(versions: tuple[int, ...]) -> None:
    with pytest.raises(InternalError):
        replay(Account().evolve, Versioned(0, 0), [Recorded(version, 1) for version in versions], lambda item: item.amount)


def test_commands_of_one_stream_fold_in_order() -> None:
    account = Account()
    assert decide_all(account, Versioned(0, 3), [5, 0, -5]) == (Versioned(0, 5), [[5], [], [-5]])
    with pytest.raises(FailedPreconditionError):
        decide_all(account, Versioned(0, 0), [5, -6])
