"""What the demo writes, and what it counts."""

from __future__ import annotations

import json
from collections.abc import Mapping
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
    position_matches_fills: bool = False
    ledger_balanced: bool = False
    settled_trades: int = 0
    report_rows: int = 0
    elapsed_s: float = 0.0
    failure: str = ""

    @property
    def holds(self) -> bool:
        """Whether every step held."""
        whole = self.replays_identical and self.exposures_match_orders and self.position_matches_fills and self.ledger_balanced
        counted = self.fills > 0 and self.settled_trades == self.report_rows == self.fills
        return not self.failure and self.stream_gaps == 0 and whole and counted

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

    def curl(self, method: str, path: str, body: Mapping[str, Any]) -> None:
        """Write the curl words that send the same; `$EDGE`, `$CA` and `$TOKEN` stand for address, authority and token."""
        self.line(f"   $ curl --cacert $CA -X {method} https://$EDGE{path} -H \"Authorization: Bearer $TOKEN\" --json '{json.dumps(body)}'")

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
