"""Decide, then evolve: the shape of every aggregate.

`decide(state, command)` returns events or raises; `evolve(state, event)` is the only way that state changes; both are pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from kernel.errors import InternalError, Reason

State = TypeVar("State")
StateOut = TypeVar("StateOut", covariant=True)
Command = TypeVar("Command", contravariant=True)
Event = TypeVar("Event")


class Decider(Protocol[State, Command, Event]):
    """An aggregate's behaviour as three pure parts (after J. Chassaing, "Functional Event Sourcing Decider", 2021)."""

    def initial(self) -> State:
        """Return the state before the first event."""
        ...

    def decide(self, state: State, command: Command) -> Sequence[Event]:
        """Return what happens; nothing if the command changes nothing.

        Raises:
            TrademeshError: the command is refused.
        """
        ...

    def evolve(self, state: State, event: Event) -> State:
        """Return the state after one event. Total: every recorded event folds, whatever the state."""
        ...


@dataclass(frozen=True, slots=True)
class Versioned(Generic[StateOut]):
    """A state and the version of the stream it was folded from; 0 before the first event."""

    state: StateOut
    version: int


class _Numbered(Protocol):
    @property
    def version(self) -> int: ...


Recorded = TypeVar("Recorded", bound=_Numbered)


def fold(evolve: Callable[[State, Event], State], state: State, events: Iterable[Event]) -> State:
    """Return the state after all events, in order."""
    for event in events:
        state = evolve(state, event)
    return state


def replay(
    evolve: Callable[[State, Event], State],
    start: Versioned[State],
    recorded: Iterable[Recorded],
    decode: Callable[[Recorded], Event],
) -> Versioned[State]:
    """Fold recorded events of one stream onto a state, which may be a cached one.

    Raises:
        InternalError: the versions do not continue `start` without a gap; folding on would invent a state.
    """
    state, version = start.state, start.version
    for item in recorded:
        if item.version != version + 1:
            raise InternalError(
                Reason.INTERNAL,
                f"a stream's version {version} is followed by {item.version}",
                metadata={"expected_version": str(version + 1), "actual_version": str(item.version)},
            )
        state = evolve(state, decode(item))
        version = item.version
    return Versioned(state, version)


def decide_all(
    decider: Decider[State, Command, Event], start: Versioned[State], commands: Iterable[Command]
) -> tuple[Versioned[State], list[Sequence[Event]]]:
    """Decide commands of one stream in order, each on the state that the earlier ones leave; return the last state and the events of each.

    A refusal ends it; callers that go on after one catch it per command.
    """
    state, version = start.state, start.version
    decided: list[Sequence[Event]] = []
    for command in commands:
        events = decider.decide(state, command)
        state = fold(decider.evolve, state, events)
        version += len(events)
        decided.append(events)
    return Versioned(state, version), decided
