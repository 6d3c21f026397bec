"""The market data service between the venue and risk: its real reader of the feed, its real books and its real stream of reference prices,
on a host of its own. Datagrams travel late, in any order, or not at all; what is missing is asked of the venue, as in the field.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from kernel.itch.glimpse import Snapshot
from kernel.itch.moldudp64 import Request
from kernel.server_policy import ServiceBinding, inside
from sandbox.exchange.market_data.channels import BoundPorts, ChannelSettings, MarketDataServer
from sandbox.exchange.market_data.publisher import FeedSettings, ItchPublisher
from sandbox.exchange.market_data.session_names import SessionNames
from svc_marketdata.config import FeedAddresses
from svc_marketdata.domain import Bust, RecordedTrade, Venue
from svc_marketdata.itch.liveness import Liveness
from svc_marketdata.itch.receiver import TICK_SECONDS, FeedReceiver
from svc_marketdata.main import PRICE_READERS
from svc_marketdata.servicer.feed import MarketFeed
from svc_marketdata.servicer.reference_prices import ReferencePriceServicer
from tests.simulation.chain.hosts import Host
from tests.simulation.chain.loop import SimClock, SimLoop
from tests.simulation.chain.network import Network
from tests.simulation.chain.rpc import Switchboard
from trademesh.marketdata.v1 import reference_price_service_pb2

ADDRESS = "market-data"
_CLOCK_OFFSET_SECONDS = 0.04
_NOWHERE = FeedAddresses((("", 0), ("", 0)), ("", 0), ("", 0), frozenset())


class Air:
    """The feed's way through the network: who sends it now, and who hears it now."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.feed: SimFeed | None = None
        self.receiver: SimReceiver | None = None

    def carry(self, here: Host, there: Host, deliver: Callable[[], object]) -> None:
        """Carry a datagram: it arrives after a while, perhaps behind later ones, unless it is lost."""
        network = self.network
        cut = network.healed_at(here, there) > network.loop.time()
        if here.alive and not cut and network.dice.random() >= network.weather.loss_share:
            network.loop.call_later(network.latency(), lambda: there.alive and deliver(), context=there.context.copy())


class SimFeed(MarketDataServer):
    """The venue's feed without sockets."""

    def __init__(self, air: Air, host: Host, clock: SimClock, session_file: Path) -> None:
        super().__init__(ChannelSettings({}), clock, session_file)
        self.publisher = ItchPublisher(FeedSettings(), clock, SessionNames(session_file), self._transmit, self._pump_soon)
        self.host = host
        self._air = air

    async def start(self) -> BoundPorts:
        """See `MarketDataServer.start`."""
        self._air.feed = self
        return BoundPorts(0, 0)

    def _transmit(self, line: str, packet: bytes) -> None:
        receiver = self._air.receiver
        if receiver is not None:
            self._air.carry(self.host, receiver.host, lambda: receiver.hear(line, packet))

    def answer(self, request: Request, receiver: SimReceiver) -> None:
        """Answer a re-request."""
        for packet in self.publisher.answer(request):
            self._air.carry(self.host, receiver.host, lambda packet=packet: receiver.hear("requests", packet))  # type: ignore[misc]


class SimReceiver(FeedReceiver):
    """The service's receiver without sockets."""

    def __init__(self, air: Air, host: Host, venue: Venue, liveness: Liveness, clock: SimClock) -> None:
        super().__init__(_NOWHERE, venue, liveness, clock, fetch=self._fetched)
        self.host = host
        self._air = air

    def hear(self, line: str, packet: bytes) -> None:
        """Take a datagram that has arrived."""
        now = self._clock.monotonic()
        self.follower.receive(line, packet, now, arrived_at=now)
        self._schedule()
        self.on_change()

    async def run(self) -> None:
        """See `FeedReceiver.run`."""
        self._air.receiver = self
        repair = asyncio.create_task(self._repair())
        try:
            while not repair.done():
                self._tick()
                await asyncio.wait({repair}, timeout=TICK_SECONDS)
            repair.result()
        finally:
            repair.cancel()

    def _ask(self, request: Request) -> None:
        feed = self._air.feed
        if feed is not None:
            self._air.carry(self.host, feed.host, lambda: feed.answer(request, self))

    async def _fetched(self, _: Any) -> Snapshot:
        network, feed = self._air.network, self._air.feed
        if feed is None or network.healed_at(self.host, feed.host) > network.loop.time():
            raise ConnectionRefusedError("the venue cannot be reached")
        await asyncio.sleep(network.latency())
        source = feed.publisher.snapshot()
        if source is None or not feed.host.alive:
            raise ConnectionRefusedError("the venue is down")
        messages = tuple(source.messages)
        await asyncio.sleep(network.latency())
        return Snapshot(source.session, source.next_sequence, messages)


class _NoRecord:
    """Trades are not written down here."""

    def take(self, told: Sequence[RecordedTrade | Bust]) -> None:
        """See `TradeSink.take`."""


class MarketDataHost:
    """A replica over any number of lives; each begins with nothing but what the feed says."""

    def __init__(self, loop: SimLoop, air: Air, switchboard: Switchboard, venue_name: str) -> None:
        self.host = Host(ADDRESS, loop)
        self.host.alive = False
        self._loop = loop
        self._air = air
        self._switchboard = switchboard
        self._venue_name = venue_name

    def start(self) -> None:
        """Begin a life. See `svc_marketdata.main.serve`."""
        assert not self.host.alive
        self.host = Host(ADDRESS, self._loop)
        clock, venue, liveness = SimClock(self._loop, _CLOCK_OFFSET_SECONDS), Venue(), Liveness()
        receiver = SimReceiver(self._air, self.host, venue, liveness, clock)
        feed = MarketFeed(self._venue_name, venue, liveness, lambda: receiver.is_recovering, _NoRecord(), clock)
        receiver.on_change = feed.notify
        service: Any = reference_price_service_pb2.DESCRIPTOR.services_by_name["ReferencePriceService"]
        policies = {"StreamReferencePrices": inside(*PRICE_READERS, write=False)}
        self._switchboard.serve(ADDRESS, self.host, [ServiceBinding(service, ReferencePriceServicer(feed, clock), policies)])
        self.host.spawn(receiver.run(), name=ADDRESS)

    def kill(self) -> None:
        """End it."""
        self.host.kill()
