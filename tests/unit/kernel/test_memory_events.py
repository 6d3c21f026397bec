"""Faults of the memory store, by which simulations crash between deciding, recording and answering."""

from __future__ import annotations

from typing import Literal

import pytest

from kernel.clock import ManualClock
from kernel.errors import OutcomeUnknownError, Reason, UnavailableError
from kernel.events.memory import MemoryEventStore
from kernel.ports import LOG_START, Commit, NewEvent

COMMIT = Commit.single("order-1", 0, NewEvent("x", b"x"))


async def test_a_fault_before_leaves_nothing() -> None:
    def fault(moment: Literal["before", "after"]) -> None:
        if moment == "before":
            raise UnavailableError(Reason.DATABASE_UNAVAILABLE, "down")

    store = MemoryEventStore(ManualClock(), fault=fault)
    with pytest.raises(UnavailableError):
        await store.commit([COMMIT])
    assert await store.read_after(LOG_START, 10) == []


async def test_a_commit_whose_answer_was_lost_is_there() -> None:
    def fault(moment: Literal["before", "after"]) -> None:
        if moment == "after":
            raise OutcomeUnknownError(Reason.OUTCOME_UNKNOWN, "lost")

    store = MemoryEventStore(ManualClock(), fault=fault)
    with pytest.raises(OutcomeUnknownError):
        await store.commit([COMMIT])
    assert await store.heads(["order-1"]) == {"order-1": 1}


async def test_events_carry_the_injected_time() -> None:
    clock = ManualClock()
    store = MemoryEventStore(clock)
    store.append([COMMIT])
    (event,) = await store.read_stream("order-1")
    assert event.recorded_at == clock.now()
