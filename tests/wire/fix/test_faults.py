"""Whatever fails between the store, the socket and the venue: what was stored arrives once, what was reported is recorded once."""

from __future__ import annotations

import random
from contextlib import suppress

import pytest

from kernel.errors import Reason, UnavailableError
from svc_oms.fix.ports import InboundBatch, Number
from svc_oms.fix.reports import OrderReport
from tests.wire.fix.parts import SESSION, Host, Venue, connection_to, order, report, running, until

FAULT_PROBABILITY = 0.15


class Faults:
    """Fails at random, reproducibly, until told to stop."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.active = True

    def strike(self) -> bool:
        return self.active and self.random.random() < FAULT_PROBABILITY

    def raise_sometimes(self, batch: InboundBatch) -> None:
        if self.strike():
            raise UnavailableError(Reason.DATABASE_UNAVAILABLE, "a fault of the test")


@pytest.mark.parametrize("seed", range(6))
async def test_nothing_is_lost_or_counted_twice(seed: int) -> None:
    faults, host, venue = Faults(seed), Host(), Venue()
    host.before_commit = host.after_commit = faults.raise_sometimes
    venue.answer = lambda message: [report(message.require(11), f"E-{message.require(11)}", "F", quantity="1")]
    stored: list[str] = []
    async with venue.serving():
        connection = connection_to(venue, host)
        async with running(connection):
            for number in range(40):
                await connection.ready()

                async def persist(assign: Number, identity: str = f"A-{number}") -> None:
                    if faults.strike():
                        raise UnavailableError(Reason.DATABASE_UNAVAILABLE, "before the commit")
                    await host.store.save(None, SESSION, assign([order(identity)]))
                    stored.append(identity)
                    if faults.strike():
                        raise UnavailableError(Reason.DATABASE_UNAVAILABLE, "the answer was lost")

                with suppress(UnavailableError):
                    await connection.transmit(persist)
                if faults.strike():
                    venue.disconnect()
            faults.active = False
            await connection.ready()
            await host.send(connection, order("LAST"))
            stored.append("LAST")
            await until(lambda: len(venue.requests) >= len(stored) and len(host.reports) >= len(stored))
            await until(lambda: connection.view().synchronised)
    assert venue.received() == stored
    assert [item.report.exec_id for item in host.reports if isinstance(item, OrderReport)] == [f"E-{identity}" for identity in stored]
