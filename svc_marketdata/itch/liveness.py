"""Whether a feed is live: heard of within two seconds, by the receiver's clock."""

from __future__ import annotations

FEED_AGE_SECONDS_MAX = 2.0


class Liveness:
    """When a feed was last heard of. Times are the receiver's monotonic ones, in seconds."""

    def __init__(self) -> None:
        self.heard_at: float | None = None

    def hear(self, at: float) -> None:
        """Take a sign of life that arrived at a moment; an older one than known changes nothing."""
        if self.heard_at is None or at > self.heard_at:
            self.heard_at = at

    def is_live(self, now: float) -> bool:
        """Return whether the feed was heard of within two seconds."""
        return self.heard_at is not None and now - self.heard_at <= FEED_AGE_SECONDS_MAX
