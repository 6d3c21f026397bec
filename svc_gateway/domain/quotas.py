"""Bounds on what one user may take: open sockets, and how often something may be asked for."""

from __future__ import annotations

from kernel.errors import Reason, ResourceExhaustedError

NAMES_MAX = 10_000


class SocketQuota:
    """Counts open sockets, of each principal and in all."""

    def __init__(self, *, principal_max: int, total_max: int) -> None:
        self._principal_max = principal_max
        self._total_max = total_max
        self._open: dict[tuple[str, str], int] = {}
        self.total = 0

    def enter(self, tenant: str, principal: str) -> None:
        """Count a socket in; `leave` counts it out.

        Raises:
            ResourceExhaustedError: QUOTA_EXCEEDED, the principal has as many as it may; OVERLOADED, the replica has.
        """
        held = self._open.get((tenant, principal), 0)
        if held >= self._principal_max:
            raise ResourceExhaustedError(
                Reason.QUOTA_EXCEEDED, f"the user has {held} sockets open already", metadata={"subject": principal}, retry_after_seconds=1.0
            )
        if self.total >= self._total_max:
            raise ResourceExhaustedError(Reason.OVERLOADED, "the replica has as many sockets as it takes", retry_after_seconds=1.0)
        self._open[(tenant, principal)] = held + 1
        self.total += 1

    def leave(self, tenant: str, principal: str) -> None:
        """Count a socket out."""
        self.total -= 1
        held = self._open[(tenant, principal)] - 1
        if held:
            self._open[(tenant, principal)] = held
        else:
            del self._open[(tenant, principal)]


class Rates:
    """A token bucket for each name: `per_second` on average, `burst` at once. At most 10,000 names are remembered."""

    def __init__(self, per_second: float, burst: int) -> None:
        self._per_second = per_second
        self._burst = float(burst)
        self._levels: dict[str, tuple[float, float]] = {}

    def take(self, name: str, now: float) -> None:
        """Count one request; `now` is monotonic, in seconds.

        Raises:
            ResourceExhaustedError: QUOTA_EXCEEDED, with the seconds until the next one passes.
        """
        level, since = self._levels.pop(name, (self._burst, now))
        level = min(self._burst, level + (now - since) * self._per_second)
        if len(self._levels) >= NAMES_MAX:
            del self._levels[next(iter(self._levels))]
        self._levels[name] = (level if level < 1 else level - 1, now)
        if level < 1:
            text = f"more than {self._per_second:g} requests a second"
            raise ResourceExhaustedError(
                Reason.QUOTA_EXCEEDED, text, metadata={"subject": name}, retry_after_seconds=(1 - level) / self._per_second
            )
