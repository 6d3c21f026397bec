"""The limit that moves under the load: what risk may say while it is away is passed over, and a limit that never moves is none."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import pytest

from kernel.errors import (
    AbortedError,
    DeadlineExceededError,
    OutcomeUnknownError,
    PermissionDeniedError,
    Reason,
    ResourceExhaustedError,
    TrademeshError,
    UnavailableError,
)
from tests.chaos import workload
from tests.chaos.workload import StillLimitError, Workload


class Risk:
    """Answers each update with the next of its errors, and with none once they are used up; the last stays where it is told to."""

    def __init__(self, *errors: TrademeshError, always: bool = False) -> None:
        self._errors, self._always = list(errors), always
        self.values: list[str] = []

    @contextmanager
    def operator(self, caller: object) -> Iterator[Risk]:
        yield self

    def call(self, service: str, path: str, request: Any, response_type: object, **options: object) -> None:
        if self._errors:
            raise self._errors[0] if self._always else self._errors.pop(0)
        self.values.append(request.value)


class Others:
    """Everybody else, who is answered at once."""

    on_answer: Callable[[], None]

    def orders(self, count: int, *, walk_away: float) -> list[object]:
        return [object()] * count

    async def enter(self, commands: list[object]) -> None:
        for _ in commands:
            self.on_answer()

    def drawn(self, count: int) -> list[object]:
        return []

    async def deposit(self, wanted: list[object]) -> None: ...

    async def advance(self) -> None: ...


async def worked(risk: Risk) -> Workload:
    others: Any = Others()
    async with Workload(cast("Any", risk), others, others, others, random.Random(1)) as found:
        await found.moment()
    return found


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workload, "LIMIT_SECONDS", 0.01)
    monkeypatch.setattr(workload, "PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(workload, "LIMIT_MOVES_SECONDS_MAX", 0.5)


async def test_the_limit_has_moved_before_anything_strikes() -> None:
    risk = Risk()
    found = await worked(risk)
    assert found.limit_moves == len(risk.values) > 0
    assert set(risk.values) <= set(workload.TIGHT_LIMITS)


@pytest.mark.parametrize("kind", [UnavailableError, DeadlineExceededError, OutcomeUnknownError, ResourceExhaustedError, AbortedError])
async def test_what_passes_is_passed_over(kind: type[TrademeshError]) -> None:
    assert (await worked(Risk(kind(Reason.OVERLOADED, "away")))).limit_moves > 0


async def test_a_limit_that_never_moves_is_said() -> None:
    with pytest.raises(ExceptionGroup) as caught:
        await worked(Risk(UnavailableError(Reason.DATABASE_UNAVAILABLE, "away"), always=True))
    assert caught.group_contains(StillLimitError, match="does not move: UnavailableError: .*away")


async def test_a_refusal_ends_the_work() -> None:
    with pytest.raises(ExceptionGroup) as caught:
        await worked(Risk(PermissionDeniedError(Reason.ROLE_REQUIRED, "no officer")))
    assert caught.group_contains(PermissionDeniedError, match="no officer")
