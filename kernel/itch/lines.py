"""Whether each of a feed's lines speaks, with hysteresis: one packet does not make a lost line good."""

from collections.abc import Iterable

from kernel.itch.steps import ArbiterLimits, ArbiterStep, LineFound, LineLost


class _Line:
    __slots__ = ("heard_at", "is_up", "packets", "run")

    def __init__(self) -> None:
        self.is_up = False
        self.heard_at: float | None = None
        self.packets = 0
        self.run = 0


class LineWatch:
    """The state of each line. A line that never spoke counts as silent from the first look at it."""

    def __init__(self, names: Iterable[str], limits: ArbiterLimits) -> None:
        self._limits = limits
        self._lines = {name: _Line() for name in names}

    def heard(self, name: str, now: float) -> list[ArbiterStep]:
        """A packet came; names other than the lines' (answers to requests) are passed over."""
        line = self._lines.get(name)
        if line is None:
            return []
        is_first = line.packets == 0
        if line.heard_at is not None and now - line.heard_at >= self._limits.line_silence_seconds:
            line.run = 0
        line.heard_at = now
        line.packets += 1
        if line.is_up:
            return []
        line.run += 1
        if not is_first and line.run < self._limits.line_return_packets:
            return []
        line.is_up = True
        return [LineFound(name)]

    def silent(self, now: float) -> list[ArbiterStep]:
        """Return the lines that are lost now and were not before."""
        lost: list[ArbiterStep] = []
        for name, line in self._lines.items():
            if line.heard_at is None:
                line.heard_at = now
            elif line.is_up and now - line.heard_at >= self._limits.line_silence_seconds:
                line.is_up, line.run = False, 0
                lost.append(LineLost(name))
        return lost

    def is_up(self, name: str) -> bool:
        """Whether the line speaks."""
        return self._lines[name].is_up

    @property
    def any_up(self) -> bool:
        """Whether some line speaks."""
        return any(line.is_up for line in self._lines.values())

    def packets(self, name: str) -> int:
        """Return how many packets came on the line."""
        return self._lines[name].packets

    def next_deadline(self) -> float | None:
        """Return when the next line is lost if nothing comes."""
        heard = [line.heard_at for line in self._lines.values() if line.is_up and line.heard_at is not None]
        return min(heard) + self._limits.line_silence_seconds if heard else None
