"""A QuickFIX initiator meets the sandbox exchange, which is our acceptor: on a real socket, with a real journal."""

from __future__ import annotations

import json
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from kernel.clock import SystemClock
from kernel.fix.fieldtypes import format_timestamp
from kernel.fix.steps import AppMessage
from sandbox.exchange.exchange import Exchange, ExchangeSettings
from sandbox.exchange.instruments import read_instruments
from sandbox.exchange.main import DEFAULT_INSTRUMENTS
from sandbox.exchange.members import Credentials, Member
from sandbox.exchange.server import ExchangeServer
from tests.interop.quickfix.engine import Engine, as_initiator, free_port, running, until

PASSWORD = "a secret of this test"


class Venue:
    """The exchange over any number of lives on one journal and one port."""

    def __init__(self, directory: Path, *, accept_reset: bool = False) -> None:
        member = Credentials("QFIX", "quick", PASSWORD, accept_reset=accept_reset)
        self.settings = ExchangeSettings("XSIM", read_instruments(DEFAULT_INSTRUMENTS), {"QFIX": member}, directory)
        self.port = free_port()
        self.server: ExchangeServer | None = None

    async def start(self) -> None:
        self.server = ExchangeServer(Exchange(self.settings, SystemClock()), 0)
        await self.server.start("127.0.0.1", self.port, None)

    async def stop(self) -> None:
        if self.server is not None:
            await self.server.close()
            self.server = None

    @property
    def member(self) -> Member:
        assert self.server is not None
        return self.server.exchange.desk.members["QFIX"]

    def control(self, **request: object) -> None:
        assert self.server is not None
        answer = json.loads(self.server.control.handle(json.dumps(request)))
        assert answer["ok"], answer
        self.server.exchange.commit()


@asynccontextmanager
async def knocking(venue: Venue, directory: Path, password: str = PASSWORD, **settings: str) -> AsyncIterator[Engine]:
    """The exchange and a QuickFIX member that tries to log on."""
    await venue.start()
    try:
        async with running(as_initiator(directory, venue.port, ("quick", password), **settings)) as engine:
            engine.tell(do="start")
            yield engine
    finally:
        await venue.stop()


@asynccontextmanager
async def trading(venue: Venue, directory: Path, **settings: str) -> AsyncIterator[Engine]:
    """The exchange and a QuickFIX member that is logged on."""
    async with knocking(venue, directory, **settings) as engine:
        await until(lambda: engine.logons == 1)
        yield engine


@pytest.fixture
async def venue(tmp_path: Path) -> Venue:
    (tmp_path / "venue").mkdir()
    return Venue(tmp_path / "venue")


@pytest.fixture
async def member(venue: Venue, tmp_path: Path) -> AsyncIterator[Engine]:
    async with trading(venue, tmp_path) as engine:
        yield engine


def request(msg_type: str, identity: str, side: str = "1", price: str = "200", **more: str) -> AppMessage:
    """An order request in AAPL; `t41` and the like are further fields."""
    fields = {11: identity, 54: side, 55: "AAPL", 60: format_timestamp(datetime.now(UTC))}
    if msg_type in ("D", "G"):
        fields |= {1: "ACC-1", 21: "1", 38: "100", 40: "2", 44: price, 59: "0"}
    fields |= {int(name[1:]): text for name, text in more.items()}
    return AppMessage(msg_type, list(fields.items()))


def reports(engine: Engine, identity: str) -> list[str]:
    """The ExecTypes of an order's reports, in the order in which QuickFIX gave them to its application."""
    return [m[150] for m in engine.messages if m.direction == "in" and m.msg_type == "8" and identity in (m[11], m[41])]


async def settled(engine: Engine, venue: Venue) -> None:
    """Both ends agree on the next numbers of both directions."""
    numbers = (0, 0)

    def same() -> bool:
        sequences = venue.member.sequences
        return numbers == (sequences.next_out, sequences.next_in)

    while not same():
        numbers = await engine.numbers()


def assert_no_rejects(engine: Engine) -> None:
    for direction in ("in", "out"):
        assert engine.seen(direction, "3", 58) == []
        assert engine.seen(direction, "j", 58) == []


async def test_the_life_of_an_order(member: Engine, venue: Venue) -> None:
    await member.send(request("D", "BUY-1"), request("G", "BUY-2", price="201", t41="BUY-1"), request("F", "BUY-3", t41="BUY-2"))
    await until(lambda: reports(member, "BUY-2") == ["5", "4"])
    assert reports(member, "BUY-1")[0] == "0"
    status = AppMessage("H", [(11, "BUY-4"), (54, "1"), (55, "AAPL"), (790, "S-1")])
    await member.send(request("D", "BUY-4"), request("D", "SELL-1", "2", t1="ACC-2"), status)
    await until(lambda: reports(member, "BUY-4") == ["0", "F", "I"])
    assert reports(member, "SELL-1") == ["0", "F"]
    await member.send(request("F", "NONE-2", t41="NONE-1"), AppMessage("AF", [(584, "M-1"), (585, "7")]))
    await until(lambda: member.seen("in", "9", 102) == ["1"] and "M-1" in member.seen("in", "8", 584))
    await settled(member, venue)
    assert_no_rejects(member)


async def test_many_orders_in_a_row(member: Engine, venue: Venue) -> None:
    for number in range(300):
        member.tell(do="send", type="D", fields=request("D", f"MANY-{number}").body)
    await until(lambda: len(member.seen("in", "8")) == 300)
    assert member.seen("in", "8", 11) == [f"MANY-{number}" for number in range(300)]
    assert_no_rejects(member)


async def test_idle_sessions_exchange_heartbeats_and_answer_test_requests(member: Engine, venue: Venue) -> None:
    await until(lambda: len(member.seen("in", "0")) >= 2 and len(member.seen("out", "0")) >= 2)
    await member.send(AppMessage("1", [(112, "ARE YOU THERE")]))
    await until(lambda: "ARE YOU THERE" in member.seen("in", "0", 112))
    assert member.logons == 1
    assert_no_rejects(member)


async def test_a_silent_member_is_asked_then_dropped_then_met_again(member: Engine, venue: Venue) -> None:
    member.signal(signal.SIGSTOP)
    await until(lambda: not venue.member.is_connected)
    member.signal(signal.SIGCONT)
    await until(lambda: member.logons == 2)
    await member.send(request("D", "A-1"))
    await until(lambda: reports(member, "A-1") == ["0"])
    await settled(member, venue)
    assert_no_rejects(member)


async def test_quickfix_asks_for_reports_that_it_missed(member: Engine, venue: Venue) -> None:
    await member.send(*(request("D", f"A-{number}") for number in range(3)))
    await until(lambda: len(member.seen("in", "8")) == 3)
    await member.end(kill=True)
    await until(lambda: not venue.member.is_connected)
    venue.control(op="member.cancel_all", comp_id="QFIX")
    await member.start()
    member.tell(do="start")
    await until(lambda: all(reports(member, f"A-{number}")[-1:] == ["4"] for number in range(3)))
    await settled(member, venue)
    missed = [m for m in member.messages if m.direction == "in" and m.msg_type == "8" and m[43] == "Y"]
    assert [m[150] for m in missed] == ["4", "4", "4"]
    assert len(member.seen("out", "2")) == 1
    assert_no_rejects(member)


async def test_the_venue_asks_for_orders_that_it_missed(member: Engine, venue: Venue) -> None:
    await member.ask(do="logout", text="")
    await until(lambda: member.logouts == 1)
    await member.send(*(request("D", f"A-{number}") for number in range(3)))
    await member.ask(do="logon")
    await until(lambda: len(member.seen("in", "8")) == 3)
    assert member.seen("in", "8", 11) == ["A-0", "A-1", "A-2"]
    assert len(member.seen("in", "2")) == 1
    await settled(member, venue)
    await member.send(request("D", "LIVE"))
    await until(lambda: reports(member, "LIVE") == ["0"])
    assert_no_rejects(member)


async def test_a_venue_that_died_and_came_back_goes_on_with_the_same_numbers(member: Engine, venue: Venue) -> None:
    for life in range(3):
        await member.send(request("D", f"A-{life}"))
        await until(lambda identity=f"A-{life}": reports(member, identity) == ["0"])  # type: ignore[misc]
        assert venue.server is not None
        venue.member.link.abort("the test pulls the plug")  # type: ignore[union-attr]
        await venue.stop()
        await venue.start()
        await until(lambda logons=life + 2: member.logons == logons)  # type: ignore[misc]
    await settled(member, venue)
    assert len(set(member.seen("in", "8", 17))) == 3
    assert_no_rejects(member)


async def test_a_member_that_lost_its_numbers_is_told(member: Engine, venue: Venue) -> None:
    await member.send(request("D", "A-1"))
    await member.ask(do="logout", text="")
    await until(lambda: member.logouts == 1)
    before = venue.member.sequences
    await member.ask(do="set", next_in=before.next_out, next_out=1)
    await member.ask(do="logon")
    await until(lambda: f"MsgSeqNum too low, expecting {before.next_in} but received 1" in member.seen("in", "5", 58))
    assert venue.member.sequences.next_in == before.next_in
    assert member.logons == 1


@pytest.mark.parametrize(
    ("settings", "password"),
    [({"SenderCompID": "STRANGER"}, PASSWORD), ({"TargetCompID": "OTHER"}, PASSWORD), ({}, "a wrong secret")],
)
async def test_a_stranger_is_closed_without_a_word(venue: Venue, tmp_path: Path, settings: dict[str, str], password: str) -> None:
    async with knocking(venue, tmp_path, password, **settings) as engine:
        await until(lambda: len(engine.seen("out", "A")) >= 2)
        assert [message for message in engine.messages if message.direction == "in"] == []
        assert venue.member.sequences.next_in == 1
    assert engine.logons == 0


async def test_a_reset_is_refused(member: Engine, venue: Venue) -> None:
    await member.send(request("D", "A-1"))
    await until(lambda: reports(member, "A-1") == ["0"])
    await member.end()
    await until(lambda: not venue.member.is_connected)
    before = venue.member.sequences
    member.settings["ResetOnLogon"] = "Y"
    await member.start()
    member.tell(do="start")
    await until(lambda: member.seen("out", "A", 141).count("Y") >= 2)
    assert member.logons == 1
    assert venue.member.sequences == before


async def test_a_reset_is_granted_to_a_member_that_may(tmp_path: Path) -> None:
    (tmp_path / "venue").mkdir()
    venue = Venue(tmp_path / "venue", accept_reset=True)
    async with trading(venue, tmp_path, ResetOnLogon="Y") as member:
        for life in range(2):
            await member.send(request("D", f"A-{life}"))
            await until(lambda identity=f"A-{life}": reports(member, identity) == ["0"])  # type: ignore[misc]
            await member.ask(do="logout", text="")
            await until(lambda logouts=life + 1: member.logouts == logouts)  # type: ignore[misc]
            await member.ask(do="logon")
            await until(lambda logons=life + 2: member.logons == logons)  # type: ignore[misc]
        await settled(member, venue)
        assert venue.member.sequences.next_in <= 3
        assert_no_rejects(member)


async def test_the_member_logs_out_cleanly(member: Engine, venue: Venue) -> None:
    await member.ask(do="logout", text="good night")
    await until(lambda: member.logouts == 1)
    await until(lambda: not venue.member.is_connected)
    assert len(member.seen("in", "5")) == len(member.seen("out", "5")) == 1
    await settled(member, venue)


async def test_the_venue_logs_out_cleanly_and_comes_back(member: Engine, venue: Venue) -> None:
    await venue.stop()
    await until(lambda: member.seen("in", "5", 58) == ["the exchange stops"])
    await venue.start()
    await until(lambda: member.logons == 2)
    await settled(member, venue)
    assert_no_rejects(member)
