"""The breaker opens on awaited calls, which pybreaker's decorator does not."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pybreaker
import pytest

from kernel.breaker import Breaker
from kernel.errors import NotFoundError, OutcomeUnknownError, Reason, UnavailableError


class Storage(pybreaker.CircuitMemoryStorage):
    """Lets a test say that the breaker opened long ago."""

    def age(self) -> None:
        self.opened_at = datetime.now(UTC) - timedelta(hours=1)


@pytest.fixture
def storage() -> Storage:
    return Storage(pybreaker.STATE_CLOSED)


@pytest.fixture
def breaker(storage: Storage) -> Breaker:
    return Breaker("venue", failures_max=3, reset_seconds=60, storage=storage)


DOWN = UnavailableError(Reason.DEPENDENCY_UNAVAILABLE, "down")


async def call(breaker: Breaker, error: BaseException | None = None) -> str:
    with breaker.guard():
        await asyncio.sleep(0)
        if error is not None:
            raise error
    return "answer"


async def fail(breaker: Breaker, times: int, error: Exception = DOWN) -> None:
    for _ in range(times):
        with pytest.raises(type(error)):
            await call(breaker, error)


async def test_the_decorator_of_the_library_never_opens() -> None:
    """The measurement behind this module; if it fails, the library has learnt, and the module can go."""
    bare = pybreaker.CircuitBreaker(fail_max=1)

    @bare
    async def broken() -> None:
        raise DOWN

    for _ in range(3):
        with pytest.raises(UnavailableError):
            await broken()
    assert bare.current_state == "closed"


async def test_it_opens_after_repeated_failures_and_does_not_call(breaker: Breaker) -> None:
    await fail(breaker, 2)
    assert breaker.state == "closed"
    await fail(breaker, 1)
    assert breaker.state == "open"
    with pytest.raises(UnavailableError, match="venue failed repeatedly") as caught:
        await call(breaker, AssertionError("must not run"))
    assert caught.value.retry_after_seconds == 60
    assert caught.value.metadata == {"breaker": "venue", "state": "open"}


async def test_a_probe_that_succeeds_closes_it(breaker: Breaker, storage: Storage) -> None:
    await fail(breaker, 3)
    storage.age()
    assert await call(breaker) == "answer"
    assert breaker.state == "closed"
    await fail(breaker, 2)
    assert breaker.state == "closed"


async def test_a_probe_that_fails_opens_it_again(breaker: Breaker, storage: Storage) -> None:
    await fail(breaker, 3)
    storage.age()
    await fail(breaker, 1)
    assert breaker.state == "open"
    with pytest.raises(UnavailableError, match="repeatedly"):
        await call(breaker)


async def test_one_probe_at_a_time(breaker: Breaker, storage: Storage) -> None:
    await fail(breaker, 3)
    storage.age()
    release = asyncio.Event()

    async def probe() -> None:
        with breaker.guard():
            await release.wait()

    probing = asyncio.create_task(probe())
    await asyncio.sleep(0)
    assert breaker.state == "half-open"
    for _ in range(3):
        with pytest.raises(UnavailableError, match="repeatedly"):
            await call(breaker)
    release.set()
    await probing
    assert breaker.state == "closed"
    assert await call(breaker) == "answer"


async def test_a_probe_that_is_cancelled_proves_nothing(breaker: Breaker, storage: Storage) -> None:
    await fail(breaker, 3)
    storage.age()
    with pytest.raises(asyncio.CancelledError):
        await call(breaker, asyncio.CancelledError())
    assert breaker.state == "open"


async def test_cancellations_neither_open_it_nor_hide_failures(breaker: Breaker) -> None:
    for _ in range(5):
        with pytest.raises(asyncio.CancelledError):
            await call(breaker, asyncio.CancelledError())
    assert breaker.state == "closed"
    await fail(breaker, 2)
    with pytest.raises(asyncio.CancelledError):
        await call(breaker, asyncio.CancelledError())
    await fail(breaker, 1)
    assert breaker.state == "open"


async def test_answers_that_displease_are_answers(breaker: Breaker) -> None:
    await fail(breaker, 2)
    await fail(breaker, 1, NotFoundError(Reason.ORDER_NOT_FOUND, "no"))
    await fail(breaker, 2)
    assert breaker.state == "closed"


async def test_lost_answers_and_bugs_count(breaker: Breaker) -> None:
    await fail(breaker, 2, OutcomeUnknownError(Reason.OUTCOME_UNKNOWN, "lost"))
    await fail(breaker, 1, OSError("reset"))
    assert breaker.state == "open"


async def test_its_metrics_tell_of_opening_refusing_and_closing_again(breaker: Breaker, storage: Storage) -> None:
    def told() -> dict[str, float]:
        assert all(sample.labels == (("breaker", "venue"),) for sample in breaker.samples())
        return {sample.name: sample.value for sample in breaker.samples()}

    assert told() == {"breaker_state": 0, "breaker_openings_total": 0, "breaker_refusals_total": 0}
    await fail(breaker, 3)
    await fail(breaker, 2)
    assert told() == {"breaker_state": 2, "breaker_openings_total": 1, "breaker_refusals_total": 2}
    storage.age()
    await fail(breaker, 1)
    assert told() == {"breaker_state": 2, "breaker_openings_total": 2, "breaker_refusals_total": 2}
    storage.age()
    assert await call(breaker) == "answer"
    assert told()["breaker_state"] == 0
