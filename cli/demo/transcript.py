"""What the demo writes, and what it counts."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from cli.output import Output


class StepError(Exception):
    """A step did not show what it should; the demo ends and says so."""


@dataclass
class Tally:
    """The demo's last line. `elapsed_s` is in seconds; `failure` says why the demo stopped, and is empty when every step held."""

    orders_accepted: int = 0
    orders_rejected_by_risk: int = 0
    fills: int = 0
    replays_identical: bool = False
    stream_gaps: int = 0
    exposures_match_orders: bool = False
    elapsed_s: float = 0.0
    failure: str = ""

    def document(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        return asdict(self)


class Transcript:
    """Writes steps for people; with `--json` it keeps quiet."""

    def __init__(self, output: Output) -> None:
        self.output = output
        self._number = 0

    def step(self, title: str) -> None:
        """Begin a step."""
        self._number += 1
        self.line(f"\n{self._number}. {title}")

    def line(self, text: str) -> None:
        """Write a line."""
        if not self.output.as_json:
            self.output.line(text)

    def command(self, text: str) -> None:
        """Write the command that does the same."""
        self.line(f"   $ trademesh {text}")

    def tell(self, text: str) -> None:
        """Write what happened."""
        self.line(f"   {text}")

    def check(self, holds: bool, what: str) -> None:
        """Write that something holds.

        Raises:
            StepError: it does not.
        """
        self.line(f"   {'✓' if holds else '✗'} {what}")
        if not holds:
            raise StepError(what)
