"""What a run leaves behind for its auditor: raw facts as they were seen from outside, in nobody's own words."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Call:
    """A client asked. `key` is the client's: account and client order id, or account and request id."""

    number: int
    moment: float
    client: str
    method: str
    key: tuple[str, str]
    request: bytes


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of a call.

    `outcome` is `ok`, `refused` (a typed answer: nothing was done), or `unknown` (whatever happened, the caller was not told). `reason` is
    the machine-readable one of a refusal, `response` the serialized message of an `ok`.
    """

    number: int
    moment: float
    outcome: str
    reason: str = ""
    response: bytes = b""


@dataclass(frozen=True, slots=True)
class LogEvent:
    """An event of a service's log, with the transaction that committed it and when, by the simulation's time and order of commits."""

    commit: int
    moment: float
    tx: int
    position: int
    stream_id: str
    version: int
    type: str
    payload: bytes


@dataclass(frozen=True, slots=True)
class VenueEvent:
    """An event of the venue's journal: its one-letter kind and its fields, as they stand on disk."""

    kind: str
    fields: tuple[object, ...]


@dataclass(frozen=True, slots=True)
class FixFrame:
    """A FIX message that was written to a connection with the venue: by whom and when, and its fields in order."""

    moment: float
    sender: str
    connection: int
    fields: tuple[tuple[int, str], ...]

    def get(self, tag: int) -> str:
        """Return the first field with a tag, empty if there is none."""
        return next((text for known, text in self.fields if known == tag), "")


@dataclass(frozen=True, slots=True)
class Watched:
    """A message of a stream of an account's orders reached its client.

    `opening` is `fresh` on the first message since the client asked without a token, `resumed` on the first since it asked with one.
    """

    moment: float
    watcher: str
    account_id: str
    opening: str
    response: bytes


@dataclass(frozen=True, slots=True)
class Exposure:
    """What risk showed a client of an account, at rest: decimals as text, quantities by instrument."""

    account_id: str
    buy_notional: str
    sell_notional: str
    reservation_count: int
    positions: tuple[tuple[str, str, str, str], ...]
    """Instrument, position, open buy quantity, open sell quantity."""


@dataclass(slots=True)
class History:
    """One run. Logs are in order of commit, everything else in order of time.

    Attributes:
        doubled: requests that the network delivered twice, serialized.
        rests: moments at which the system was at rest, each with how many events of the two logs there were, and what risk showed.
        hurts: what chaos did, and when.
        unrest: what kept it from coming to rest in time; empty if nothing did.
        defects: what went wrong inside: replicas that ended by themselves, answers that no caller should see.
    """

    calls: list[Call] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)
    orders: list[LogEvent] = field(default_factory=list)
    risk: list[LogEvent] = field(default_factory=list)
    venue: list[VenueEvent] = field(default_factory=list)
    frames: list[FixFrame] = field(default_factory=list)
    watched: list[Watched] = field(default_factory=list)
    doubled: list[bytes] = field(default_factory=list)
    rests: list[Rest] = field(default_factory=list)
    hurts: list[tuple[float, str]] = field(default_factory=list)
    unrest: list[str] = field(default_factory=list)
    defects: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Rest:
    """A moment of rest: how much of each log there was, and what risk showed of every account."""

    moment: float
    orders: int
    risk: int
    venue: int
    exposures: tuple[Exposure, ...]
    closed: bool
    """Whether every order had been canceled before."""
