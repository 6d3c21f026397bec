"""When a process that ended is started again, and when that is given up."""

from __future__ import annotations

import random
from dataclasses import dataclass, field


@dataclass(frozen=True)
class RestartPolicy:
    """Exponential backoff with jitter and an end.

    Attributes:
        delay_seconds_min: before the first restart; doubles with every failure in a row.
        delay_seconds_max: the doubling stops here.
        jitter: each delay is drawn from ±this fraction, so that replicas that died together do not return together. 0 to 1.
        stable_seconds: a process that was ready and ran this long has recovered; its failures are forgotten.
        loop_failures: from this many failures in a row on, it is called a crash loop.
        failures_max: after this many failures in a row, it is left down.
        failures_max_unproven: the same for a process that was never ready, which is more likely broken than unlucky.
    """

    delay_seconds_min: float = 0.2
    delay_seconds_max: float = 15.0
    jitter: float = 0.25
    stable_seconds: float = 20.0
    loop_failures: int = 3
    failures_max: int = 8
    failures_max_unproven: int = 4

    def __post_init__(self) -> None:
        if not 0 < self.delay_seconds_min <= self.delay_seconds_max:
            raise ValueError("delays must satisfy 0 < delay_seconds_min <= delay_seconds_max")
        if not 0 <= self.jitter < 1:
            raise ValueError("jitter must be in [0, 1)")
        if not 1 <= self.loop_failures <= self.failures_max or not 1 <= self.failures_max_unproven <= self.failures_max:
            raise ValueError("loop_failures and failures_max_unproven must lie between 1 and failures_max")


@dataclass
class RestartHistory:
    """The failures in a row of one process, under a policy. Seeded randomness may be given, for tests."""

    policy: RestartPolicy
    random_source: random.Random = field(default_factory=random.Random)
    failures: int = 0
    proven: bool = False

    def record_exit(self, *, was_ready: bool, uptime_seconds: float) -> float | None:
        """Note that the process ended and return the delay in seconds until it should start again; None to give up."""
        self.proven = self.proven or was_ready
        if was_ready and uptime_seconds >= self.policy.stable_seconds:
            self.failures = 0
        self.failures += 1
        if self.failures >= (self.policy.failures_max if self.proven else self.policy.failures_max_unproven):
            return None
        # The exponent is bounded so that a generous failures_max cannot overflow.
        delay = min(self.policy.delay_seconds_min * 2.0 ** min(self.failures - 1, 32), self.policy.delay_seconds_max)
        return delay * self.random_source.uniform(1 - self.policy.jitter, 1 + self.policy.jitter)

    @property
    def looping(self) -> bool:
        """Say whether the process fails again and again."""
        return self.failures >= self.policy.loop_failures
