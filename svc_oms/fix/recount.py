"""What to ask after a venue has skipped numbers (SequenceReset-Reset): a fill may have been among them, and nobody will send it again.

A mass status (35=AF) tells how the venue's open orders stand; an acknowledged order that it does not mention has ended there, or is not
known there, and is asked for by itself (35=H). What the answers say is judged where all reports are: a quantity that our fills do not
sum to is recorded with the order, for somebody to look at.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from enum import Enum, auto

from kernel.fix import tags
from svc_oms.domain import ReportKind
from svc_oms.fix.reports import InboundReport, MassStatusEnd, MessageRefused, OrderReport
from svc_oms.fix.routing import LinkView, is_due

_STATUSES = frozenset({ReportKind.STATUS, ReportKind.UNKNOWN_ORDER})


class _Stage(Enum):
    REST = auto()
    BEGIN = auto()
    MASS = auto()
    """The mass status was asked for."""
    SINGLE = auto()
    """What it did not mention is asked for one by one."""


class Recount:
    """One venue's recount, by one process. It forgets with the process: that numbers were skipped stands in the log."""

    def __init__(self) -> None:
        self._stage = _Stage.REST
        self._request_id = ""
        self._generation = 0
        self._asked_at: datetime | None = None
        self._ended = False
        self._mentioned: set[str] = set()
        self._missing: dict[str, datetime | None] = {}

    def begin(self) -> None:
        """Count everything again, whatever was counted so far."""
        self._stage = _Stage.BEGIN
        self._mentioned.clear()
        self._missing.clear()

    def wants_mass_status(self, link: LinkView) -> bool:
        """Whether to ask for a mass status now. One that a lost connection took along is asked for again."""
        if self._stage is _Stage.MASS and link.generation != self._generation:
            self.begin()
        return self._stage is _Stage.BEGIN and link.ready and link.synchronised

    def asks_all(self, request_id: str, generation: int, now: datetime) -> None:
        """The mass status is being sent; where that fails, `begin` again."""
        self._stage, self._request_id, self._generation, self._asked_at, self._ended = _Stage.MASS, request_id, generation, now, False

    def heard(self, reports: Iterable[InboundReport]) -> None:
        """Note what came in, once it is recorded."""
        if self._stage not in (_Stage.MASS, _Stage.SINGLE):
            return
        for report in reports:
            if isinstance(report, OrderReport):
                self._note(report)
            elif isinstance(report, MassStatusEnd):
                self._ended = self._ended or report.request_id == self._request_id
            elif isinstance(report, MessageRefused):
                self._ended = self._ended or report.msg_type == tags.ORDER_MASS_STATUS_REQUEST

    def _note(self, report: OrderReport) -> None:
        if self._stage is _Stage.SINGLE and report.report.kind in _STATUSES:
            self._missing.pop(report.order_id, None)
        elif report.mass_status_request_id == self._request_id:
            self._mentioned.add(report.order_id)

    def wants_orders(self, now: datetime) -> bool:
        """Whether the mass status is answered, or will not be, and `compare` waits for the orders that are open with us."""
        return self._stage is _Stage.MASS and (self._ended or is_due(self._asked_at, now))

    def compare(self, order_ids: Iterable[str]) -> None:
        """Ask for the orders that the mass status did not mention."""
        self._stage = _Stage.SINGLE
        self._missing = {order_id: None for order_id in order_ids if order_id not in self._mentioned}
        self._mentioned.clear()

    def due(self, now: datetime, limit: int) -> tuple[str, ...]:
        """Return orders to ask for now, at most `limit`; each again after `STATUS_RETRY_SECONDS` without an answer."""
        found: list[str] = []
        for order_id, asked_at in self._missing.items():
            if len(found) == limit:
                break
            if is_due(asked_at, now):
                found.append(order_id)
        return tuple(found)

    def asks(self, order_ids: Iterable[str], now: datetime) -> None:
        """Status requests for these orders are being sent."""
        self._missing.update((order_id, now) for order_id in order_ids if order_id in self._missing)

    def settle(self, order_ids: Iterable[str]) -> None:
        """These orders need no answer: they have ended, or were never acknowledged and are asked for anyway."""
        for order_id in order_ids:
            self._missing.pop(order_id, None)
