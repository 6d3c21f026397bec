"""PortfolioService: reads and the stream."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, aclosing
from typing import Any

from kernel.errors import NotFoundError, Reason
from kernel.event_records import from_position, to_position
from kernel.paging import PageTokens, page_size
from kernel.ports import Clock, LogPosition
from kernel.server_context import CallContext
from kernel.streams import EnvelopeStream, ResumeTokens, heartbeat_seconds
from kernel.values import ZERO
from svc_portfolio.codec.positions import amount, lot_message, mark_message, optional_amount, position_message, total_message
from svc_portfolio.domain.valuation import Holding, Mark, totals, unrealised
from svc_portfolio.servicer.access import Access
from svc_portfolio.servicer.feed import PortfolioFeed
from svc_portfolio.servicer.marking import Marker
from svc_portfolio.servicer.source import PortfolioSource
from svc_portfolio.store.reads import FIRST_LOT, LotKey, PortfolioReads, Realised, View
from svc_portfolio.store.reference import ReferenceStore
from trademesh.portfolio.v1 import portfolio_service_pb2 as pb

POSITIONS_MAX = 1_000
"""Positions and instruments that one answer holds."""

PAGE_SIZE_MAX = 500
TRADE_DATES_MAX = 366
_ALL = 2**31 - 1
_NEWEST = LogPosition(2**63 - 1, 2**63 - 1)


class PortfolioServicer:
    """Serves what is folded; every answer says up to where."""

    def __init__(
        self,
        reads: PortfolioReads,
        reference: ReferenceStore,
        feed: PortfolioFeed,
        marker: Marker,
        tokens: PageTokens,
        resume_tokens: ResumeTokens,
        clock: Clock,
    ) -> None:
        self._reads = reads
        self._access = Access(reference)
        self._feed = feed
        self._marker = marker
        self._tokens = tokens
        self._resume_tokens = resume_tokens
        self._clock = clock

    async def GetPortfolio(self, request: pb.GetPortfolioRequest, context: CallContext) -> pb.GetPortfolioResponse:  # noqa: N802 (the contract's name)
        """See the contract."""
        await self._access.require_account(context.user, request.account_id)
        async with self._view(request) as view:
            holdings = await view.holdings(request.account_id, include_closed=True, limit=_ALL)
        marks = [self._mark(view, holding) for holding in holdings]
        sums, unknown = totals((holding, holding.position.realised, mark) for holding, mark in zip(holdings, marks, strict=True))
        shown = [
            position_message(holding, mark)
            for holding, mark in zip(holdings, marks, strict=True)
            if holding.position.quantity or request.include_closed
        ]
        return pb.GetPortfolioResponse(
            account_id=request.account_id,
            totals=[total_message(total) for total in sums],
            positions=shown[:POSITIONS_MAX],
            more_positions=len(shown) > POSITIONS_MAX,
            positions_without_currency=unknown,
            order_log_position=to_position(view.position),
        )

    async def GetPosition(self, request: pb.GetPositionRequest, context: CallContext) -> pb.GetPositionResponse:  # noqa: N802 (the contract's name)
        """See the contract."""
        await self._access.require_account(context.user, request.account_id)
        async with self._view(request) as view:
            holding = await view.holding(request.account_id, request.instrument_id)
        if holding is None:
            raise NotFoundError(Reason.INSTRUMENT_NOT_FOUND, f"no instrument {request.instrument_id}")
        position = position_message(holding, self._mark(view, holding))
        return pb.GetPositionResponse(position=position, order_log_position=to_position(view.position))

    async def ListPositions(self, request: pb.ListPositionsRequest, context: CallContext) -> pb.ListPositionsResponse:  # noqa: N802 (the contract's name)
        """See the contract."""
        await self._access.require_account(context.user, request.account_id)
        filters = (request.account_id, str(request.include_closed), _place(request))
        after = self._tokens.read("positions", filters, request.page_token) or ""
        size = page_size(request.page_size, maximum=PAGE_SIZE_MAX)
        async with self._view(request) as view:
            found = await view.holdings(request.account_id, include_closed=request.include_closed, after=after, limit=size + 1)
        more = len(found) > size
        return pb.ListPositionsResponse(
            positions=[position_message(holding, self._mark(view, holding)) for holding in found[:size]],
            next_page_token=self._tokens.issue("positions", filters, found[size - 1].instrument_id) if more else "",
            order_log_position=to_position(view.position),
        )

    async def ListLots(self, request: pb.ListLotsRequest, context: CallContext) -> pb.ListLotsResponse:  # noqa: N802 (the contract's name)
        """See the contract."""
        await self._access.require_account(context.user, request.account_id)
        filters = (request.account_id, request.instrument_id, str(request.include_closed), _place(request))
        after = _lot_key(self._tokens.read("lots", filters, request.page_token))
        size = page_size(request.page_size, maximum=PAGE_SIZE_MAX)
        async with self._view(request) as view:
            found = await view.lots(
                request.account_id,
                instrument_id=request.instrument_id,
                include_closed=request.include_closed,
                after=after,
                limit=size + 1,
            )
        token = ""
        if len(found) > size:
            last = found[size - 1]
            token = self._tokens.issue("lots", filters, f"{last.key.instrument_id}:{last.lot.log_position}")
        return pb.ListLotsResponse(
            lots=[lot_message(*row.key, row.lot, row.matches) for row in found[:size]],
            next_page_token=token,
            order_log_position=to_position(view.position),
        )

    async def GetPnl(self, request: pb.GetPnlRequest, context: CallContext) -> pb.GetPnlResponse:  # noqa: N802 (the contract's name)
        """See the contract."""
        await self._access.require_account(context.user, request.account_id)
        async with self._view(request) as view:
            holdings = await view.holdings(request.account_id, include_closed=True, instrument_id=request.instrument_id, limit=_ALL)
            realised = await view.realised(
                request.account_id,
                instrument_id=request.instrument_id,
                first=request.from_trade_date,
                last=request.to_trade_date,
            )
        counted = [
            (holding, sum(realised.get(holding.instrument_id, {}).values(), ZERO), self._mark(view, holding))
            for holding in holdings
            if holding.position.quantity or holding.instrument_id in realised
        ]
        sums, unknown = totals(counted)
        return pb.GetPnlResponse(
            instruments=[_instrument_pnl(holding, mark, realised) for holding, _, mark in counted[:POSITIONS_MAX]],
            totals=[total_message(total) for total in sums],
            more_instruments=len(counted) > POSITIONS_MAX,
            instruments_without_currency=unknown,
            order_log_position=to_position(view.position),
        )

    async def ListPositionChanges(  # noqa: N802 (the contract's name)
        self, request: pb.ListPositionChangesRequest, context: CallContext
    ) -> pb.ListPositionChangesResponse:
        """See the contract."""
        await self._access.require_account(context.user, request.account_id)
        filters = (request.account_id, request.instrument_id, _place(request))
        key = self._tokens.read("changes", filters, request.page_token)
        size = page_size(request.page_size, maximum=PAGE_SIZE_MAX)
        async with self._view(request) as view:
            found = await view.changes(
                request.account_id,
                instrument_id=request.instrument_id,
                before=_NEWEST if key is None else LogPosition.parse(key),
                limit=size + 1,
            )
        more = len(found) > size
        return pb.ListPositionChangesResponse(
            changes=found[:size],
            next_page_token=self._tokens.issue("changes", filters, str(from_position(found[size - 1].order_log_position))) if more else "",
            order_log_position=to_position(view.position),
        )

    async def StreamPortfolio(  # noqa: N802 (the contract's name)
        self, request: pb.StreamPortfolioRequest, context: CallContext
    ) -> AsyncIterator[pb.StreamPortfolioResponse]:
        """See the contract."""
        await self._access.require_account(context.user, request.account_id)
        source = PortfolioSource(self._feed, self._reads, self._marker, request.account_id, request.instrument_id)
        stream = EnvelopeStream(
            pb.StreamPortfolioResponse,
            source,
            context,
            self._resume_tokens,
            self._clock,
            filters=(request.account_id, request.instrument_id),
            heartbeat_seconds=heartbeat_seconds(request.heartbeat_interval),
        )
        async with aclosing(stream.run(request.resume_token)) as messages:
            async for message in messages:
                yield message

    def _view(self, request: Any) -> AbstractAsyncContextManager[View]:
        return self._reads.view(
            minimum=from_position(request.min_position) if request.HasField("min_position") else None,
            as_of=from_position(request.as_of) if request.HasField("as_of") else None,
        )

    def _mark(self, view: View, holding: Holding) -> Mark | None:
        # Marks are of now: with positions of the past they would value what was not held at the time.
        return self._marker.mark(holding) if view.latest else None


def _instrument_pnl(holding: Holding, mark: Mark | None, realised: Realised) -> pb.InstrumentPnl:
    dates = realised.get(holding.instrument_id, {})
    return pb.InstrumentPnl(
        instrument_id=holding.instrument_id,
        currency=holding.currency,
        realised_pnl=amount(sum(dates.values(), ZERO)),
        trade_dates=[
            pb.TradeDatePnl(trade_date=day, realised_pnl=amount(profit)) for day, profit in list(dates.items())[-TRADE_DATES_MAX:]
        ],
        unrealised_pnl=None if mark is None else optional_amount(unrealised(holding.position, mark)),
        mark=mark_message(mark),
    )


def _place(request: Any) -> str:
    return str(from_position(request.as_of)) if request.HasField("as_of") else ""


def _lot_key(key: str | None) -> LotKey:
    if key is None:
        return FIRST_LOT
    instrument_id, _, place = key.partition(":")
    position = LogPosition.parse(place)
    return instrument_id, position.tx, position.position
