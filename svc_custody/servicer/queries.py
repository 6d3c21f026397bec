"""Reads: balances, entries, instructions, holds, the trial balance. Each shows at least the executions up to `min_position`."""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from datetime import date
from decimal import Decimal
from typing import Any, Protocol

from kernel.errors import FieldViolation, InvalidArgumentError, Reason, UnavailableError
from kernel.event_records import from_position, to_position
from kernel.paging import PageTokens, page_size
from kernel.ports import Clock, LogPosition
from kernel.server_context import CallContext
from kernel.values import total
from svc_custody.codec.resources import write_balance, write_hold, write_settlement
from svc_custody.codec.scalars import day, text, timestamp
from svc_custody.domain.decide import no_settlement
from svc_custody.domain.vocabulary import Asset, LedgerAccount
from svc_custody.servicer.access import Access
from svc_custody.store.reads import ReadStore, Total
from trademesh.custody.v1 import custody_service_pb2 as pb
from trademesh.custody.v1 import ledger_pb2

PAGE_SIZE_MAX = 500
_NEWEST = 2**31 - 1
_WAIT_SECONDS = 2.0
_ASK_SECONDS = 0.05
_RETRY_SECONDS = 0.5


class OrderLog(Protocol):
    """Where the consumer of executions stands."""

    async def position(self) -> LogPosition:
        """Return the position of svc_oms's log up to which executions are folded in."""
        ...


class Queries:
    """Serves the reading half of CustodyService."""

    def __init__(
        self,
        reads: ReadStore,
        access: Access,
        tokens: PageTokens,
        order_log: OrderLog,
        clock: Clock,
    ) -> None:
        self._reads = reads
        self._access = access
        self._tokens = tokens
        self._order_log = order_log
        self._clock = clock

    async def balances(self, request: pb.ListBalancesRequest, context: CallContext) -> pb.ListBalancesResponse:
        """Serve ListBalances."""
        position = await self._enter(request, context)
        by_asset: dict[Asset, dict[LedgerAccount, Decimal]] = defaultdict(dict)
        for found in await self._reads.balances(request.account_id, request.asset_type):
            by_asset[found.asset][found.ledger_account] = found.balance
        return pb.ListBalancesResponse(
            balances=[write_balance(asset, amounts) for asset, amounts in sorted(by_asset.items())],
            order_log_position=to_position(position),
            parked_executions=await self._reads.parked_count(account_id=request.account_id),
        )

    async def entries(self, request: pb.ListLedgerEntriesRequest, context: CallContext) -> pb.ListLedgerEntriesResponse:
        """Serve ListLedgerEntries."""
        filters = (request.account_id, str(request.asset_type), request.asset_id)
        size, token = page_size(request.page_size, maximum=PAGE_SIZE_MAX), self._tokens.read("entries", filters, request.page_token)
        version, line = (_NEWEST, 0) if token is None else json.loads(token)
        position = await self._enter(request, context)
        found = await self._reads.entries(request.account_id, request.asset_type, request.asset_id, (version, line), size + 1)
        last = json.dumps([found[size - 1]["version"], found[size - 1]["line"]]) if len(found) > size else ""
        return pb.ListLedgerEntriesResponse(
            entries=[_entry(row) for row in found[:size]],
            next_page_token=self._tokens.issue("entries", filters, last) if last else "",
            order_log_position=to_position(position),
        )

    async def settlement(self, request: pb.GetSettlementRequest, context: CallContext) -> pb.GetSettlementResponse:
        """Serve GetSettlement."""
        position = await self._enter(request, context)
        settlement_id = request.settlement_id.lower()
        found = await self._reads.settlement(request.account_id, settlement_id)
        if found is None:
            raise no_settlement(settlement_id)
        return pb.GetSettlementResponse(settlement=write_settlement(found, request.account_id), order_log_position=to_position(position))

    async def settlements(self, request: pb.ListSettlementsRequest, context: CallContext) -> pb.ListSettlementsResponse:
        """Serve ListSettlements."""
        filters = (request.account_id, str(request.state), request.settlement_date, request.order_id)
        size, token = page_size(request.page_size, maximum=PAGE_SIZE_MAX), self._tokens.read("settlements", filters, request.page_token)
        on = _day(request.settlement_date, "settlement_date")
        position = await self._enter(request, context)
        found = await self._reads.settlements(
            request.account_id,
            state=request.state,
            settlement_date=on,
            order_id=request.order_id.lower(),
            before=_NEWEST if token is None else int(token),
            limit=size + 1,
        )
        more = len(found) > size
        return pb.ListSettlementsResponse(
            settlements=[write_settlement(listed.settlement, request.account_id) for listed in found[:size]],
            next_page_token=self._tokens.issue("settlements", filters, str(found[size - 1].sequence)) if more else "",
            order_log_position=to_position(position),
        )

    async def holds(self, request: pb.ListHoldsRequest, context: CallContext) -> pb.ListHoldsResponse:
        """Serve ListHolds."""
        await self._access.require_account(context.user, request.account_id)
        filters = (request.account_id, str(request.state))
        size, token = page_size(request.page_size, maximum=PAGE_SIZE_MAX), self._tokens.read("holds", filters, request.page_token)
        before = _NEWEST if token is None else int(token)
        found = await self._reads.holds(request.account_id, state=request.state, before=before, limit=size + 1)
        more = len(found) > size
        return pb.ListHoldsResponse(
            holds=[write_hold(listed.hold, request.account_id) for listed in found[:size]],
            next_page_token=self._tokens.issue("holds", filters, str(found[size - 1].sequence)) if more else "",
        )

    async def status(self, request: pb.GetLedgerStatusRequest, context: CallContext) -> pb.GetLedgerStatusResponse:
        """Serve GetLedgerStatus."""
        tenant = self._access.tenant_in_view(context.user)
        position = await self._order_log.position()
        totals = await self._reads.totals(tenant)
        sums = _sums(totals)
        mismatched = await self._reads.mismatches(tenant) if request.verify_entries else 0
        return pb.GetLedgerStatusResponse(
            balanced=not mismatched and not any(sums.values()),
            assets=[
                ledger_pb2.AssetTotal(
                    asset_type=asset.type.value,  # type: ignore[arg-type]  # our enums have the contract's numbers
                    asset_id=asset.asset_id,
                    sum=text(amount),
                )
                for asset, amount in sums.items()
            ],
            ledger_accounts=[_ledger_account(found) for found in totals],
            account_count=await self._reads.account_count(tenant),
            mismatched_balances=mismatched,
            parked_executions=await self._reads.parked_count(tenant=tenant),
            order_log_position=to_position(position),
        )

    async def _enter(self, request: Any, context: CallContext) -> LogPosition:
        """Check the account, wait for the position that is asked for, and return one that the answer shows at least."""
        await self._access.require_account(context.user, request.account_id)
        # Read before the rows, so they show at least what it says.
        position = await self._order_log.position()
        if not request.HasField("min_position"):
            return position
        wanted = from_position(request.min_position)
        give_up = self._clock.monotonic() + min(_WAIT_SECONDS, context.remaining_seconds() / 2)
        while position < wanted:
            if self._clock.monotonic() >= give_up:
                text_ = f"executions are folded in up to {position}, not up to {wanted} yet"
                raise UnavailableError(Reason.DEPENDENCY_UNAVAILABLE, text_, retry_after_seconds=_RETRY_SECONDS)
            await asyncio.sleep(_ASK_SECONDS)
            position = await self._order_log.position()
        return position


def _sums(totals: list[Total]) -> dict[Asset, Decimal]:
    by_asset: dict[Asset, list[Decimal]] = defaultdict(list)
    for found in totals:
        by_asset[found.asset].append(found.balance)
    return {asset: total(amounts) for asset, amounts in by_asset.items()}


def _ledger_account(found: Total) -> ledger_pb2.LedgerAccountTotal:
    return ledger_pb2.LedgerAccountTotal(
        ledger_account=found.ledger_account.value,  # type: ignore[arg-type]  # our enums have the contract's numbers
        asset_type=found.asset.type.value,  # type: ignore[arg-type]  # as above
        asset_id=found.asset.asset_id,
        balance=text(found.balance),
    )


def _entry(row: Any) -> ledger_pb2.LedgerEntry:
    return ledger_pb2.LedgerEntry(
        version=row["version"],
        line=row["line"],
        entry=ledger_pb2.Entry(
            ledger_account=row["ledger_account"],
            asset_type=row["asset_type"],
            asset_id=row["asset_id"],
            amount=text(row["amount"]),
            venue=row["venue"],
        ),
        event_type=row["event_type"],
        reference_id=row["reference_id"],
        booking_date=day(row["booking_date"]),
        event_time=timestamp(row["event_time"]),
    )


def _day(written: str, field: str) -> date | None:
    try:
        return date.fromisoformat(written) if written else None
    except ValueError:
        description = "must be a day, YYYY-MM-DD"
        violation = FieldViolation(field, "date", description)
        raise InvalidArgumentError(Reason.FIELD_INVALID, f"{field}: {description}", field_violations=(violation,)) from None
