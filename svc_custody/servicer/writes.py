"""Operations' writes: each once per request id, decided under the ledger's lock."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from datetime import date
from typing import Any, Protocol, TypeVar

from google.protobuf.message import Message

from kernel.errors import FailedPreconditionError, Reason, TrademeshError
from kernel.keyed_requests import Request, Written
from kernel.ports import IdSource, LogPosition
from kernel.postgres import Transaction
from kernel.server_context import CallContext
from kernel.values import parse_quantity
from svc_custody.codec.resources import book_balance, command_hash, write_hold, write_settlement
from svc_custody.codec.scalars import day, timestamp
from svc_custody.domain import commands as c
from svc_custody.domain.book import Book
from svc_custody.domain.events import Moment
from svc_custody.domain.vocabulary import Asset, AssetType
from svc_custody.servicer.access import Access
from svc_custody.servicer.assets import Assets
from svc_custody.store.business_date import BusinessDateStore
from svc_custody.store.ledgers import Decisions, LedgerStore, Need
from svc_custody.store.requests import RequestStore
from trademesh.custody.v1 import custody_service_pb2 as pb

_logger = logging.getLogger(__name__)


Response = TypeVar("Response", bound=Message)
Movement = pb.CreateDepositRequest | pb.CreateWithdrawalRequest | pb.CreateHoldRequest


class BusinessDays(Protocol):
    """The firm's calendar."""

    def after(self, day: date) -> date:
        """Return the next business day."""
        ...


class Settler(Protocol):
    """Moves instructions as far as they go."""

    async def settle(self) -> int:
        """Settle what is due; return how many instructions settled."""
        ...


class Writes:
    """Serves the writing half of CustodyService.

    Args:
        sandbox: whether the business date may be advanced.
    """

    def __init__(
        self,
        ledgers: LedgerStore,
        requests: RequestStore,
        dates: BusinessDateStore,
        access: Access,
        assets: Assets,
        ids: IdSource,
        days: BusinessDays,
        settler: Settler,
        *,
        sandbox: bool,
    ) -> None:
        self._ledgers = ledgers
        self._requests = requests
        self._dates = dates
        self._access = access
        self._assets = assets
        self._ids = ids
        self._days = days
        self._settler = settler
        self._sandbox = sandbox

    async def deposit(self, request: pb.CreateDepositRequest, context: CallContext) -> pb.CreateDepositResponse:
        """Serve CreateDeposit."""
        asset = await self._asset(request, context, known=True)
        deposit_id, amount = self._ids.new_id(), parse_quantity(request.amount, field="amount")

        def command(moment: Moment) -> c.Command:
            return c.PostDeposit(deposit_id, asset, amount, request.comment, context.user.principal, moment)

        def answer(book: Book, moment: Moment) -> pb.CreateDepositResponse:
            balance = book_balance(book, asset)
            return pb.CreateDepositResponse(deposit_id=deposit_id, balance=balance, create_time=timestamp(moment.time))

        return await self._decided(request, context, pb.CreateDepositResponse, Need(assets={asset}), command, answer)

    async def withdraw(self, request: pb.CreateWithdrawalRequest, context: CallContext) -> pb.CreateWithdrawalResponse:
        """Serve CreateWithdrawal."""
        asset = await self._asset(request, context)
        withdrawal_id, amount = self._ids.new_id(), parse_quantity(request.amount, field="amount")

        def command(moment: Moment) -> c.Command:
            return c.PostWithdrawal(withdrawal_id, asset, amount, request.comment, context.user.principal, moment)

        def answer(book: Book, moment: Moment) -> pb.CreateWithdrawalResponse:
            balance = book_balance(book, asset)
            return pb.CreateWithdrawalResponse(withdrawal_id=withdrawal_id, balance=balance, create_time=timestamp(moment.time))

        return await self._decided(request, context, pb.CreateWithdrawalResponse, Need(assets={asset}), command, answer)

    async def create_hold(self, request: pb.CreateHoldRequest, context: CallContext) -> pb.CreateHoldResponse:
        """Serve CreateHold."""
        asset = await self._asset(request, context)
        hold_id, amount = self._ids.new_id(), parse_quantity(request.amount, field="amount")

        def command(moment: Moment) -> c.Command:
            return c.CreateHold(hold_id, asset, amount, request.comment, context.user.principal, moment)

        def answer(book: Book, moment: Moment) -> pb.CreateHoldResponse:
            return pb.CreateHoldResponse(hold=write_hold(book.holds[hold_id], book.account_id))

        return await self._decided(request, context, pb.CreateHoldResponse, Need(assets={asset}), command, answer)

    async def capture_hold(self, request: pb.CaptureHoldRequest, context: CallContext) -> pb.CaptureHoldResponse:
        """Serve CaptureHold."""
        await self._access.require_account(context.user, request.account_id)
        hold_id = request.hold_id.lower()

        def answer(book: Book, moment: Moment) -> pb.CaptureHoldResponse:
            return pb.CaptureHoldResponse(hold=write_hold(book.holds[hold_id], book.account_id))

        def command(moment: Moment) -> c.Command:
            return c.CaptureHold(hold_id, context.user.principal, moment)

        return await self._decided(request, context, pb.CaptureHoldResponse, Need(hold_ids={hold_id}), command, answer)

    async def release_hold(self, request: pb.ReleaseHoldRequest, context: CallContext) -> pb.ReleaseHoldResponse:
        """Serve ReleaseHold."""
        await self._access.require_account(context.user, request.account_id)
        hold_id = request.hold_id.lower()

        def answer(book: Book, moment: Moment) -> pb.ReleaseHoldResponse:
            return pb.ReleaseHoldResponse(hold=write_hold(book.holds[hold_id], book.account_id))

        def command(moment: Moment) -> c.Command:
            return c.ReleaseHold(hold_id, context.user.principal, moment)

        return await self._decided(request, context, pb.ReleaseHoldResponse, Need(hold_ids={hold_id}), command, answer)

    async def affirm(self, request: pb.AffirmSettlementRequest, context: CallContext) -> pb.AffirmSettlementResponse:
        """Serve AffirmSettlement."""
        await self._access.require_account(context.user, request.account_id)
        settlement_id = request.settlement_id.lower()

        def answer(book: Book, moment: Moment) -> pb.AffirmSettlementResponse:
            return pb.AffirmSettlementResponse(settlement=write_settlement(book.settlements[settlement_id], book.account_id))

        def command(moment: Moment) -> c.Command:
            return c.AffirmSettlement(settlement_id, context.user.principal, moment)

        need = Need(settlement_ids={settlement_id})
        return await self._decided(request, context, pb.AffirmSettlementResponse, need, command, answer)

    async def advance(self, request: pb.AdvanceBusinessDateRequest, context: CallContext) -> pb.AdvanceBusinessDateResponse:
        """Serve AdvanceBusinessDate."""
        self._access.require_firm(context.user, "the business date")
        if not self._sandbox:
            text = "the business date follows the wall clock; only a sandbox advances it"
            metadata = {"resource_type": "business_date", "resource_name": "current"}
            raise FailedPreconditionError(Reason.SANDBOX_ONLY, text, metadata=metadata)

        async def work(transaction: Transaction) -> tuple[pb.AdvanceBusinessDateResponse, LogPosition]:
            before, version = await self._dates.lock(transaction)
            assert before is not None, "the business date is written before anything is served"
            after = self._days.after(before)
            position = await self._dates.move(transaction, version, before, after, context.user.principal)
            return pb.AdvanceBusinessDateResponse(business_date=day(after), previous_date=day(before)), position

        written = await self._requests.write(_key(request, context, pb.AdvanceBusinessDateResponse), work)
        if not written.replayed:
            try:
                await self._settler.settle()
            except TrademeshError as error:
                # The date has moved, and the worker settles what is due.
                _logger.warning("settling at the new business date is left to the worker: %s", error)
        return _told(written, context)

    async def _asset(self, request: Movement, context: CallContext, *, known: bool = False) -> Asset:
        await self._access.require_account(context.user, request.account_id)
        asset = Asset(AssetType(request.asset_type), request.asset_id)
        await self._assets.check(asset, known=known)
        return asset

    async def _decided(
        self,
        request: Any,
        context: CallContext,
        response_type: type[Response],
        need: Need,
        command: Callable[[Moment], c.Command],
        answer: Callable[[Book, Moment], Response],
    ) -> Response:
        """Decide a command of one account once, and answer from the ledger that it leaves."""
        account_id: str = request.account_id

        async def work(transaction: Transaction) -> tuple[Response, LogPosition]:
            locked = await self._ledgers.lock(transaction, [account_id])
            decisions = Decisions(await self._ledgers.load(transaction, [account_id], need))
            happened: Sequence[object] = decisions.decide(account_id, command(locked.moment))
            position = await self._ledgers.record(transaction, locked, decisions)
            assert happened, "operations' commands change something or are refused"
            assert position is not None
            return answer(decisions.after[account_id], locked.moment), position

        return _told(await self._requests.write(_key(request, context, response_type), work), context)


def _key(request: Any, context: CallContext, response_type: type[Response]) -> Request[Response]:
    user = context.user
    return Request(request.request_id.lower(), command_hash(user.tenant, user.principal, request), response_type)


def _told(written: Written[Response], context: CallContext) -> Response:
    if written.replayed:
        context.mark_replayed()
    return written.response
