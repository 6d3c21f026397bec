"""What a client was told by one stream over all of its connections, and whether that is all that there was to tell."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from tests.e2e.crash.holdings_record import HoldingsRecord
from tests.e2e.crash.order_record import OrderRecord


@dataclass(slots=True)
class Heard:
    """All that came of an account, from before its first order.

    Attributes:
        name: for findings.
        account_id: whose stream it is.
        events: what came, in order.
        findings: what no stream may do.
        ends: what the service said when it ended the stream.
        live: whether the snapshot has come.
        resume_token: where to go on.
    """

    name: str
    account_id: str
    events: list[Any] = field(default_factory=list)
    findings: list[str] = field(default_factory=list)
    ends: Counter[str] = field(default_factory=Counter)
    live: bool = False
    resume_token: str = ""

    def note(self, message: Any, last: int) -> int:
        """Keep a message; `last` is the sequence before it on this connection, 0 for none. Return the sequence to go on from."""
        kind = message.WhichOneof("payload")
        if kind == "heartbeat":
            if last and message.heartbeat.last_sequence > last:
                self.findings.append(f"{self.name}: a heartbeat says {message.heartbeat.last_sequence}, {last} was the last that came")
            return last
        if last and message.sequence != last + 1:
            self.findings.append(f"{self.name}: message {message.sequence} follows {last}")
        match kind:
            case "event":
                self.events.append(message.event)
            case "snapshot" if message.snapshot.complete and not self.live:
                self.live = True
            case "end":
                self.ends[message.end.status.message] += 1
            case _:
                self.findings.append(f"{self.name}: {kind} on a stream that was resumed")
        if message.resume_token:
            self.resume_token = message.resume_token
        sequence: int = message.sequence
        return sequence


def order_stream(heard: Heard, orders: OrderRecord) -> Iterator[str]:
    """Every event of every order of the account came once, in the log's order."""
    wanted = sorted(
        place
        for order in orders.histories.values()
        if order.terms is not None and order.terms.account_id == heard.account_id
        for place in order.places
    )
    came = [(event.log_position.tx, event.log_position.position) for event in heard.events]
    yield from heard.findings
    yield from _compared(heard.name, came, wanted)


def portfolio_stream(heard: Heard, holdings: HoldingsRecord) -> Iterator[str]:
    """Every change of every position of the account came once, each position's in order."""
    changes = [event.position.change for event in heard.events if event.WhichOneof("event") == "position"]
    came: dict[str, list[int]] = {}
    for change in changes:
        came.setdefault(change.instrument_id, []).append(change.version)
    yield from heard.findings
    for account_id, instrument_id in holdings.portfolio.positions.keys() | {(heard.account_id, name) for name in came}:
        if account_id == heard.account_id:
            made = holdings.portfolio.changes.get((account_id, instrument_id), [])
            yield from _compared(f"{heard.name} {instrument_id}", came.get(instrument_id, []), [change.version for change in made])


def _compared(name: str, came: list[Any], wanted: list[Any]) -> Iterator[str]:
    if came != wanted:
        missing, strange = set(wanted) - set(came), set(came) - set(wanted)
        repeated = [item for item, count in Counter(came).items() if count > 1]
        yield (
            f"{name}: {len(came)} of {len(wanted)} came; missing {sorted(missing)[:5]}, unknown {sorted(strange)[:5]}, "
            f"repeated {repeated[:5]}, in order: {came == sorted(came)}"
        )
