"""Numbers of one session over connections that break at bad moments."""

from __future__ import annotations

import asyncio

from kernel.fix.steps import Sequences
from svc_oms.fix.ports import Number
from tests.wire.fix.parts import SESSION, Host, Venue, connection_to, order, running, until


class WatchedHost(Host):
    """A host that notes what it gave each connection to begin with."""

    def __init__(self) -> None:
        super().__init__()
        self.loaded: list[Sequences] = []

    async def load(self) -> Sequences:
        self.loaded.append(await super().load())
        return self.loaded[-1]


async def test_the_next_connection_waits_for_a_send_that_is_still_being_stored() -> None:
    """Found by simulation: numbers that were read too early were given twice, to stored orders and to the next Logon."""
    venue, host = Venue(), WatchedHost()
    async with venue.serving():
        connection = connection_to(venue, host)
        async with running(connection):
            await connection.ready()
            numbered, leave = asyncio.Event(), asyncio.Event()

            async def persist(number: Number) -> None:
                change = number([order("A-1"), order("A-2")])
                numbered.set()
                await leave.wait()
                await host.store.save(None, SESSION, change)

            sending = asyncio.create_task(connection.transmit(persist))
            await numbered.wait()
            venue.disconnect()
            await until(lambda: not connection.view().ready)
            done, _ = await asyncio.wait([sending], timeout=0.1)
            assert not done
            assert len(host.loaded) == 1, "the next connection read the numbers while they were about to move"
            leave.set()
            assert await sending
            await until(lambda: sorted(venue.received()) == ["A-1", "A-2"])
            assert host.loaded[1].next_out == 4
