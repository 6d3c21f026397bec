"""When the synthetic flow acts: a rate that the operator can change, pause and step."""

from sandbox.exchange.venue import Venue

RATE_MAX = 1_000.0
# After a stall the flow goes on from now: a burst of missed ticks would move prices by surprise.
_CATCH_UP_MAX = 5


class FlowPacer:
    """Calls the flow `rate` times a second while not paused.

    Args:
        rate: ticks per second, 0 (paused) to 1,000.
        monotonic_seconds: now.
    """

    def __init__(self, venue: Venue, rate: float, monotonic_seconds: float) -> None:
        self._venue = venue
        self.rate = 0.0
        self.paused = False
        self._due = monotonic_seconds
        self.set_rate(rate, monotonic_seconds)

    def set_rate(self, rate: float, monotonic_seconds: float) -> None:
        """Change the rate from now on.

        Raises:
            ValueError: outside 0 to 1,000.
        """
        if not 0 <= rate <= RATE_MAX:
            raise ValueError(f"ticks_per_second: expected 0 to {RATE_MAX:g}")
        self.rate = rate
        self._due = monotonic_seconds

    def resume(self, monotonic_seconds: float) -> None:
        """End a pause."""
        self.paused = False
        self._due = monotonic_seconds

    def step(self, ticks: int) -> None:
        """Let the flow act `ticks` times now, paused or not."""
        for _ in range(ticks):
            self._venue.step_flow()

    def run(self, monotonic_seconds: float) -> None:
        """Let the flow act as often as is due."""
        if self.paused or self.rate == 0:
            return
        interval = 1.0 / self.rate
        self._due = max(self._due, monotonic_seconds - _CATCH_UP_MAX * interval)
        while self._due <= monotonic_seconds:
            self._venue.step_flow()
            self._due += interval
