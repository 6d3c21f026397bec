"""CustodyService: each RPC handed to its half."""

from __future__ import annotations

from kernel.server_context import CallContext
from svc_custody.codec.scalars import day
from svc_custody.servicer.queries import Queries
from svc_custody.servicer.writes import BusinessDays, Writes
from svc_custody.store.business_date import BusinessDateStore
from trademesh.custody.v1 import custody_service_pb2 as pb


class CustodyServicer:
    """Shows and moves what accounts own. `sandbox` is told with the business date."""

    def __init__(self, queries: Queries, writes: Writes, dates: BusinessDateStore, days: BusinessDays, *, sandbox: bool) -> None:
        self._queries = queries
        self._writes = writes
        self._dates = dates
        self._days = days
        self._sandbox = sandbox

    async def ListBalances(self, request: pb.ListBalancesRequest, context: CallContext) -> pb.ListBalancesResponse:  # noqa: N802 (the contract's name)
        """See the contract."""
        return await self._queries.balances(request, context)

    async def ListLedgerEntries(  # noqa: N802 (the contract's name)
        self, request: pb.ListLedgerEntriesRequest, context: CallContext
    ) -> pb.ListLedgerEntriesResponse:
        """See the contract."""
        return await self._queries.entries(request, context)

    async def GetSettlement(self, request: pb.GetSettlementRequest, context: CallContext) -> pb.GetSettlementResponse:  # noqa: N802 (the contract's name)
        """See the contract."""
        return await self._queries.settlement(request, context)

    async def ListSettlements(  # noqa: N802 (the contract's name)
        self, request: pb.ListSettlementsRequest, context: CallContext
    ) -> pb.ListSettlementsResponse:
        """See the contract."""
        return await self._queries.settlements(request, context)

    async def ListHolds(self, request: pb.ListHoldsRequest, context: CallContext) -> pb.ListHoldsResponse:  # noqa: N802 (the contract's name)
        """See the contract."""
        return await self._queries.holds(request, context)

    async def CreateDeposit(self, request: pb.CreateDepositRequest, context: CallContext) -> pb.CreateDepositResponse:  # noqa: N802 (the contract's name)
        """See the contract."""
        return await self._writes.deposit(request, context)

    async def CreateWithdrawal(  # noqa: N802 (the contract's name)
        self, request: pb.CreateWithdrawalRequest, context: CallContext
    ) -> pb.CreateWithdrawalResponse:
        """See the contract."""
        return await self._writes.withdraw(request, context)

    async def CreateHold(self, request: pb.CreateHoldRequest, context: CallContext) -> pb.CreateHoldResponse:  # noqa: N802 (the contract's name)
        """See the contract."""
        return await self._writes.create_hold(request, context)

    async def CaptureHold(self, request: pb.CaptureHoldRequest, context: CallContext) -> pb.CaptureHoldResponse:  # noqa: N802 (the contract's name)
        """See the contract."""
        return await self._writes.capture_hold(request, context)

    async def ReleaseHold(self, request: pb.ReleaseHoldRequest, context: CallContext) -> pb.ReleaseHoldResponse:  # noqa: N802 (the contract's name)
        """See the contract."""
        return await self._writes.release_hold(request, context)

    async def AffirmSettlement(  # noqa: N802 (the contract's name)
        self, request: pb.AffirmSettlementRequest, context: CallContext
    ) -> pb.AffirmSettlementResponse:
        """See the contract."""
        return await self._writes.affirm(request, context)

    async def GetBusinessDate(  # noqa: N802 (the contract's name)
        self, request: pb.GetBusinessDateRequest, context: CallContext
    ) -> pb.GetBusinessDateResponse:
        """See the contract."""
        current = await self._dates.current()
        assert current is not None, "the business date is written before anything is served"
        following = day(self._days.after(current))
        return pb.GetBusinessDateResponse(business_date=day(current), next_business_date=following, sandbox=self._sandbox)

    async def AdvanceBusinessDate(  # noqa: N802 (the contract's name)
        self, request: pb.AdvanceBusinessDateRequest, context: CallContext
    ) -> pb.AdvanceBusinessDateResponse:
        """See the contract."""
        return await self._writes.advance(request, context)

    async def GetLedgerStatus(  # noqa: N802 (the contract's name)
        self, request: pb.GetLedgerStatusRequest, context: CallContext
    ) -> pb.GetLedgerStatusResponse:
        """See the contract."""
        return await self._queries.status(request, context)
