"""What a client of the stream is told when it goes on after a break: the source over the log, beside a feed that has not read all of it."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from kernel.errors import InternalError
from kernel.ports import LogPosition, RecordedEvent
from kernel.streams import Mailbox
from svc_oms.domain import Order
from svc_oms.servicer import feed as feed_module
from svc_oms.servicer.feed import OrderFeed, OrderSource, Response
from tests.contract.oms.conftest import Pair
from tests.integration.oms import world
from tests.integration.oms.world import Replica


class LaggingFeed(OrderFeed):
    """A tail that stands still at a place until it is told to go on."""

    def __init__(self, replica: Replica, at: LogPosition) -> None:
        super().__init__(replica.log)
        self._at = at

    async def enter(self, listener: OrderSource) -> LogPosition:
        """See `OrderFeed.enter`."""
        self._listeners.setdefault(listener.account_id, {})[listener] = None
        return self._at

    async def go_on(self) -> None:
        """Hand out everything after the place."""
        for event, order in await self.changes(await self._log.read_after(self._at, 100), self._orders):
            self._hand_out(event, order)


class DefectiveFeed(OrderFeed):
    """A tail that meets a defect at its first events."""

    defects = 1

    async def changes(self, events: Sequence[RecordedEvent], known: dict[str, Order]) -> list[tuple[RecordedEvent, Order]]:
        """See `OrderFeed.changes`."""
        if self.defects:
            self.defects -= 1
            raise ValueError("an event that does not fold")
        return await super().changes(events, known)


@pytest.mark.parametrize("page", [3, 4, 5, 100])
async def test_what_lies_behind_the_feed_in_a_full_page_is_not_lost(pair: Pair, monkeypatch: pytest.MonkeyPatch, page: int) -> None:
    monkeypatch.setattr(feed_module, "_PAGE", page)
    for _ in range(8):
        await pair.one.create(world.order())
    places = [event.position for event in await pair.one.log.read_after(LogPosition(0, 0), 100)]
    assert len(places) == 8
    feed = LaggingFeed(pair.one, at=places[5])
    source = OrderSource(feed, pair.one.reads, pair.one.log, "ACC-1", world.TENANT, "")
    mailbox: Mailbox[Response] = Mailbox()
    await source.resume(str(places[1]), mailbox)
    await feed.go_on()
    came = []
    while (item := await mailbox.take(0.0)) is not None:
        came.append(item.position)
    assert came == [str(place) for place in places[2:]]


async def test_a_token_from_a_feed_that_is_ahead_brings_nothing_twice(pair: Pair) -> None:
    for _ in range(4):
        await pair.one.create(world.order())
    places = [event.position for event in await pair.one.log.read_after(LogPosition(0, 0), 100)]
    feed = LaggingFeed(pair.one, at=places[0])
    source = OrderSource(feed, pair.one.reads, pair.one.log, "ACC-1", world.TENANT, "")
    mailbox: Mailbox[Response] = Mailbox()
    await source.resume(str(places[2]), mailbox)
    await feed.go_on()
    item = await mailbox.take(0.0)
    assert item is not None
    assert item.position == str(places[3])
    assert await mailbox.take(0.0) is None


async def test_after_a_defect_whoever_comes_next_is_told_again(pair: Pair) -> None:
    feed = DefectiveFeed(pair.one.log)
    one, mailbox = OrderSource(feed, pair.one.reads, pair.one.log, "ACC-1", world.TENANT, ""), Mailbox[Response]()
    _ = [item async for item in one.snapshot(mailbox)]
    await pair.one.create(world.order())
    with pytest.raises(InternalError):
        await mailbox.take(10.0)
    # The one that failed has not left yet.
    other, fresh = OrderSource(feed, pair.one.reads, pair.one.log, "ACC-1", world.TENANT, ""), Mailbox[Response]()
    _ = [item async for item in other.snapshot(fresh)]
    await one.close()
    created = await pair.one.create(world.order())
    item = await fresh.take(10.0)
    assert item is not None
    assert item.message.event.order == created.order
    await other.close()
