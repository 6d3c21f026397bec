"""Scripted faults of the lines: rules that lose, repeat, delay or silence packets, counted, so that a script always plays the same.

    {"op": "line.fault.add", "action": "drop", "line": "A", "skip": 10, "count": 3}

Of the rules about a line, the first that has uses left applies; `skip` packets pass first.
"""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum, unique
from typing import Any

from sandbox.exchange.faults import COUNT_MAX, RULES_MAX, FaultError

DISTANCE_MAX = 1_000


@unique
class LineAction(StrEnum):
    """What happens to a packet that a rule matches."""

    DROP = "drop"
    """A data packet is not sent on the line; the other line and the re-request server have it."""
    DUPLICATE = "duplicate"
    """A data packet is sent twice."""
    REORDER = "reorder"
    """A data packet is sent after the `distance` packets that follow it on the line, heartbeats included."""
    SILENCE = "silence"
    """Nothing is sent on the line, heartbeats neither."""
    LOSE = "lose"
    """A data packet is sent on no line and the re-request server does not have it: only a snapshot helps. `line` must be `*`."""


@dataclass(slots=True)
class LineRule:
    """A rule with its counter; `line` is a line's name or `*`."""

    rule_id: int
    action: LineAction
    line: str
    skip: int
    count: int
    distance: int
    used: int = 0

    def applies(self) -> bool:
        """Count a packet that the rule is about, and return whether it is bent."""
        if self.used >= self.skip + self.count:
            return False
        self.used += 1
        return self.used > self.skip

    def describe(self) -> dict[str, Any]:
        """Return the rule as JSON values."""
        return {name: getattr(self, name) for name in self.__slots__}


_NUMBERS = {"skip": (0, COUNT_MAX, 0), "count": (1, COUNT_MAX, COUNT_MAX), "distance": (1, DISTANCE_MAX, 1)}


def parse_line_rule(rule_id: int, fields: Mapping[str, Any], lines: tuple[str, ...]) -> LineRule:
    """Check a rule's JSON object.

    Raises:
        FaultError: an unknown field, action or line, or a number outside its bounds.
    """
    known = {"action", "line", *_NUMBERS}
    unknown = sorted(set(fields) - known)
    if unknown:
        raise FaultError(f"{unknown[0]}: unknown field; known are {', '.join(sorted(known))}")
    try:
        action = LineAction(fields.get("action", ""))
    except ValueError:
        raise FaultError(f"action: expected one of {', '.join(LineAction)}") from None
    line = fields.get("line", "*")
    if line not in ("*", *lines) or (action is LineAction.LOSE and line != "*"):
        raise FaultError("line: expected *" if action is LineAction.LOSE else f"line: expected one of {', '.join(lines)}, *")
    numbers: dict[str, int] = {}
    for name, (minimum, maximum, default) in _NUMBERS.items():
        number = numbers[name] = fields.get(name, default)
        if not isinstance(number, int) or isinstance(number, bool) or not minimum <= number <= maximum:
            raise FaultError(f"{name}: expected a whole number from {minimum} to {maximum}")
    if "distance" in fields and action is not LineAction.REORDER:
        raise FaultError(f"distance: only for {LineAction.REORDER}")
    return LineRule(rule_id, action, line, **numbers)


class LineFaultBook:
    """The rules in force and the packets that they hold back."""

    def __init__(self, lines: tuple[str, ...]) -> None:
        self._lines = lines
        self._rules: dict[int, LineRule] = {}
        self._next_id = 1
        self._held: dict[str, deque[list[Any]]] = {line: deque() for line in lines}

    def add(self, fields: Mapping[str, Any]) -> LineRule:
        """Add a rule.

        Raises:
            FaultError: malformed, or more than `RULES_MAX`.
        """
        if len(self._rules) >= RULES_MAX:
            raise FaultError(f"at most {RULES_MAX} rules")
        rule = parse_line_rule(self._next_id, fields, self._lines)
        self._next_id += 1
        self._rules[rule.rule_id] = rule
        return rule

    def remove(self, rule_id: int) -> bool:
        """Remove a rule; return whether it was there."""
        return self._rules.pop(rule_id, None) is not None

    def clear(self) -> None:
        """Remove all rules. What they hold back leaves with the next packets."""
        self._rules.clear()

    def rules(self) -> list[LineRule]:
        """Return the rules, oldest first, used up ones included."""
        return list(self._rules.values())

    def loses(self) -> bool:
        """Whether the next data packet is lost for everybody."""
        return any(rule.action is LineAction.LOSE and rule.applies() for rule in self._rules.values())

    def bend(self, line: str, packet: bytes, *, is_data: bool) -> list[bytes]:
        """Return what is sent on a line when a packet's turn has come: it, none, two, or others that were held back too."""
        if not self._rules and not self._held[line]:
            return [packet]
        sent = self._bent(line, packet, is_data=is_data)
        held = self._held[line]
        for entry in held:
            entry[0] -= 1
        while held and held[0][0] < 0:
            sent.append(held.popleft()[1])
        return sent

    def _bent(self, line: str, packet: bytes, *, is_data: bool) -> list[bytes]:
        for rule in self._rules.values():
            if rule.action is LineAction.LOSE or rule.line not in (line, "*") or not (is_data or rule.action is LineAction.SILENCE):
                continue
            if not rule.applies():
                continue
            if rule.action is LineAction.REORDER:
                self._held[line].append([rule.distance, packet])
                return []
            return [packet, packet] if rule.action is LineAction.DUPLICATE else []
        return [packet]
