"""Positions with the marks of this replica, at the moment of asking."""

from __future__ import annotations

from kernel.ports import Clock
from svc_portfolio.clients.marks import MarkBook
from svc_portfolio.domain.valuation import Holding, Mark


class Marker:
    """Finds the mark of a position: that of its instrument at the instrument's own venue."""

    def __init__(self, marks: MarkBook, clock: Clock) -> None:
        self._marks = marks
        self._clock = clock

    def mark(self, holding: Holding) -> Mark | None:
        """Return the mark; None where none is known, or nothing of the instrument."""
        return self._marks.mark(holding.venue, holding.instrument_id, self._clock.monotonic()) if holding.venue else None
