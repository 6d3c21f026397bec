"""The heartbeat timers of an active session, in monotonic seconds."""

from enum import Enum
from typing import Final

TEST_REQUEST_AFTER: Final = 1.2
"""A TestRequest is sent after this many intervals without a message from the peer."""
DROP_AFTER: Final = 2.4
"""The connection is dropped after this many."""


class Due(Enum):
    """What an elapsed timer asks for."""

    HEARTBEAT = "heartbeat"
    TEST_REQUEST = "test request"
    DROP = "drop"


class HeartbeatTimers:
    """Interval 0 turns them off (108=0)."""

    def __init__(self) -> None:
        self._interval = 0
        self._received_at = 0.0
        self._sent_at = 0.0
        self._test_request_sent = False

    def start(self, interval_seconds: int, now: float) -> None:
        """A Logon was exchanged."""
        self._interval = interval_seconds
        self._received_at = self._sent_at = now
        self._test_request_sent = False

    def received(self, now: float) -> None:
        """A message came in: any message answers a TestRequest."""
        self._received_at = now
        self._test_request_sent = False

    def sent(self, now: float) -> None:
        """A message went out."""
        self._sent_at = now

    def deadline(self, *, may_send: bool) -> float | None:
        """When the next timer elapses."""
        if not self._interval:
            return None
        if not may_send:
            return self._received_at + DROP_AFTER * self._interval
        factor = DROP_AFTER if self._test_request_sent else TEST_REQUEST_AFTER
        return min(self._received_at + factor * self._interval, self._sent_at + self._interval)

    def elapsed(self, now: float, *, may_send: bool) -> Due | None:
        """The most urgent timer that has elapsed. A TestRequest is due once: its sending must follow."""
        if not self._interval:
            return None
        if now >= self._received_at + DROP_AFTER * self._interval:
            return Due.DROP
        if not may_send:
            return None
        if now >= self._received_at + TEST_REQUEST_AFTER * self._interval and not self._test_request_sent:
            self._test_request_sent = True
            return Due.TEST_REQUEST
        return Due.HEARTBEAT if now >= self._sent_at + self._interval else None
