"""A decision in the making: events so far, and the order as they leave it."""

from __future__ import annotations

from svc_oms.domain.events import Event
from svc_oms.domain.evolve import evolve
from svc_oms.domain.state import Order


class Draft:
    """Collects the events of one decision. Later ones are decided on the state that the earlier ones leave."""

    __slots__ = ("events", "order")

    def __init__(self, order: Order) -> None:
        self.order = order
        self.events: list[Event] = []

    def add(self, event: Event) -> None:
        """Append an event and fold it."""
        self.events.append(event)
        self.order = evolve(self.order, event)

    def done(self) -> tuple[Event, ...]:
        """Return the events."""
        return tuple(self.events)
