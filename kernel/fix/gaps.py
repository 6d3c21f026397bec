"""A gap in what was read: what waits beyond it, and when it is requested (again)."""

from heapq import heappop, heappush
from typing import Final

from kernel.fix.message import Message

_REQUESTS_WITHOUT_PROGRESS_MAX: Final = 4


class GapTracker:
    """At most one gap at a time: from the next expected number to `end`, inclusive."""

    def __init__(self, queue_max: int, queue_bytes_max: int, timeout_seconds: float) -> None:
        self._queue_max = queue_max
        self._queue_bytes_max = queue_bytes_max
        self._timeout_seconds = timeout_seconds
        self._queue: dict[int, Message] = {}
        self._numbers: list[int] = []  # a heap of the queue's numbers, and of some that have left it
        self.held_bytes = 0
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
        if sequence in self._queue:
            return
        size = len(message.raw)
        if len(self._queue) < self._queue_max and self.held_bytes + size <= self._queue_bytes_max:
            self._queue[sequence] = message
            self.held_bytes += size
            heappush(self._numbers, sequence)
        else:
            self.extend(sequence)

    def extend(self, sequence: int) -> None:
        """The gap takes in a number beyond it."""
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

    def advance(self, next_in: int, monotonic_seconds: float) -> list[tuple[int, Message]]:
        """`next_in` is the next number expected now. Returns what waited below it, by number; it waits no more."""
        self._requests = 0
        self._progress_at = monotonic_seconds
        if next_in > self.end:
            self.end = 0
        passed: list[tuple[int, Message]] = []
        while self._numbers and self._numbers[0] < next_in:
            sequence = heappop(self._numbers)
            message = self.take(sequence)
            if message is not None:
                passed.append((sequence, message))
        return passed

    def take(self, next_in: int) -> Message | None:
        """The waiting message with this number, which leaves the queue."""
        message = self._queue.pop(next_in, None)
        if message is not None:
            self.held_bytes -= len(message.raw)
        return message

    def clear(self) -> None:
        """The connection is gone."""
        self._queue.clear()
        self._numbers.clear()
        self.held_bytes = self.end = self._requests = self._requested_from = 0
