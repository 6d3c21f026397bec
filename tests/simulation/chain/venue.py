"""The venue: the sandbox exchange whole, its servers on the simulated network and its journal in a folder that outlives its crashes."""

from __future__ import annotations

import json
from pathlib import Path

from sandbox.exchange.exchange import Exchange, ExchangeSettings
from sandbox.exchange.flow import FlowSettings
from sandbox.exchange.instruments import Instrument, parse_instruments
from sandbox.exchange.journal import JournalError, JournalLimits
from sandbox.exchange.members import Credentials
from sandbox.exchange.server import ExchangeServer
from svc_oms.config import Venue
from tests.simulation.chain.hosts import Host
from tests.simulation.chain.loop import SimClock, SimLoop
from tests.simulation.chain.market_data import Air, SimFeed

VENUE = "XSIM"
MEMBER = "TRADEMESH"
PASSWORD = "a secret of this simulation"
FIX_PORT = 9_001
FLOW_TICKS_PER_SECOND = 2.0
_NUMBER_MAX = 1 << 31

INSTRUMENTS = {
    "AAPL": {"kind": "equity", "tick": "0.01", "lot": "1", "quantity_max": "10000", "prior_close": "100"},
    "BTC-USD": {"kind": "crypto", "tick": "0.5", "lot": "0.0001", "quantity_max": "10", "prior_close": "50000"},
}
"""What trades, around the clock."""

SESSION = Venue(VENUE, "venue", FIX_PORT, MEMBER, VENUE, MEMBER.lower(), PASSWORD, heartbeat_seconds=5)
"""Our session there, as svc_oms is configured for it."""


def _instruments() -> dict[str, Instrument]:
    always = {"timezone": "UTC", "days": ["mon", "tue", "wed", "thu", "fri", "sat", "sun"], "open": "00:00", "close": "24:00"}
    listed = [
        {"symbol": symbol, "name": symbol, "currency": "USD", "notional_max": "1000000", "calendar": "continuous", **fields}
        for symbol, fields in INSTRUMENTS.items()
    ]
    return parse_instruments(json.dumps({"calendars": {"continuous": always}, "instruments": listed}))


class VenueHost:
    """The exchange over any number of lives."""

    def __init__(self, loop: SimLoop, air: Air, journal: Path, seed: int) -> None:
        self._loop = loop
        self._air = air
        self._settings = ExchangeSettings(
            VENUE,
            _instruments(),
            {MEMBER: Credentials(MEMBER, MEMBER.lower(), PASSWORD)},
            journal,
            seed=seed,
            flow=FlowSettings(maker_count=2, levels=3, taker_percent=40),
            journal=JournalLimits(),
        )
        self.host = Host("venue", loop)
        self.server: ExchangeServer | None = None

    @property
    def exchange(self) -> Exchange | None:
        """The running exchange, None while it is down."""
        return self.server.exchange if self.server is not None and self.host.alive else None

    async def start(self) -> None:
        """Begin a life on the journal of the ones before."""
        if not self.host.alive:
            self.host = Host("venue", self._loop)
        await self.host.spawn(self._start())

    async def _start(self) -> None:
        clock = SimClock(self._loop)
        feed = SimFeed(self._air, self.host, clock, self._settings.journal_directory / "market-data-session.json")
        server = ExchangeServer(Exchange(self._settings, clock, feed.publisher), FLOW_TICKS_PER_SECOND, feed)
        self.server = server
        self.host.on_death(lambda: _fall_silent(server))
        await server.start("venue", FIX_PORT, None)

    def owes(self, next_in: int) -> bool:
        """Say whether a message of our session has this number or a later one."""
        return self.exchange is None or any(True for _ in self.exchange.journal.load(MEMBER, next_in, _NUMBER_MAX))

    def kill(self) -> None:
        """Die between two commits."""
        self.host.kill()

    def control(self, operation: str, **fields: object) -> dict[str, object]:
        """Give an operator's order; nothing happens while the venue is down."""
        if self.server is None or not self.host.alive:
            return {"ok": False}
        answer: dict[str, object] = json.loads(self.server.control.handle(json.dumps({"op": operation, **fields})))
        self.server.guard(self.server.exchange.commit)
        return answer


def _fall_silent(server: ExchangeServer) -> None:
    """Callbacks of the dead process that are still under way do nothing any more."""
    server.failure = JournalError("killed")
    if server._pulse_handle is not None:
        server._pulse_handle.cancel()
    server.exchange.journal.close()
