"""One venue, whole, without sockets: restored from its journal, driven by bytes and time, one durable batch after the other."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kernel.fix.message import Garbled, Message
from kernel.fix.steps import Sequences
from kernel.ports import Clock
from sandbox.exchange.engine import Engine, codec
from sandbox.exchange.engine.snapshot import SnapshotError, load_state
from sandbox.exchange.engine.snapshot import dump_state as dump_venue
from sandbox.exchange.engine.state import Retention, VenueState
from sandbox.exchange.engine.vocabulary import CancelReason
from sandbox.exchange.faults import FaultBook
from sandbox.exchange.flow import FLOW_OWNER, FlowSettings, SyntheticFlow
from sandbox.exchange.holds import Hold, Holds
from sandbox.exchange.instruments import Instrument
from sandbox.exchange.journal import Journal, JournalError, JournalLimits, Record, new_incarnation
from sandbox.exchange.members import Credentials, Link, Member
from sandbox.exchange.reports import ReportWriter
from sandbox.exchange.sessions import SessionDesk
from sandbox.exchange.tap import BookPublisher, BookTap
from sandbox.exchange.venue import Parts, Venue

# A commit may lead to another one (a lost connection cancels orders); more rounds than this are a defect.
_ROUNDS_MAX = 100
_GOODBYE = "the exchange stops"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ExchangeSettings:
    """What a venue is set up with; see `sandbox.exchange.main` for where it comes from."""

    comp_id: str
    instruments: Mapping[str, Instrument]
    credentials: Mapping[str, Credentials]
    journal_directory: Path
    seed: int = 1
    flow: FlowSettings = field(default_factory=FlowSettings)
    journal: JournalLimits = field(default_factory=JournalLimits)
    closed_orders_max: int = 100_000


@dataclass(slots=True)
class _Past:
    """What the journal says, folded."""

    state: VenueState
    holds: Holds
    sequences: dict[str, Sequences]
    flow_tick: int = 0


class Exchange:
    """The venue as its servers see it.

    Whoever drives it passes on what members send (`logon`, `receive`, `lost`), calls `tick` every few milliseconds, and `commit` after
    every round of input: nothing leaves before that. After a commit it calls `resend` while `resend_is_due`.

    Raises:
        JournalError, SnapshotError: the past cannot be read, or does not fit the instruments file.
    """

    def __init__(self, settings: ExchangeSettings, clock: Clock, publisher: BookPublisher | None = None) -> None:
        self._settings = settings
        self.clock = clock
        self._publisher = publisher
        retention = Retention(settings.closed_orders_max, transient_owners=frozenset({FLOW_OWNER}))
        self.journal = Journal(settings.journal_directory, new_incarnation(clock.now_ns()), settings.journal)
        past = _restore(self.journal, settings.instruments, retention)
        self.engine = Engine(settings.instruments, retention, past.state, self._observe)
        self.state = self.engine.state
        self.faults = FaultBook()
        self._holds = past.holds
        self.reports = ReportWriter(self.state, self.journal.incarnation, past.holds.withheld)
        self._tap = None if publisher is None else BookTap(self.state)
        flow = SyntheticFlow(settings.seed, settings.instruments, settings.flow)
        parts = Parts(self.engine, self.reports, self.faults, past.holds, self._tap, flow, clock)
        self.venue = Venue(parts, lambda: self.journal.batch, self._send)
        self.venue.flow_tick = past.flow_tick
        self.desk = SessionDesk(
            settings.comp_id, settings.credentials, past.sequences, self.journal, clock, self.venue.request, self._on_loss
        )
        self._start()

    def _start(self) -> None:
        """Bring the restored venue to the present: sessions that ended, reports that were held, members that are not connected."""
        self.venue.advance()
        self.venue.release_all()
        for member in self.desk.members.values():
            self._on_loss(member)
        self.commit()

    def _observe(self, event: Any) -> None:
        self.venue.observe(event)

    def _send(self, comp_id: str, message: Any) -> None:
        self.desk.send(comp_id, message)

    def _on_loss(self, member: Member) -> None:
        if member.credentials.cancel_on_disconnect and self.state.open_orders.get(member.comp_id):
            self.venue.cancel_all(member.comp_id, CancelReason.DISCONNECT)

    def receive(self, member: Member, items: list[Message | Garbled]) -> None:
        """Read a connected member's messages; `commit` answers them."""
        self.desk.receive(member, items, one_by_one=self.faults.active)

    def logon(self, link: Link, first: Message, rest: list[Message | Garbled]) -> Member | None:
        """Admit a connection by its first message; None means that it must be closed."""
        return self.desk.logon(link, first, rest)

    def lost(self, member: Member, link: Link) -> None:
        """A member's connection is gone; `commit` whatever that leads to."""
        self.desk.lost(member, link)

    def tick(self) -> None:
        """Do what is due by time; call `commit` afterwards."""
        self.venue.advance()
        self.desk.tick()

    def commit(self) -> None:
        """Make everything since the last commit durable, then let it out: reports and book events.

        Raises:
            JournalError: nothing may be believed any more; the process must end.
        """
        for _ in range(_ROUNDS_MAX):
            self.desk.flush()
            self.journal.commit(self._dump)
            # Taken before anything is delivered: a link that breaks meanwhile leads to events that are not durable yet.
            book_events = [] if self._tap is None else self._tap.take()
            self.desk.deliver()
            if self._publisher is not None and book_events:
                self._publisher.publish(book_events)
            if not self.journal.batch:
                return
        raise AssertionError("commits follow commits without end")

    @property
    def resend_is_due(self) -> bool:
        """Whether a member waits for a part of a resend, and its link has room."""
        return self.desk.resend_is_due

    def resend(self) -> bool:
        """Send and commit the next part to each such member; return whether there was one."""
        is_due = self.desk.resend_is_due
        if is_due:
            self.desk.resend()
            self.commit()
        return is_due

    def _dump(self) -> dict[str, Any]:
        return {
            "venue": dump_venue(self.state),
            "sessions": self.desk.sequences(),
            "holds": [hold.dump() for hold in self._holds],
            "flow_tick": self.venue.flow_tick,
        }

    def log_out(self) -> None:
        """Send everybody a Logout; answers close the connections."""
        self.desk.logout_all(_GOODBYE)
        self.commit()

    @property
    def is_empty(self) -> bool:
        """Whether no member is connected."""
        return not any(member.is_connected for member in self.desk.members.values())

    def stop(self) -> None:
        """Close the connections that are left, commit, and let go of the journal."""
        self.desk.close_all(_GOODBYE)
        self.commit()
        self.journal.close()


def _restore(journal: Journal, instruments: Mapping[str, Instrument], retention: Retention) -> _Past:
    snapshot, records = journal.recover()
    if snapshot is None:
        past = _Past(VenueState(instruments, retention), Holds(), {})
    else:
        past = _Past(
            load_state(snapshot["venue"], instruments, retention),
            Holds(),
            {name: Sequences(*numbers) for name, numbers in snapshot["sessions"].items()},
            snapshot["flow_tick"],
        )
        for fields in snapshot["holds"]:
            past.holds.add(Hold.load(fields))
    count = 0
    for record in records:
        _fold(past, record)
        count += 1
    _check_grids(past.state)
    _log.info("restored", extra={"fields": {"records": count, "orders": len(past.state.orders), "sequence": past.state.sequence}})
    return past


def _fold(past: _Past, record: Record) -> None:
    try:
        for encoded in record.batch.events:
            past.state.evolve(codec.decode(encoded))
    except KeyError as error:
        raise SnapshotError(f"record {record.number}: instrument or order {error} has a history here and is gone") from error
    for comp_id, (next_in, next_out) in record.batch.sessions.items():
        past.sequences[comp_id] = Sequences(next_in, next_out)
    for note in record.batch.notes:
        match note:
            case ["hold", fields]:
                past.holds.add(Hold.load(fields))
            case ["release", hold_id]:
                past.holds.release(hold_id)
            case ["tick", tick]:
                past.flow_tick = tick
            case _:
                raise JournalError(f"record {record.number}: unknown note {note[:1]}")


def _check_grids(state: VenueState) -> None:
    """Refuse an instruments file whose grid differs from the one that the journal's integers were counted in."""
    for symbol, market in state.markets.items():
        grids = (market.instrument.prices.step, market.instrument.quantities.step)
        if market.tick and (market.tick, market.lot) != grids:
            raise SnapshotError(f"instrument {symbol} was listed with tick {market.tick} and lot {market.lot}, now has {grids}")
