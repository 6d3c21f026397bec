"""Our initiator connection meets a QuickFIX acceptor: what it sends is understood, and what it is sent is read."""

from __future__ import annotations

import asyncio
import logging
import random
import signal
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest

from kernel.errors import Reason, UnavailableError
from kernel.fix.steps import AppMessage, Role, Sequences, SessionConfig
from svc_oms.domain import ReportKind
from svc_oms.fix.connection import ConnectionConfig, VenueConnection
from svc_oms.fix.ports import InboundBatch, Number, SessionChange
from svc_oms.fix.reports import MessageRefused, OrderReport
from tests.interop.quickfix.engine import HEARTBEAT_SECONDS, Engine, as_acceptor, free_port, running, until
from tests.wire.fix.parts import CLOCK, SESSION, Host, order, report
from tests.wire.fix.parts import running as connected


@pytest.fixture
async def venue(tmp_path: Path) -> AsyncIterator[Engine]:
    async with running(as_acceptor(tmp_path, free_port())) as engine:
        yield engine


def connection_to(engine: Engine, host: Host, *, sender: str = "TM") -> VenueConnection:
    session = SessionConfig(
        Role.INITIATOR,
        sender,
        "QFIX",
        frozenset({"8", "9"}),
        heartbeat_seconds=HEARTBEAT_SECONDS,
        logon_timeout_seconds=2.0,
        logout_timeout_seconds=2.0,
    )
    port = int(engine.settings["SocketAcceptPort"])
    config = ConnectionConfig("QFIX", "127.0.0.1", port, session, backoff_seconds_min=0.05, backoff_seconds_max=0.2)
    return VenueConnection(config, host, CLOCK, lambda: True)


def exec_ids(host: Host) -> list[str]:
    return [item.report.exec_id for item in host.reports if isinstance(item, OrderReport)]


async def settled(engine: Engine, host: Host, connection: VenueConnection) -> None:
    """Both ends agree on the next numbers of both directions, with nothing on the way."""
    async with asyncio.timeout(15):
        while True:
            ours = await host.store.load(None, SESSION)
            theirs = await engine.numbers()
            if theirs == (ours.next_out, ours.next_in) and connection.view().synchronised:
                return


async def test_orders_are_acknowledged_and_filled(venue: Engine) -> None:
    host = Host()
    connection = connection_to(venue, host)
    async with connected(connection):
        await connection.ready()
        await host.send(connection, *(order(f"A-{number}") for number in range(200)))
        await until(lambda: len(host.reports) == 400)
        await settled(venue, host, connection)
    assert exec_ids(host) == [f"QF-{number}" for number in range(1, 401)]
    kinds = [item.report.kind for item in host.reports[:2] if isinstance(item, OrderReport)]
    assert kinds == [ReportKind.ACKNOWLEDGED, ReportKind.TRADE]
    assert venue.seen("in", "D", 11) == [f"A-{number}" for number in range(200)]
    assert venue.seen("out", "3") == []


async def test_idle_sessions_exchange_heartbeats_and_answer_test_requests(venue: Engine) -> None:
    host = Host()
    connection = connection_to(venue, host)
    async with connected(connection):
        await connection.ready()
        await until(lambda: len(venue.seen("in", "0")) >= 2 and len(venue.seen("out", "0")) >= 2)
        assert await connection.synchronise()
        await until(lambda: connection.view().confirmed_sequence >= 2)
        await venue.send(AppMessage("1", [(112, "ARE YOU THERE")]))
        await until(lambda: "ARE YOU THERE" in venue.seen("in", "0", 112))
    assert venue.logons == 1


async def test_a_silent_venue_is_asked_then_dropped_then_met_again(venue: Engine) -> None:
    host = Host()
    connection = connection_to(venue, host)
    async with connected(connection):
        await connection.ready()
        venue.signal(signal.SIGSTOP)
        await until(lambda: not connection.view().ready)
        venue.signal(signal.SIGCONT)
        await until(lambda: connection.view().generation == 2)
        await host.send(connection, order("A-1"))
        await until(lambda: len(host.reports) == 2)
        await settled(venue, host, connection)
    assert venue.seen("in", "D", 11) == ["A-1"]
    assert venue.logons == 2


@pytest.mark.parametrize(("kept", "received"), [(True, ["A-1", "A-2"]), (False, ["A-2"])])
async def test_quickfix_asks_for_what_was_stored_and_never_sent(venue: Engine, kept: bool, received: list[str]) -> None:
    host = Host(keep=lambda message: kept)
    connection = connection_to(venue, host)
    async with connected(connection):
        await connection.ready()
        await until(lambda: len(venue.seen("in", "0")) >= 1)  # an administrative message, which the answer must not repeat

        async def persist(number: Number) -> None:
            await host.store.save(None, SESSION, number([order("A-1")]))
            raise UnavailableError(Reason.DATABASE_UNAVAILABLE, "the answer was lost")

        with pytest.raises(UnavailableError):
            await connection.transmit(persist)
        await until(lambda: connection.view().generation == 2)
        await host.send(connection, order("A-2"))
        await until(lambda: venue.seen("in", "D", 11) == received)
        await settled(venue, host, connection)
    duplicates = [message[11] for message in venue.messages if message.direction == "in" and message[43] == "Y" and message.msg_type == "D"]
    assert duplicates == (["A-1"] if kept else [])
    assert len(venue.seen("out", "2")) >= 1
    assert venue.seen("out", "3") == []


async def test_we_ask_for_what_quickfix_sent_while_we_were_away(venue: Engine) -> None:
    host = Host()
    connection = connection_to(venue, host)
    async with connected(connection) as task:
        await connection.ready()
        await until(lambda: len(venue.seen("in", "0")) >= 1)
        await connection.stop()
        await until(task.done)
    await venue.send(*(report("A-1", f"AWAY-{number}") for number in range(5)))
    again = connection_to(venue, host)
    async with connected(again):
        await again.ready()
        await until(lambda: len(host.reports) == 5)
        await settled(venue, host, again)
        assert len(venue.seen("in", "2")) == 1
        await venue.send(report("A-1", "LIVE"))
        await until(lambda: len(host.reports) == 6)
    assert exec_ids(host) == [*(f"AWAY-{number}" for number in range(5)), "LIVE"]


async def test_a_venue_that_died_and_came_back_goes_on_with_the_same_numbers(venue: Engine) -> None:
    host = Host()
    connection = connection_to(venue, host)
    async with connected(connection):
        await connection.ready()
        for life in range(3):
            await host.send(connection, order(f"A-{life}"))
            await until(lambda seen=2 * (life + 1): len(host.reports) == seen)  # type: ignore[misc]
            await venue.end(kill=True)
            await until(lambda: not connection.view().ready)
            await venue.start()
            await connection.ready()
        await settled(venue, host, connection)
    assert venue.seen("in", "D", 11) == ["A-0", "A-1", "A-2"]
    assert len(exec_ids(host)) == 6
    logons = [message for message in venue.messages if message.msg_type == "A"]
    assert all(message[141] != "Y" for message in logons)


async def test_a_venue_that_lost_numbers_is_told_and_nothing_is_reset(venue: Engine, caplog: pytest.LogCaptureFixture) -> None:
    """Its Logon has a number that we have seen already: what it may have lost with that, nobody knows. An operator has to."""
    host = Host()
    await host.store.save(None, SESSION, SessionChange(Sequences(50, 1)))
    connection = connection_to(venue, host)
    with caplog.at_level(logging.INFO):
        async with connected(connection):
            await until(lambda: any("too low, expecting 50" in text for text in venue.seen("in", "5", 58)))
    assert connection.view().generation == 0
    assert (await host.store.load(None, SESSION)).next_in == 50


async def test_numbers_of_ours_that_are_too_low_keep_us_out(venue: Engine, caplog: pytest.LogCaptureFixture) -> None:
    host = Host()
    await venue.ask(do="set", next_in=40, next_out=1)
    connection = connection_to(venue, host)
    with caplog.at_level(logging.INFO):
        async with connected(connection):
            reason = "MsgSeqNum too low, expecting 40 but received"
            await until(lambda: any(reason in getattr(record, "reason", "") for record in caplog.records))
    assert connection.view().generation == 0
    assert host.reports == []


async def test_a_wrong_comp_id_gets_no_logon(venue: Engine) -> None:
    host = Host()
    connection = connection_to(venue, host, sender="STRANGER")
    async with connected(connection):
        await until(lambda: len(host.batches) >= 3)  # three Logons were numbered, none was answered
    assert connection.view().generation == 0
    assert venue.logons == 0


async def test_a_reset_that_the_venue_asks_for_is_refused(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """ResetOnLogon makes QuickFIX forget its numbers at our Logon; its answer would have us forget what it owes us."""
    async with running(as_acceptor(tmp_path, free_port(), ResetOnLogon="Y")) as venue:
        host = Host()
        await host.store.save(None, SESSION, SessionChange(Sequences(7, 7)))
        connection = connection_to(venue, host)
        async with connected(connection):
            await until(lambda: len(venue.seen("in", "5", 58)) >= 1)
    assert connection.view().generation == 0
    assert (await host.store.load(None, SESSION)).next_in == 7


async def test_we_log_out_cleanly(venue: Engine) -> None:
    host = Host()
    connection = connection_to(venue, host)
    async with connected(connection) as task:
        await connection.ready()
        await host.send(connection, order("A-1"))
        await until(lambda: len(host.reports) == 2)
        await connection.stop()
        await until(task.done)
    await until(lambda: venue.logouts == 1)
    assert len(venue.seen("in", "5")) == len(venue.seen("out", "5")) == 1
    ours = await host.store.load(None, SESSION)
    assert await venue.numbers() == (ours.next_out, ours.next_in)


async def test_quickfix_logs_out_cleanly_and_we_come_back(venue: Engine) -> None:
    host = Host()
    connection = connection_to(venue, host)
    async with connected(connection):
        await connection.ready()
        await venue.ask(do="logout", text="end of day")
        await until(lambda: venue.logouts == 1)
        await until(lambda: not connection.view().ready)
        await venue.ask(do="logon")
        await until(lambda: connection.view().ready)
        await settled(venue, host, connection)
    assert len(venue.seen("in", "5")) == len(venue.seen("out", "5")) == 1


@pytest.mark.parametrize("seed", [1, 2])
async def test_whatever_fails_on_the_way_nothing_is_lost_and_nothing_comes_twice(venue: Engine, seed: int) -> None:
    """Commits that fail or whose answer is lost, connections that break: what was stored arrives once, every report is recorded once."""
    chance = random.Random(seed)
    failing = [True]

    def fail(batch: InboundBatch | None = None) -> None:
        if failing and chance.random() < 0.04:
            raise UnavailableError(Reason.DATABASE_UNAVAILABLE, "a fault of the test")

    host = Host(before_commit=fail, after_commit=fail)
    stored: list[str] = []

    async def persist(number: Number) -> None:
        fail()
        identity = f"A-{len(stored)}"
        await host.store.save(None, SESSION, number([order(identity)]))
        stored.append(identity)
        fail()

    connection = connection_to(venue, host)
    async with connected(connection):
        for _ in range(150):
            await connection.ready()
            with suppress(UnavailableError):
                await connection.transmit(persist)
        failing.clear()
        await connection.ready()
        assert await connection.transmit(persist)
        await until(lambda: len(host.reports) >= 2 * len(stored))
        await settled(venue, host, connection)
    assert venue.seen("in", "D", 11) == stored
    assert sorted(exec_ids(host)) == sorted({f"QF-{number}" for number in range(1, 2 * len(stored) + 1)})
    assert venue.logons > 3


async def test_a_message_that_quickfix_refuses_is_told_to_the_router(venue: Engine) -> None:
    host = Host()
    connection = connection_to(venue, host)
    async with connected(connection):
        await connection.ready()
        bad = AppMessage("D", [*order("A-1").body[:1], (999, "x"), *order("A-1").body[1:]], "A-1")
        change = await host.send(connection, bad)
        assert change is not None
        await until(lambda: len(host.reports) == 1)
        await settled(venue, host, connection)
    (refused,) = host.reports
    assert isinstance(refused, MessageRefused)
    assert (refused.sequence, refused.msg_type) == (change.stored[0].sequence, "D")
