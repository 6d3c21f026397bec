"""A gap in what was read: what waits beyond it, and when it is requested (again)."""

from typing import Final

from kernel.fix.message import Message

_REQUESTS_WITHOUT_PROGRESS_MAX: Final = 4


class GapTracker:
    """At most one gap at a time: from the next expected number to `end`, inclusive."""

    def __init__(self, queue_max: int, timeout_seconds: float) -> None:
        self._queue_max = queue_max
        self._timeout_seconds = timeout_seconds
        self._queue: dict[int, Message] = {}
        self.end = 0
        self._requested_from = 0
        self._requests = 0
        self._progress_at = 0.0

    @property
    def open(self) -> bool:
        """Whether numbers are missing that the peer was asked for."""
        return self.end > 0

    @property
    def deadline(self) -> float | None:
        """The monotonic time in seconds at which a gap without progress expires."""
        return self._progress_at + self._timeout_seconds if self.open else None

    @property
    def exhausted(self) -> bool:
        """Whether the peer was asked often enough without any progress."""
        return self._requests >= _REQUESTS_WITHOUT_PROGRESS_MAX

    def expired(self, monotonic_seconds: float) -> bool:
        """Whether nothing has filled the gap for the timeout."""
        return self.open and monotonic_seconds >= self._progress_at + self._timeout_seconds

    def hold(self, sequence: int, message: Message) -> None:
        """Keeps a message from beyond the gap; where there is no room, the gap grows to include it."""
        if len(self._queue) < self._queue_max:
            self._queue.setdefault(sequence, message)
        elif sequence not in self._queue:
            self.end = max(self.end, sequence)

    def should_request(self, next_in: int, *, resent: bool) -> bool:
        """Whether a number that is too high calls for a ResendRequest: once, and again where the resend itself has a gap."""
        return not self.open or (resent and next_in > self._requested_from)

    def requested(self, begin: int, end: int, monotonic_seconds: float) -> None:
        """A ResendRequest from `begin` on is being sent."""
        self._requests += 1
        self._requested_from = begin
        self.end = max(self.end, end)
        self._progress_at = monotonic_seconds

    def advance(self, next_in: int, monotonic_seconds: float) -> None:
        """`next_in` is the next number expected now."""
        self._requests = 0
        self._progress_at = monotonic_seconds
        if next_in > self.end:
            self.end = 0
        if self._queue and min(self._queue) < next_in:
            self._queue = {sequence: message for sequence, message in self._queue.items() if sequence >= next_in}

    def take(self, next_in: int) -> Message | None:
        """The waiting message with this number, which leaves the queue."""
        return self._queue.pop(next_in, None) if self._queue else None

    def clear(self) -> None:
        """The connection is gone."""
        self._queue.clear()
        self.end = self._requests = self._requested_from = 0
