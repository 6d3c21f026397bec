"""The matching engine: pure, integer, price-time priority. Commands are decided into events, events fold into state."""

from collections.abc import Callable, Mapping

from sandbox.exchange.engine import commands
from sandbox.exchange.engine.commands import Command
from sandbox.exchange.engine.decide import decide
from sandbox.exchange.engine.events import Event
from sandbox.exchange.engine.state import Retention, VenueState
from sandbox.exchange.instruments import Instrument

Observer = Callable[[Event], None]


class Engine:
    """Decides commands one at a time and folds their events.

    Args:
        instruments: what trades.
        retention: how much closed business is kept in memory.
        state: a restored state to go on from; its instruments and retention apply.
        observer: called with each event right after it was folded, so that it sees the state the event left.
    """

    def __init__(
        self,
        instruments: Mapping[str, Instrument],
        retention: Retention | None = None,
        state: VenueState | None = None,
        observer: Observer | None = None,
    ) -> None:
        self.state = VenueState(instruments, retention) if state is None else state
        self._observer = observer

    def execute(self, command: Command) -> list[Event]:
        """Decide and fold `command`, after whatever the passing of time until then brings. Returns all events, in order.

        Time never runs backwards: an earlier `time_ns` counts as the state's time.
        """
        if command.time_ns < self.state.time_ns:
            command = command._replace(time_ns=self.state.time_ns)
        happened: list[Event] = []
        if command.time_ns >= self.state.next_boundary_ns and not isinstance(command, commands.AdvanceTime):
            self._fold(decide(self.state, commands.AdvanceTime(command.time_ns)), happened)
        self._fold(decide(self.state, command), happened)
        return happened

    def _fold(self, decided: list[Event], happened: list[Event]) -> None:
        evolve, observer = self.state.evolve, self._observer
        for event in decided:
            evolve(event)
            if observer is not None:
                observer(event)
        happened += decided
