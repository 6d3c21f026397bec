"""When callers who were sent away shall come back: spread, so that those who were refused together do not return together."""

from __future__ import annotations

_GOLDEN = 0.6180339887498949
"""The fractions of its multiples fill an interval evenly, however many are taken. Knuth, The Art of Computer Programming 3, 6.4."""


class Spread:
    """Hands out waiting times between the least one and twice as much: deterministic, and evenly spread over any number of callers."""

    __slots__ = ("_turn",)

    def __init__(self) -> None:
        self._turn = 0.0

    def seconds(self, least: float) -> float:
        """Return the next waiting time: at least `least` seconds, less than twice that."""
        self._turn = (self._turn + _GOLDEN) % 1.0
        return least * (1.0 + self._turn)
