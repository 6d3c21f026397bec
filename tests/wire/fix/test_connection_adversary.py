"""What races, venues that err, and stops at the wrong moment do to the connection."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

import pytest

from kernel.fix.steps import ResendRange, Sequences, StoredMessage
from svc_oms.fix.reports import NumbersSkipped, OrderReport, UnreadableReport
from tests.wire.fix.parts import SESSION, Host, Venue, connection_to, order, report, running, until


@pytest.fixture
async def venue() -> AsyncIterator[Venue]:
    venue = Venue()
    async with venue.serving():
        yield venue


@dataclass
class SlowHost(Host):
    """A host whose answers wait for the test."""

    asked: asyncio.Event = field(default_factory=asyncio.Event)
    go: asyncio.Event = field(default_factory=asyncio.Event)

    async def load(self) -> Sequences:
        self.asked.set()
        await self.go.wait()
        return await super().load()


async def test_a_stop_before_the_connection_stands_is_not_forgotten(venue: Venue) -> None:
    host = SlowHost()
    connection = connection_to(venue, host)
    async with running(connection) as task:
        await host.asked.wait()
        await connection.stop()
        host.go.set()
        await until(task.done)
        assert task.exception() is None
    assert venue.sequences == Sequences(), "nobody logged on"
    assert await host.store.load(None, SESSION) == Sequences()


async def test_numbers_that_the_venue_skips_are_recorded_and_everything_is_counted_again(venue: Venue) -> None:
    host = Host()
    connection = connection_to(venue, host)
    async with running(connection):
        await connection.ready()
        await until(lambda: venue.active)
        assert not connection.recount.wants_mass_status(connection.view())
        venue.skip(3)
        venue.push(report("A-1", "E-1"))
        await until(lambda: len(host.reports) == 2)
        await until(lambda: connection.recount.wants_mass_status(connection.view()))
        assert await host.store.load(None, SESSION) == Sequences(6, 2)
    assert host.reports[0] == NumbersSkipped("the peer skipped 2 to 4")


async def test_a_report_that_the_session_refused_is_recorded_with_its_number(venue: Venue) -> None:
    host = Host()
    connection = connection_to(venue, host)
    async with running(connection):
        await connection.ready()
        await until(lambda: venue.active)
        fill = report("A-1", "E-1", "F", quantity="100")
        venue.push(fill._replace(body=[*fill.body, (75, "today")]), report("A-1", "E-2"))
        await until(lambda: len(host.reports) == 2)
        assert connection.view().ready
    unreadable, readable = sorted(host.reports, key=lambda item: isinstance(item, OrderReport))
    assert isinstance(unreadable, UnreadableReport)
    assert unreadable.sequence == 2
    assert b"\x0117=E-1\x01" in unreadable.raw
    assert isinstance(readable, OrderReport)
    (batch,) = [batch for batch in host.batches if batch.reports]
    assert batch.change.sequences.next_in == 4, "its number passed in the commit that records it"


async def test_a_report_is_judged_by_what_was_confirmed_before_it(venue: Venue) -> None:
    """ "Unknown order", then the answer that confirms our messages, in one read: the report is older than the confirmation."""
    host = Host()
    connection = connection_to(venue, host)
    async with running(connection):
        await connection.ready()
        await host.send(connection, order("A-1"))
        await until(lambda: venue.received() == ["A-1"])
        venue.push_and_confirm(2, report("A-1", "0", "I"))
        await until(lambda: len(host.reports) == 1)
        await until(lambda: connection.view().confirmed_sequence == 2)
        venue.push(report("A-1", "0", "I"))
        await until(lambda: len(host.reports) == 2)
    first, second = [batch for batch in host.batches if batch.reports]
    assert (first.confirmed_sequence, second.confirmed_sequence) == (0, 2)


@dataclass
class ResendingHost(Host):
    """A host that lets the test look in while a resend is decided."""

    deciding: asyncio.Event = field(default_factory=asyncio.Event)
    go: asyncio.Event = field(default_factory=asyncio.Event)

    async def messages_to_resend(self, wanted: ResendRange) -> Sequence[StoredMessage]:
        self.deciding.set()
        await self.go.wait()
        return await super().messages_to_resend(wanted)


async def test_nothing_live_goes_out_between_resent_messages(venue: Venue) -> None:
    host = ResendingHost()
    connection = connection_to(venue, host)
    async with running(connection):
        await connection.ready()
        await host.send(connection, *(order(f"A-{number}") for number in range(3)))
        await until(lambda: len(venue.requests) == 3)
        venue.sequences = Sequences(2, venue.sequences.next_out)  # it forgets the orders
        venue.disconnect()
        await host.deciding.wait()
        live = asyncio.create_task(host.send(connection, order("LIVE")))
        await asyncio.sleep(0)
        host.go.set()
        await live
        await until(lambda: len(venue.requests) >= 6)
        await until(lambda: connection.view().synchronised)
    assert venue.received()[3:6] == ["A-0", "A-1", "A-2"]
    assert venue.received()[6:] in ([], ["LIVE"])
