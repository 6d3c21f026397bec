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
                Reason.QUOTA_EXCEEDED, f"the user has {held} sockets open already", metadata={"subject": principal}, retry_after_seconds=1
            )
        if self.total >= self._total_max:
            raise ResourceExhaustedError(Reason.OVERLOADED, "the replica has as many sockets as it takes", retry_after_seconds=1)
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
    """Lets each name pass once every `interval_ms` on average, and `burst` times at once (the generic cell rate algorithm, ITU-T I.371).

    At most 10,000 names are remembered; one that was forgotten begins anew.
    """

    def __init__(self, interval_ms: int, burst: int) -> None:
        self._interval_ns = interval_ms * 1_000_000
        self._burst = burst
        self._due_ns: dict[str, int] = {}

    def take(self, name: str, now_ns: int) -> None:
        """Count one request; `now_ns` is monotonic.

        Raises:
            ResourceExhaustedError: QUOTA_EXCEEDED, with the seconds until the next one passes.
        """
        due_ns = max(self._due_ns.pop(name, now_ns), now_ns)
        if len(self._due_ns) >= NAMES_MAX:
            del self._due_ns[next(iter(self._due_ns))]
        early_ns = due_ns - now_ns - (self._burst - 1) * self._interval_ns
        self._due_ns[name] = due_ns if early_ns > 0 else due_ns + self._interval_ns
        if early_ns > 0:
            text = f"more than {self._burst} requests at once, or one every {self._interval_ns // 1_000_000} ms on average"
            raise ResourceExhaustedError(
                Reason.QUOTA_EXCEEDED, text, metadata={"subject": name}, retry_after_seconds=early_ns / 1_000_000_000
            )
