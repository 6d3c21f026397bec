"""The connection over real sockets, against a scripted acceptor."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from kernel.breaker import Breaker
from kernel.errors import LeaseLostError, Reason, UnavailableError
from kernel.fix.steps import Sequences
from svc_oms.domain import ReportKind
from svc_oms.fix.ports import InboundBatch, Number
from svc_oms.fix.reports import OrderReport
from tests.wire.fix.parts import SESSION, Host, Venue, connection_to, order, report, running, until


@pytest.fixture
async def venue() -> AsyncIterator[Venue]:
    venue = Venue()
    async with venue.serving():
        yield venue


def exec_ids(host: Host) -> list[str]:
    return [item.report.exec_id for item in host.reports if isinstance(item, OrderReport)]


async def test_an_order_is_stored_sent_and_filled(venue: Venue) -> None:
    host = Host()
    venue.answer = lambda message: [report(message.require(11), "E-1"), report(message.require(11), "E-2", "F", quantity="100")]
    connection = connection_to(venue, host)
    async with running(connection):
        await connection.ready()
        change = await host.send(connection, order("A-1"))
        assert change is not None
        assert change.stored[0].sequence == 2
        await until(lambda: len(host.reports) == 2)
    assert venue.received() == ["A-1"]
    kinds = [item.report.kind for item in host.reports if isinstance(item, OrderReport)]
    assert kinds == [ReportKind.ACKNOWLEDGED, ReportKind.TRADE]
    assert await host.store.load(None, SESSION) == Sequences(4, 3)


async def test_what_one_read_brings_is_one_batch(venue: Venue) -> None:
    host = Host()
    connection = connection_to(venue, host)
    async with running(connection):
        await connection.ready()
        await until(lambda: venue.active)
        venue.push(*(report("A-1", f"E-{number}") for number in range(300)))
        await until(lambda: len(host.reports) == 300)
    assert exec_ids(host) == [f"E-{number}" for number in range(300)]
    assert sum(1 for batch in host.batches if batch.reports) <= 3


async def test_nothing_is_written_before_it_is_stored(venue: Venue) -> None:
    host = Host()
    connection = connection_to(venue, host)
    async with running(connection):
        await connection.ready()
        await until(lambda: venue.active)
        before = venue.bytes_in

        async def persist(number: Number) -> None:
            change = number([order("A-1")])
            for _ in range(50):
                await asyncio.sleep(0)
                assert venue.bytes_in == before
            await host.store.save(None, SESSION, change)

        assert await connection.transmit(persist)
        await until(lambda: venue.received() == ["A-1"])


async def test_a_failed_transaction_before_numbering_changes_nothing(venue: Venue) -> None:
    host = Host()
    connection = connection_to(venue, host)
    async with running(connection):
        await connection.ready()

        async def persist(number: Number) -> None:
            raise UnavailableError(Reason.DATABASE_UNAVAILABLE, "no connection")

        with pytest.raises(UnavailableError):
            await connection.transmit(persist)
        assert connection.view().ready
        await host.send(connection, order("A-1"))
        await until(lambda: venue.received() == ["A-1"])
    assert venue.connections == 1


async def test_a_failed_transaction_after_numbering_starts_again_from_the_store(venue: Venue) -> None:
    """The number that was lost with the transaction is used again by the next Logon: it was never written."""
    host = Host()
    connection = connection_to(venue, host)
    async with running(connection):
        await connection.ready()

        async def persist(number: Number) -> None:
            number([order("LOST")])
            raise UnavailableError(Reason.DATABASE_UNAVAILABLE, "gone")

        with pytest.raises(UnavailableError):
            await connection.transmit(persist)
        await until(lambda: connection.view().generation == 2)
        await host.send(connection, order("A-2"))
        await until(lambda: venue.received() == ["A-2"])


@pytest.mark.parametrize(("kept", "received"), [(True, ["A-1", "A-2"]), (False, ["A-2"])])
async def test_a_commit_whose_answer_was_lost_is_repaired_by_the_venues_resend_request(
    venue: Venue, kept: bool, received: list[str]
) -> None:
    """Stored, never written. The venue sees the gap; the policy says whether the order still goes, once."""
    host = Host(keep=lambda message: kept)
    connection = connection_to(venue, host)
    async with running(connection):
        await connection.ready()

        async def persist(number: Number) -> None:
            await host.store.save(None, SESSION, number([order("A-1")]))
            raise UnavailableError(Reason.DATABASE_UNAVAILABLE, "the answer was lost")

        with pytest.raises(UnavailableError):
            await connection.transmit(persist)
        await until(lambda: connection.view().generation == 2)
        await connection.ready()
        await host.send(connection, order("A-2"))
        await until(lambda: venue.received() == received)
        await until(lambda: connection.view().synchronised)
    assert venue.resent_requests == (["A-1"] if kept else [])


async def test_reports_whose_commit_failed_come_again_and_count_once(venue: Venue) -> None:
    host = Host()
    failing = [True]

    def fail_once(batch: InboundBatch) -> None:
        if batch.reports and failing:
            failing.clear()
            raise UnavailableError(Reason.DATABASE_UNAVAILABLE, "no connection")

    host.before_commit = fail_once
    connection = connection_to(venue, host)
    async with running(connection):
        await connection.ready()
        await until(lambda: venue.active)
        venue.push(report("A-1", "E-1"), report("A-1", "E-2"))
        await until(lambda: len(host.reports) >= 2)
        await until(lambda: connection.view().synchronised)
    assert exec_ids(host) == ["E-1", "E-2"]
    assert venue.connections == 2


async def test_reports_whose_commit_succeeded_unseen_do_not_come_again(venue: Venue) -> None:
    host = Host()
    failing = [True]

    def lose_once(batch: InboundBatch) -> None:
        if batch.reports and failing:
            failing.clear()
            raise UnavailableError(Reason.DATABASE_UNAVAILABLE, "the answer was lost")

    host.after_commit = lose_once
    connection = connection_to(venue, host)
    async with running(connection):
        await connection.ready()
        await until(lambda: venue.active)
        venue.push(report("A-1", "E-1"))
        await until(lambda: connection.view().generation == 2)
        await until(lambda: venue.active)
        venue.push(report("A-1", "E-2"))
        await until(lambda: len(host.reports) >= 2)
    assert exec_ids(host) == ["E-1", "E-2"]


async def test_reports_sent_while_we_were_away_come_after_the_logon(venue: Venue) -> None:
    host = Host()
    connection = connection_to(venue, host)
    async with running(connection):
        await connection.ready()
        await until(lambda: venue.active)
        venue.disconnect()
        venue.push(report("A-1", "E-1"))
        await until(lambda: exec_ids(host) == ["E-1"])
        await until(lambda: connection.view().synchronised)


async def test_after_the_lease_nothing_is_written(venue: Venue) -> None:
    held = [True]
    host = Host()
    connection = connection_to(venue, host, still_mine=lambda: held[0])
    async with running(connection) as task:
        await connection.ready()
        await until(lambda: venue.active)
        before = venue.bytes_in

        async def persist(number: Number) -> None:
            await host.store.save(None, SESSION, number([order("A-1")]))
            held[0] = False

        assert await connection.transmit(persist), "stored, so its fate is for the next owner"
        await until(task.done)
        assert await connection.transmit(persist) is False
    assert venue.bytes_in == before
    assert venue.received() == []


async def test_a_takeover_mid_send_delivers_the_order_once(venue: Venue) -> None:
    """The first owner stored and lost its lease before the write; the second one finds it in the store."""
    held = [True]
    host = Host()
    first = connection_to(venue, host, still_mine=lambda: held[0])
    async with running(first) as task:
        await first.ready()

        async def persist(number: Number) -> None:
            await host.store.save(None, SESSION, number([order("A-1")]))
            held[0] = False

        await first.transmit(persist)
        await until(task.done)
    second = connection_to(venue, host)
    async with running(second):
        await second.ready()
        await until(lambda: venue.received() == ["A-1"])
        await host.send(second, order("A-2"))
        await until(lambda: venue.received() == ["A-1", "A-2"])
    assert venue.resent_requests == ["A-1"]


async def test_a_transaction_that_finds_the_lease_lost_ends_the_session(venue: Venue) -> None:
    host = Host()
    connection = connection_to(venue, host)
    async with running(connection) as task:
        await connection.ready()

        async def persist(number: Number) -> None:
            raise LeaseLostError("fix/XSIM", 3)

        with pytest.raises(LeaseLostError):
            await connection.transmit(persist)
        await until(task.done)


async def test_synchronise_shows_what_the_venue_has_processed(venue: Venue) -> None:
    host = Host()
    connection = connection_to(venue, host)
    async with running(connection):
        await connection.ready()
        change = await host.send(connection, order("A-1"))
        assert change is not None
        assert connection.view().confirmed_sequence == 0
        assert await connection.synchronise()
        await until(lambda: connection.view().confirmed_sequence > change.stored[0].sequence)


async def test_stop_logs_out(venue: Venue) -> None:
    host = Host()
    connection = connection_to(venue, host)
    async with running(connection) as task:
        await connection.ready()
        await connection.stop()
        await until(task.done)
        assert task.exception() is None
    assert venue.sequences == Sequences(3, 3)
    assert await host.store.load(None, SESSION) == Sequences(3, 3)


async def test_an_unreachable_venue_opens_the_breaker_and_is_tried_again() -> None:
    venue = Venue()
    venue.refuse_connections = True
    async with venue.serving():
        host = Host()
        breaker = Breaker("venue XSIM", failures_max=3, reset_seconds=0.05)
        connection = connection_to(venue, host, breaker=breaker, jitter=lambda: 0.0)
        async with running(connection):
            assert await connection.transmit(_never) is False
            await until(lambda: breaker.state == "open")
            venue.refuse_connections = False
            await connection.ready()
            await until(lambda: breaker.state == "closed")


async def test_a_bug_of_the_host_ends_the_connection_loudly(venue: Venue) -> None:
    host = Host()
    connection = connection_to(venue, host)

    def fail(batch: InboundBatch) -> None:
        if batch.reports:
            raise KeyError("bug")

    host.before_commit = fail
    task = asyncio.create_task(connection.run())
    await connection.ready()
    await until(lambda: venue.active)
    venue.push(report("A-1", "E-1"))
    with pytest.raises(KeyError):
        await task
    assert not connection.view().ready


async def _never(number: Number) -> None:
    raise AssertionError("not logged on: must not be called")
