"""A venue and its members in one process, without sockets and without waiting: every call returns when the venue has answered."""

import dataclasses
from pathlib import Path

from kernel.clock import ManualClock
from kernel.fix import tags
from kernel.fix.codec import MessageReader, encode_body, frame
from kernel.fix.fieldtypes import format_timestamp
from kernel.fix.message import Body, Garbled, Message, Pair
from sandbox.exchange.exchange import Exchange, ExchangeSettings
from sandbox.exchange.flow import FlowSettings
from sandbox.exchange.journal import JournalLimits
from sandbox.exchange.members import Credentials, Member
from sandbox.exchange.tap import BookEvent
from tests.unit.exchange.venues import instruments

VENUE = "XSIM"
PASSWORD = "a secret of this test"


class Tape:
    """A publisher that remembers."""

    def __init__(self) -> None:
        self.book_events: list[BookEvent] = []

    def publish(self, book_events: list[BookEvent]) -> None:
        """Remember a batch."""
        self.book_events += book_events


def settings(directory: Path, *, members: tuple[str, ...] = ("ALPHA", "BETA"), cancel_on_disconnect: bool = False) -> ExchangeSettings:
    """A venue with two members, small journal segments and a lively flow that nobody drives."""
    credentials = {name: Credentials(name, name.lower(), PASSWORD, cancel_on_disconnect=cancel_on_disconnect) for name in members}
    return ExchangeSettings(
        VENUE, instruments(), credentials, directory, seed=7, flow=FlowSettings(maker_count=2, levels=2, taker_percent=60),
        journal=JournalLimits(segment_bytes_max=1 << 20),
    )  # fmt: skip


class World:
    """One venue over any number of lives on one journal."""

    def __init__(self, directory: Path, *, cancel_on_disconnect: bool = False, limits: JournalLimits | None = None) -> None:
        self.settings = settings(directory, cancel_on_disconnect=cancel_on_disconnect)
        if limits is not None:
            self.settings = dataclasses.replace(self.settings, journal=limits)
        # A Monday within New York hours.
        self.clock = ManualClock()
        self.clock.advance(3 * 86_400)
        self.tape = Tape()
        self.exchange = Exchange(self.settings, self.clock, self.tape)

    def crash_and_restart(self) -> None:
        """Lose everything that is not in the journal."""
        self.exchange.journal.close()
        self.exchange = Exchange(self.settings, self.clock, self.tape)

    def pass_time(self, seconds: float) -> None:
        """Let time pass and the venue notice."""
        self.clock.advance(seconds)
        self.exchange.tick()
        self.settle()

    def settle(self) -> None:
        """Let the venue answer, in as many parts as it takes."""
        self.exchange.commit()
        while self.exchange.resend():
            pass


class Client:
    """A member's FIX engine, as simple as it can be: it numbers, it remembers, and it does only what it is told."""

    def __init__(self, world: World, name: str = "ALPHA") -> None:
        self.world = world
        self.name = name
        self.next_out = 1
        self.received: list[Message] = []
        self.member: Member | None = None
        self.connected = False
        self.end = ""
        self.is_behind = False
        self.is_heard = True
        self._reader = MessageReader()

    # The venue's side of the link.

    def write(self, data: bytes) -> None:
        """Take bytes from the venue."""
        for item in self._reader.feed(data):
            assert isinstance(item, Message), f"the venue sent garbage: {data!r}"
            self.received.append(item)

    def close(self, reason: str) -> None:
        """The venue closed."""
        self.connected, self.end = False, reason

    abort = close

    def pause_reading(self) -> None:
        """The venue reads no more."""
        self.is_heard = False

    def resume_reading(self) -> None:
        """The venue reads on."""
        self.is_heard = True

    # The member's side.

    def frame(
        self, msg_type: str, body: Body, *, sequence: int | None = None, orig_sending_time: str | None = None, poss_resend: bool = False
    ) -> bytes:
        """Encode a message, with the next number unless told otherwise."""
        if sequence is None:
            sequence = self.next_out
            self.next_out += 1
        now = format_timestamp(self.world.clock.now())
        return frame(
            tags.BEGIN_STRING, msg_type, sequence=sequence, sender=self.name, target=VENUE, sending_time=now, body=encode_body(body),
            orig_sending_time=orig_sending_time, poss_resend=poss_resend,
        )  # fmt: skip

    def logon(self, *, password: str = PASSWORD, heartbeat: int = 0, extra: tuple[Pair, ...] = (), sequence: int | None = None) -> bool:
        """Connect and log on; returns whether the venue let it in."""
        body = [(98, "0"), (108, str(heartbeat)), (tags.USERNAME, self.name.lower()), (tags.PASSWORD, password), *extra]
        (first,) = MessageReader().feed(self.frame(tags.LOGON, body, sequence=sequence))
        assert isinstance(first, Message)
        self.connected, self.end, self._reader = True, "", MessageReader()
        self.member = self.world.exchange.logon(self, first, [])
        self.world.settle()
        if self.member is None:
            self.connected = False
        return self.connected

    def drop(self) -> None:
        """Lose the connection."""
        assert self.member is not None
        self.connected = False
        self.world.exchange.lost(self.member, self)
        self.world.settle()

    def send(self, *messages: bytes) -> list[Message]:
        """Send encoded messages in one go; return what came back."""
        assert self.member is not None
        before = len(self.received)
        items: list[Message | Garbled] = MessageReader().feed(b"".join(messages))
        self.world.exchange.receive(self.member, items)
        self.world.settle()
        return self.received[before:]

    def order(self, client_order_id: str, side: str = "1", quantity: str = "100", price: str = "100", **more: str) -> bytes:
        """Encode a NewOrderSingle; `more` are fields as `t59="3"`, an empty one leaves the field out."""
        fields = {1: "ACC-1", 11: client_order_id, 21: "1", 38: quantity, 40: "2", 44: price, 54: side, 55: "AAPL"}
        return self._request(tags.NEW_ORDER_SINGLE, fields, more)

    def cancel(self, client_order_id: str, orig: str, side: str = "1", **more: str) -> bytes:
        """Encode an OrderCancelRequest."""
        return self._request(tags.ORDER_CANCEL_REQUEST, {11: client_order_id, 41: orig, 54: side, 55: "AAPL"}, more)

    def replace(self, client_order_id: str, orig: str, quantity: str, price: str, side: str = "1", **more: str) -> bytes:
        """Encode an OrderCancelReplaceRequest."""
        fields = {11: client_order_id, 21: "1", 38: quantity, 40: "2", 41: orig, 44: price, 54: side, 55: "AAPL"}
        return self._request(tags.ORDER_CANCEL_REPLACE_REQUEST, fields, more)

    def _request(self, msg_type: str, fields: dict[int, str], more: dict[str, str]) -> bytes:
        fields[60] = format_timestamp(self.world.clock.now())
        fields |= {int(name[1:]): text for name, text in more.items()}
        return self.frame(msg_type, [(tag, text) for tag, text in fields.items() if text])

    def resend_from(self, begin: int) -> list[Message]:
        """Ask for everything from a number on."""
        return self.send(self.frame(tags.RESEND_REQUEST, [(7, str(begin)), (16, "0")]))


def fields(message: Message, *wanted: int) -> tuple[str | None, ...]:
    """The texts of some tags."""
    return tuple(message.get(tag) for tag in wanted)


def executions(messages: list[Message]) -> list[tuple[str | None, ...]]:
    """ExecType, OrdStatus, CumQty and LeavesQty of the execution reports among messages."""
    return [fields(message, 150, 39, 14, 151) for message in messages if message.msg_type == tags.EXECUTION_REPORT]
