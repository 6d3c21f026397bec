"""What a scripted fault keeps for later: reports, fills that the member has not been told of, corrections to come.

Holds are journaled, so that a fill is late but never lost: after a restart everything still held is due at once.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum, unique
from typing import Any

from kernel.fix import tags
from sandbox.exchange.engine import events
from sandbox.exchange.engine.codec import decode, encode
from sandbox.exchange.reports import Withheld

HOLDS_MAX = 100_000
NEVER_NS = 2**63 - 1


@unique
class Kind(StrEnum):
    """What is held."""

    MESSAGE = "message"
    FILL = "fill"
    CORRECTION = "correction"


@dataclass(frozen=True, slots=True)
class Hold:
    """One thing held until `release_ns`, or until its order closes if `until_closed`.

    `payload` is `[MsgType, [[tag, text], …]]` for a message, an encoded `Traded` for a fill, `[match id, price, quantity]` in ticks and
    lots for a correction.
    """

    hold_id: int
    owner: str
    order_id: int
    release_ns: int
    until_closed: bool
    kind: Kind
    payload: list[Any]

    def dump(self) -> list[Any]:
        """Return the hold as JSON values."""
        return [self.hold_id, self.owner, self.order_id, self.release_ns, self.until_closed, self.kind, self.payload]

    @classmethod
    def load(cls, fields: list[Any]) -> "Hold":
        """Rebuild a hold from `dump`'s values."""
        hold_id, owner, order_id, release_ns, until_closed, kind, payload = fields
        return cls(hold_id, owner, order_id, release_ns, until_closed, Kind(kind), payload)

    def tells_of(self, match_id: int, exec_ids: frozenset[str]) -> bool:
        """Return whether it is a trade's fill, or a report whose ExecID or ExecRefID is one of the trade's executions."""
        if self.kind is Kind.MESSAGE:
            return any(tag in (tags.EXEC_ID, tags.EXEC_REF_ID) and text in exec_ids for tag, text in self.payload[1])
        return self.kind is Kind.FILL and self.trade().sequence == match_id

    def trade(self) -> events.Traded:
        """Return the trade of a held fill."""
        event = decode([self.payload[0], list(self.payload[1])])
        assert isinstance(event, events.Traded)
        return event


class Holds:
    """Everything held, oldest first, and what members do not know because of it."""

    def __init__(self) -> None:
        self._holds: dict[int, Hold] = {}
        self._next_id = 1
        self.withheld: dict[int, Withheld] = {}

    def __bool__(self) -> bool:
        return bool(self._holds)

    @property
    def is_full(self) -> bool:
        """Whether nothing more may be held."""
        return len(self._holds) >= HOLDS_MAX

    def new(self, owner: str, order_id: int, release_ns: int, kind: Kind, payload: list[Any], *, until_closed: bool = False) -> Hold:
        """Make a hold with the next id; `add` takes it in."""
        return Hold(self._next_id, owner, order_id, release_ns, until_closed, kind, payload)

    @staticmethod
    def fill_payload(event: events.Traded) -> list[Any]:
        """Return a trade as a hold's payload."""
        kind, fields = encode(event)
        return [kind, list(fields)]

    def add(self, hold: Hold) -> None:
        """Take a hold in, new or from the journal."""
        self._holds[hold.hold_id] = hold
        self._next_id = max(self._next_id, hold.hold_id + 1)
        self._withhold(hold, 1)

    def release(self, hold_id: int) -> Hold:
        """Let go of a hold and return it; its fill is known to its member from here on."""
        hold = self._holds.pop(hold_id)
        self._withhold(hold, -1)
        return hold

    def _withhold(self, hold: Hold, sign: int) -> None:
        if hold.kind is not Kind.FILL:
            return
        trade = hold.trade()
        known = self.withheld.get(hold.order_id, Withheld())
        changed = Withheld(known.quantity + sign * trade.quantity, known.value + sign * trade.quantity * trade.price)
        if changed.quantity:
            self.withheld[hold.order_id] = changed
        else:
            self.withheld.pop(hold.order_id, None)

    def due(self, time_ns: int) -> list[int]:
        """Return the ids of the holds that are due, in the order of their time."""
        due = [hold for hold in self._holds.values() if hold.release_ns <= time_ns]
        return [hold.hold_id for hold in sorted(due, key=lambda hold: (hold.release_ns, hold.hold_id))]

    def awaiting_close_of(self, order_id: int) -> list[int]:
        """Return the ids of the holds that wait for an order to close."""
        return [hold.hold_id for hold in self._holds.values() if hold.until_closed and hold.order_id == order_id]

    def about_trade(self, match_id: int, exec_ids: frozenset[str]) -> list[int]:
        """Return the ids of the holds on what members are to be told of a trade: its fills, and reports that name its executions."""
        return [hold.hold_id for hold in self._holds.values() if hold.tells_of(match_id, exec_ids)]

    def __contains__(self, hold_id: int) -> bool:
        return hold_id in self._holds

    def __iter__(self) -> Iterator[Hold]:
        return iter(self._holds.values())
