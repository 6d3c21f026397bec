"""The FIX door's sessions: logon, sequence numbers, resends, delivery. Bytes come in through `Link`s' owners and leave through `Link`s."""

import logging
from collections.abc import Callable, Iterable, Mapping

from kernel.fix import tags
from kernel.fix.codec import encode_body
from kernel.fix.fieldtypes import format_timestamp
from kernel.fix.message import Garbled, Message
from kernel.fix.session import Session
from kernel.fix.steps import AppMessage, Delivery, NoticeKind, Now, Phase, Role, Sequences, SessionConfig, Step, StoredMessage
from kernel.ports import Clock
from sandbox.exchange.journal import Journal
from sandbox.exchange.members import Credentials, Link, Member
from sandbox.exchange.venue import APP_TYPES

Request = Callable[[str, Delivery], bool]

# Numbers in one part of a resend: about half a megabyte of reports.
RESEND_MESSAGES_MAX = 1_000

_log = logging.getLogger(__name__)


class SessionDesk:
    """All members' sessions.

    Args:
        comp_id: the venue's own CompID.
        credentials: who may log on.
        sequences: the numbers of each session so far, by CompID.
        journal: where numbers and messages are staged, and read again for resends.
        request: carries out an application message; returns whether to drop the connection after it.
        on_loss: called with the CompID of a member whose connection is gone.
    """

    def __init__(
        self,
        comp_id: str,
        credentials: Mapping[str, Credentials],
        sequences: Mapping[str, Sequences],
        journal: Journal,
        clock: Clock,
        request: Request,
        on_loss: Callable[[Member], None],
    ) -> None:
        self._comp_id = comp_id
        self._journal = journal
        self._clock = clock
        self._request = request
        self._on_loss = on_loss
        self.members = {name: Member(entry, sequences.get(name, Sequences())) for name, entry in credentials.items()}
        # A member that is no longer listed may not log on, but its orders live on and its numbers are kept.
        self._absent = {name: numbers for name, numbers in sequences.items() if name not in self.members}
        self._touched: set[Member] = set()
        self._owing: set[Member] = set()

    def _now(self) -> Now:
        return Now(self._clock.now(), self._clock.monotonic())

    def sequences(self) -> dict[str, list[int]]:
        """Return every session's `[next_in, next_out]`, for a snapshot."""
        known = {**self._absent, **{name: member.sequences for name, member in self.members.items()}}
        return {name: [numbers.next_in, numbers.next_out] for name, numbers in known.items()}

    # Connections.

    def logon(self, link: Link, first: Message, rest: Iterable[Message | Garbled]) -> Member | None:
        """Admit a connection by its first message, and read on.

        A good Logon takes the session over from an older connection, which is dropped: it may be a dead one that nobody has
        noticed yet. Returns None, without an answer, for anything else; the caller closes the connection.
        """
        comp_id = first.get(tags.SENDER_COMP_ID) or ""
        member = self.members.get(comp_id)
        if first.msg_type != tags.LOGON or member is None or not member.credentials.admits(first):
            _log.warning("logon refused", extra={"fields": {"member": comp_id[:32], "msg_type": first.msg_type[:2]}})
            return None
        if member.link is not None:
            replaced = member.link
            self._detach(member)
            replaced.abort("replaced by a new logon of the same member")
        config = SessionConfig(
            Role.ACCEPTOR, self._comp_id, comp_id, APP_TYPES, accept_reset=member.credentials.accept_reset, user_defined_tags=True
        )
        member.session, member.link = Session(config, member.sequences), link
        self._carry_out(member, member.session.connect(self._now()))
        self.receive(member, [first, *rest])
        return member

    def receive(self, member: Member, items: list[Message | Garbled], *, one_by_one: bool = False) -> None:
        """Read messages of a connected member.

        Args:
            one_by_one: stop reading where a fault drops the connection, so that the rest is not taken as read.
        """
        for part in ([item] for item in items) if one_by_one else (items,):
            if member.session is None or member.closing:
                return
            self._carry_out(member, member.session.receive(part, self._now()))

    def lost(self, member: Member, link: Link) -> None:
        """A connection is gone; nothing happens if another one has replaced it already."""
        if member.link is link:
            self._detach(member)
            self._on_loss(member)

    def drop(self, comp_id: str, reason: str) -> bool:
        """Drop a member's connection; return whether it had one."""
        member = self.members.get(comp_id)
        if member is None or member.link is None:
            return False
        member.closing, member.aborting = reason, True
        self._touched.add(member)
        return True

    def _detach(self, member: Member) -> None:
        if member.session is not None:
            member.session.disconnected()
        member.session, member.link = None, None
        member.writes.clear()
        member.closing, member.aborting = "", False
        self._owing.discard(member)

    def _carry_out(self, member: Member, step: Step) -> None:
        """Stage what a step brought; `flush` and `deliver` send it once it is durable."""
        batch = self._journal.batch
        if step.reset:
            batch.resets.append(member.comp_id)
        if step.sequences != member.sequences:
            member.sequences = step.sequences
            batch.sessions[member.comp_id] = [step.sequences.next_in, step.sequences.next_out]
        self._journal.stage_messages(member.comp_id, step.stored)
        if step.writes:
            member.writes += step.writes
        self._touched.add(member)
        if step.disconnect:
            member.closing = step.disconnect
        for notice in step.notices:
            level = logging.WARNING if notice.kind in (NoticeKind.GARBLED, NoticeKind.REJECTED) else logging.INFO
            _log.log(level, "fix session", extra={"fields": {"member": member.comp_id, "kind": notice.kind.value, "text": notice.text}})
        for delivery in step.delivered:
            if self._request(member.comp_id, delivery):
                member.closing, member.aborting = "dropped by a scripted fault", True
        self._note_owing(member)

    # Resending.

    def _note_owing(self, member: Member) -> None:
        """Read nothing of a member that is owed a resend: its session would only queue it."""
        session, link = member.session, member.link
        if session is None or link is None or (session.resending is not None) == (member in self._owing):
            return
        if session.resending is not None:
            self._owing.add(member)
            link.pause_reading()
        else:
            self._owing.discard(member)
            link.resume_reading()

    def _next_parts(self) -> list[Member]:
        return [member for member in self._owing if member.link is not None and not (member.link.is_behind or member.closing)]

    @property
    def resend_is_due(self) -> bool:
        """Whether a member waits for a part of a resend and has taken the one before."""
        return bool(self._next_parts())

    def resend(self) -> None:
        """Stage the next part for each of those members. To be called with nothing staged: only what is durable is sent again."""
        for member in self._next_parts():
            assert member.session is not None, "a link has a session"
            owed = member.session.resending
            assert owed is not None, "owing members have a resend under way"
            through = min(owed.end, owed.begin + RESEND_MESSAGES_MAX - 1)
            stored = self._journal.load(member.comp_id, owed.begin, through)
            self._carry_out(member, member.session.resend(stored, self._now(), through=through))

    # Sending.

    def send(self, comp_id: str, message: AppMessage) -> None:
        """Queue a message for a member, connected or not."""
        member = self.members.get(comp_id)
        if member is not None:
            member.outgoing.append(message)
            self._touched.add(member)

    def flush(self) -> None:
        """Number what is queued and stage it; call it before the journal's commit.

        Numbers are also given while a member is away: its next Logon shows it the gap, and it asks for the messages.
        """
        now = self._now()
        while waiting := [member for member in self._touched if member.outgoing]:
            for member in waiting:
                self._flush(member, now)

    def _flush(self, member: Member, now: Now) -> None:
        outgoing, member.outgoing = member.outgoing, []
        if member.session is not None and member.session.phase is not Phase.ACTIVE:
            # Half closed already: cut it short, so that numbers have one owner.
            link = member.link
            self._detach(member)
            if link is not None:
                link.close("logged out")
            self._on_loss(member)
        if member.session is not None:
            step = member.session.send(outgoing, now) if member.session.can_send else member.session.defer(outgoing, now)
            self._journal.stage_messages(member.comp_id, step.stored)
            member.writes += step.writes
            member.sequences = step.sequences
        else:
            self._number_for_later(member, outgoing, now)
        self._journal.batch.sessions[member.comp_id] = [member.sequences.next_in, member.sequences.next_out]

    def _number_for_later(self, member: Member, outgoing: list[AppMessage], now: Now) -> None:
        sent_time = format_timestamp(now.utc)
        first = member.sequences.next_out
        stored = [
            StoredMessage(sequence, message.msg_type, encode_body(message.body), sent_time)
            for sequence, message in enumerate(outgoing, start=first)
        ]
        self._journal.stage_messages(member.comp_id, stored)
        member.sequences = Sequences(member.sequences.next_in, first + len(stored))

    def deliver(self) -> None:
        """Send what is durable now, and close what is to be closed."""
        touched, self._touched = self._touched, set()
        for member in touched:
            link, writes, reason = member.link, member.writes, member.closing
            if link is None:
                continue
            if member.aborting:
                self._detach(member)
                link.abort(reason)
                self._on_loss(member)
                continue
            if writes:
                link.write(b"".join(writes))
                writes.clear()
            if reason:
                self._detach(member)
                link.close(reason)
                self._on_loss(member)

    # Time.

    def tick(self) -> None:
        """Run the sessions' timers: heartbeats, test requests, timeouts."""
        now = self._now()
        for member in self.members.values():
            if member.session is not None:
                deadline = member.session.next_deadline()
                if deadline is not None and deadline <= now.monotonic_seconds:
                    self._carry_out(member, member.session.tick(now))

    def logout_all(self, text: str) -> None:
        """Say goodbye to everybody; a member's answer closes its connection."""
        for member in self.members.values():
            if member.session is not None:
                self._carry_out(member, member.session.logout(self._now(), text))

    def close_all(self, reason: str) -> None:
        """Close the connections that are left."""
        for member in self.members.values():
            if member.link is not None:
                member.closing = member.closing or reason
                self._touched.add(member)
