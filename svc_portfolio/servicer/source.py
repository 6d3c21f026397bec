"""One client's stream of positions (`kernel.streams.Source`)."""

from __future__ import annotations

from collections.abc import AsyncIterator

from kernel.errors import Reason, TrademeshError, UnavailableError
from kernel.event_records import to_position
from kernel.ports import LogPosition
from kernel.streams import Item, Mailbox, PositionExpiredError
from svc_portfolio.codec.positions import position_message, valuation_message
from svc_portfolio.domain.valuation import Holding, Mark
from svc_portfolio.servicer.feed import Moved, PortfolioFeed
from svc_portfolio.servicer.marking import Marker
from svc_portfolio.store.reads import PortfolioReads
from trademesh.portfolio.v1 import portfolio_service_pb2 as pb

SNAPSHOT_POSITIONS_MAX = 500
CATCH_UP_EVENTS_MAX = 20_000
"""Events of the whole log behind which a resumed stream begins with a snapshot instead."""

_ALL = 2**31 - 1
_SNAPSHOT_UNFINISHED = "snapshot"

Response = pb.StreamPortfolioResponse


class PortfolioSource:
    """An account, and perhaps one instrument of it. Changes are told one by one; of marks, the latest of each instrument."""

    def __init__(self, feed: PortfolioFeed, reads: PortfolioReads, marker: Marker, account_id: str, instrument_id: str) -> None:
        self._feed = feed
        self._reads = reads
        self._marker = marker
        self.account_id = account_id
        self._instrument_id = instrument_id
        self._mailbox: Mailbox[Response] | None = None
        self._held: list[Moved] | None = None
        self._after = LogPosition(0, 0)
        self._place = ""
        self._shown: dict[str, int] = {}
        self._holdings: dict[str, Holding] = {}
        self._told: dict[str, Mark] = {}
        self._waiting: tuple[Response, dict[str, pb.Valuation]] | None = None

    async def snapshot(self, mailbox: Mailbox[Response]) -> AsyncIterator[Item[Response]]:
        """See `Source.snapshot`. What happens meanwhile is held back, and left out where the snapshot shows it already."""
        position = await self._begin(mailbox)
        async with self._reads.view() as view:
            # Closed ones too, to know what the snapshot shows of them.
            holdings = await view.holdings(self.account_id, include_closed=True, instrument_id=self._instrument_id, limit=_ALL)
        self._holdings = {holding.instrument_id: holding for holding in holdings}
        self._shown = {holding.instrument_id: holding.position.version for holding in holdings}
        shown = [holding for holding in holdings if holding.position.quantity]
        for start in range(0, max(len(shown), 1), SNAPSHOT_POSITIONS_MAX):
            part = shown[start : start + SNAPSHOT_POSITIONS_MAX]
            complete = start + len(part) == len(shown)
            snapshot = pb.PortfolioSnapshot(
                positions=[position_message(holding, self._mark(holding)) for holding in part],
                complete=complete,
                order_log_position=to_position(view.position),
            )
            # A stream that breaks inside a snapshot begins it anew: what it has seen is only a part.
            yield Item(Response(snapshot=snapshot), str(position) if complete else _SNAPSHOT_UNFINISHED)
        self._after, self._place = position, str(position)
        self._release()

    async def resume(self, position: str, mailbox: Mailbox[Response]) -> None:
        """See `Source.resume`."""
        if position == _SNAPSHOT_UNFINISHED:
            raise PositionExpiredError
        upto = await self._begin(mailbox)
        missed = await self._feed.between(LogPosition.parse(position), upto, self.account_id, CATCH_UP_EVENTS_MAX)
        if missed is None:
            raise PositionExpiredError
        async with self._reads.view() as view:
            holdings = await view.holdings(self.account_id, include_closed=False, instrument_id=self._instrument_id, limit=_ALL)
        self._place = position
        for moved in missed:
            self._put(moved)
        # For marks alone: what these positions have been through since is still told.
        for holding in holdings:
            self._hold(holding)
        self._after = max(upto, LogPosition.parse(position))
        self._release()

    async def close(self) -> None:
        """See `Source.close`."""
        await self._feed.leave(self)

    def offer(self, moved: Moved) -> None:
        """Take a change of the feed."""
        if self._held is not None:
            self._held.append(moved)
            if len(self._held) > CATCH_UP_EVENTS_MAX:
                self.fail(UnavailableError(Reason.OVERLOADED, "the snapshot took too long; open the stream again", retry_after_seconds=1.0))
        elif moved.position > self._after:
            self._put(moved)

    def look(self) -> None:
        """Tell the marks that have changed. A message of marks that still waits for the client is brought up to date instead."""
        if self._held is not None:
            return
        changed = {}
        for instrument_id, holding in self._holdings.items():
            mark = self._marker.mark(holding) if holding.position.quantity else None
            if mark is not None and mark != self._told.get(instrument_id):
                self._told[instrument_id] = mark
                changed[instrument_id] = valuation_message(holding, mark)
        if changed:
            self._put_marks(changed)

    def fail(self, error: TrademeshError) -> None:
        """End the client's stream: the feed cannot go on for it."""
        self._held = []
        if self._mailbox is not None:
            self._mailbox.fail(error)

    async def _begin(self, mailbox: Mailbox[Response]) -> LogPosition:
        self._mailbox = mailbox
        self._held = []
        self._waiting = None
        self._shown, self._holdings, self._told = {}, {}, {}
        return await self._feed.enter(self)

    def _release(self) -> None:
        held, self._held = self._held or [], None
        for moved in held:
            self.offer(moved)

    def _put(self, moved: Moved) -> None:
        change, holding = moved.change, moved.holding
        selected = not self._instrument_id or change.instrument_id == self._instrument_id
        if not selected or change.version <= self._shown.get(change.instrument_id, 0):
            return
        self._shown[change.instrument_id] = change.version
        self._hold(holding)
        self._place = str(moved.position)
        # Later marks are of the position after this.
        self._waiting = None
        event = pb.PositionMoved(change=change, position=position_message(holding, self._mark(holding)))
        assert self._mailbox is not None
        self._mailbox.put(Item(Response(event=pb.PortfolioEvent(position=event)), self._place))

    def _put_marks(self, changed: dict[str, pb.Valuation]) -> None:
        # A message gets its sequence when it is sent.
        if self._waiting is not None and self._waiting[0].sequence == 0:
            message, valuations = self._waiting
            valuations |= changed
            message.event.marks.Clear()
        else:
            message, valuations = Response(), changed
            self._waiting = (message, valuations)
            assert self._mailbox is not None
            self._mailbox.put(Item(message, self._place))
        message.event.marks.valuations.extend(valuations[instrument_id] for instrument_id in sorted(valuations))

    def _hold(self, holding: Holding) -> None:
        known = self._holdings.get(holding.instrument_id)
        if known is None or known.position.version <= holding.position.version:
            self._holdings[holding.instrument_id] = holding

    def _mark(self, holding: Holding) -> Mark | None:
        mark = self._marker.mark(holding)
        if mark is not None:
            self._told[holding.instrument_id] = mark
        return mark
