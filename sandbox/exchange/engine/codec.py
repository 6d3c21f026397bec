"""Events as JSON arrays: a stable one-letter kind, then the fields in order. A kind is never given another meaning."""

from collections.abc import Callable
from typing import Any

from sandbox.exchange.engine import events
from sandbox.exchange.engine.events import Event
from sandbox.exchange.engine.vocabulary import CancelReason, OrderType, Side, TimeInForce

KINDS: dict[str, type[Event]] = {
    "L": events.Listed,
    "P": events.PhaseChanged,
    "O": events.OfficialClose,
    "A": events.Accepted,
    "R": events.Rejected,
    "B": events.Booked,
    "T": events.Traded,
    "C": events.Canceled,
    "M": events.Replaced,
    "N": events.ChangeRejected,
    "X": events.Expired,
    "G": events.TradeCorrected,
}
_KIND_OF = {event_type: kind for kind, event_type in KINDS.items()}

_Reader = Callable[[Any], object]
_ENUMS: dict[type[Event], tuple[tuple[int, _Reader], ...]] = {
    event_type: tuple(
        (event_type._fields.index(name), reader)
        for name, reader in (
            ("side", Side), ("taker_side", Side), ("order_type", OrderType), ("time_in_force", TimeInForce), ("reason", CancelReason),
        )
        # Rejected repeats what the client wrote, and the two kinds of rejection name their reason.
        if name in event_type._fields and event_type not in (events.Rejected, events.ChangeRejected)
    )
    for event_type in KINDS.values()
}  # fmt: skip


class UnknownEventError(ValueError):
    """The journal holds something that this release cannot read."""


def encode(event: Event) -> tuple[str, Event]:
    """Return what `json` writes as `[kind, [fields…]]`."""
    return _KIND_OF[type(event)], event


def decode(encoded: list[Any]) -> Event:
    """Rebuild an event from `[kind, [fields…]]`.

    Raises:
        UnknownEventError: another kind, or another number of fields.
    """
    try:
        kind, fields = encoded
        event_type = KINDS[kind]
        for index, reader in _ENUMS[event_type]:
            fields[index] = reader(fields[index])
        return event_type(*fields)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise UnknownEventError(f"not an event: {str(encoded)[:200]}") from error
