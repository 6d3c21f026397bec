"""Follows one feed without I/O: datagrams of either line and snapshots in, a venue that is right or says that it is not.

`kernel.itch.Arbiter` climbs the ladder for what both lines lost. Beyond it stands what the arbiter cannot see: messages that do not fit
the books. For those, after a declared gap, and when a session begins (nothing says when its opening orders are complete), a snapshot is
fetched while the feed goes on, and what was delivered meanwhile is applied to the snapshot before it takes the books' place.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from kernel.itch.arbiter import Arbiter
from kernel.itch.moldudp64 import Request
from kernel.itch.steps import (
    ArbiterLimits,
    ArbiterStep,
    Delivered,
    GapDeclared,
    LineFound,
    LineLost,
    PacketRefused,
    RequestNeeded,
    SessionBegan,
    SessionEnded,
    SnapshotAccepted,
    SnapshotNeeded,
)
from kernel.telemetry import Sample
from svc_marketdata.domain import Venue
from svc_marketdata.itch.liveness import Liveness
from svc_marketdata.itch.reading import FeedReader

LINES = ("A", "B")
KEPT_MESSAGES_MAX = 200_000
"""Messages that may be delivered while a snapshot is fetched; with more, another snapshot is."""

_logger = logging.getLogger(__name__)


class FeedFollower:
    """What a receiver drives. Times are seconds of its monotonic clock.

    Args:
        venue: what the feed changes.
        liveness: what is told when a line is heard.
        ask: sends a request to the re-request server.
    """

    def __init__(self, venue: Venue, liveness: Liveness, ask: Callable[[Request], None], *, limits: ArbiterLimits | None = None) -> None:
        self.venue = venue
        self.arbiter = Arbiter(LINES, limits)
        self._liveness = liveness
        self._ask = ask
        self._reader = FeedReader(venue)
        self._kept: list[tuple[int, tuple[bytes, ...]]] | None = None
        self._kept_messages = 0
        self._incoming: Venue | None = None
        self._has_ended = False
        self._awaits_snapshot = False
        self.needs_snapshot = False

    @property
    def is_recovering(self) -> bool:
        """Return whether messages are missing that are being asked for, or the session is over: what is shown is old."""
        return self.arbiter.is_recovering or self._has_ended

    def receive(self, line: str, data: bytes, now: float, *, arrived_at: float) -> None:
        """Take a datagram of a line, or of the re-request server.

        Args:
            line: `A`, `B`, or any other name for answers to requests.
            data: the datagram.
            now: when it is read.
            arrived_at: when it arrived, which may be long before.
        """
        counts = self.arbiter.counts
        refused = counts.malformed_packets + counts.stale_packets
        steps = self.arbiter.receive(line, data, now)
        if line in LINES and refused == counts.malformed_packets + counts.stale_packets:
            self._liveness.hear(arrived_at)
        if steps:
            self._take(steps)

    def tick(self, now: float) -> None:
        """Do what is due by time, and look whether the books make sense."""
        self._take(self.arbiter.tick(now))
        if not self.venue.is_continuous:
            self.needs_snapshot = True

    def begin_snapshot(self) -> None:
        """A snapshot is being fetched: what is delivered from now on is kept for it."""
        self.needs_snapshot = False
        self._kept, self._kept_messages = [], 0

    def fail_snapshot(self, now: float) -> None:
        """No snapshot could be fetched."""
        self._kept = None
        self.needs_snapshot = True
        self._take(self.arbiter.snapshot_failed(now))

    def merge(self, snapshot: FeedReader, next_sequence: int, now: float) -> bool | None:
        """Let a snapshot take the books' place.

        Returns:
            Whether it could; None where the feed has not come so far yet, and it should be offered again.
        """
        session = snapshot.venue.session
        if session == self.arbiter.session and not self._awaits_snapshot:
            # What is being asked for brings the tape too; a snapshot has the books alone.
            if self.arbiter.next_sequence < next_sequence:
                return None
            return self._settle(snapshot, next_sequence)
        self._incoming = snapshot.venue
        self._take(self.arbiter.snapshot(session, next_sequence, now))
        accepted, self._incoming = self._incoming is None, None
        return self._settled() if accepted else self._settle(snapshot, next_sequence)

    def _settle(self, snapshot: FeedReader, next_sequence: int) -> bool:
        """Let a snapshot reach the present by what was delivered since."""
        if snapshot.venue.session != self.arbiter.session:
            return False
        if not _catch_up(snapshot, next_sequence, self._kept or (), self.arbiter.next_sequence):
            return False
        self._reader.adopt(snapshot.venue)
        return self._settled()

    def _settled(self) -> bool:
        self._kept = None
        self.needs_snapshot = False
        return True

    def samples(self) -> list[Sample]:
        """Return the follower's metrics; `feed_lost_messages_total` that grows is an alarm."""
        counts = self.arbiter.counts
        lines = [Sample("feed_line_up", self.arbiter.lines.is_up(line), (("line", line),)) for line in LINES]
        packets = [Sample("feed_line_packets_total", self.arbiter.lines.packets(line), (("line", line),)) for line in LINES]
        return [
            *lines,
            *packets,
            Sample("feed_messages_total", counts.delivered_messages),
            Sample("feed_duplicate_packets_total", counts.duplicate_packets),
            Sample("feed_malformed_packets_total", counts.malformed_packets),
            Sample("feed_malformed_messages_total", self._reader.malformed),
            Sample("feed_gaps_total", counts.gaps_seen),
            Sample("feed_requests_total", counts.requests),
            Sample("feed_snapshots_total", counts.snapshots),
            Sample("feed_lost_messages_total", counts.lost_messages),
        ]

    def _take(self, steps: Sequence[ArbiterStep]) -> None:
        for step in steps:
            match step:
                case Delivered():
                    self._reader.apply(step.sequence, step.messages)
                    self._keep(step)
                case RequestNeeded():
                    self._ask(step.request)
                case SnapshotNeeded():
                    self._awaits_snapshot = self.needs_snapshot = True
                case SnapshotAccepted():
                    self._accept(step)
                case SessionBegan():
                    _logger.info("feed session %s begins", step.session)
                    self._has_ended = self._awaits_snapshot = False
                    self._reader.begin(step.session)
                    self.needs_snapshot = True
                    if self._kept is not None:
                        self._kept, self._kept_messages = [], 0
                case GapDeclared():
                    _logger.error("feed messages %d to %d of session %s are lost", step.first, step.last, step.session)
                    self._awaits_snapshot = False
                    self.venue.interrupt()
                    self.needs_snapshot = True
                case SessionEnded():
                    _logger.warning("feed session %s has ended", step.session)
                    self._has_ended = True
                case LineLost():
                    _logger.error("feed line %s is silent", step.line)
                case LineFound():
                    _logger.info("feed line %s speaks", step.line)
                case PacketRefused():
                    _logger.debug("feed line %s: %s", step.line, step.error)

    def _accept(self, step: SnapshotAccepted) -> None:
        snapshot, self._incoming = self._incoming, None
        assert snapshot is not None, "the arbiter accepts only what it was offered"
        self._awaits_snapshot = False
        if step.last >= step.first:
            _logger.warning("feed messages %d to %d are known by a snapshot alone", step.first, step.last)
            self.venue.tape_breaks += 1
        self._reader.adopt(snapshot)

    def _keep(self, step: Delivered) -> None:
        if self._kept is not None:
            self._kept.append((step.sequence, step.messages))
            self._kept_messages += len(step.messages)
            if self._kept_messages > KEPT_MESSAGES_MAX:
                self._kept = None


def _catch_up(snapshot: FeedReader, next_sequence: int, kept: Sequence[tuple[int, tuple[bytes, ...]]], end: int) -> bool:
    """Apply what was delivered since a snapshot to it; return whether nothing was missing up to `end`."""
    for sequence, messages in kept:
        if sequence > next_sequence:
            return False
        fresh = messages[next_sequence - sequence :]
        if not fresh:
            continue
        snapshot.apply(next_sequence, fresh)
        next_sequence += len(fresh)
    return next_sequence == end
