"""What the public RPCs say of holdings, through the edge, once the mesh has come to rest: positions, balances, the trial balance."""

from __future__ import annotations

from collections.abc import AsyncIterator
from decimal import Decimal

from cli import rpcs
from tests.e2e.crash.holdings_record import AVAILABLE, HELD, PENDING_IN, PENDING_OUT, Asset, HoldingsRecord
from tests.e2e.crash.load import ACCOUNTS
from tests.e2e.crash.operations_desk import OperationsDesk
from trademesh.custody.v1 import custody_service_pb2
from trademesh.portfolio.v1 import portfolio_service_pb2

_ZERO = Decimal(0)


async def holdings_read_back(desk: OperationsDesk, holdings: HoldingsRecord) -> list[str]:
    """Return everything in which the RPCs differ from what is on disk."""
    found = []
    for account_id in ACCOUNTS:
        found += [finding async for finding in _positions(desk, account_id, holdings)]
        found += [finding async for finding in _balances(desk, account_id, holdings)]
    status = await desk.call(rpcs.GET_LEDGER_STATUS, custody_service_pb2.GetLedgerStatusRequest(verify_entries=True))
    if not status.balanced or status.mismatched_balances or status.parked_executions:
        found.append(f"the trial balance says: {status}")
    return found


async def _positions(desk: OperationsDesk, account_id: str, holdings: HoldingsRecord) -> AsyncIterator[str]:
    request = portfolio_service_pb2.GetPortfolioRequest(account_id=account_id, include_closed=True)
    shown = {
        item.instrument_id: (item.version, Decimal(item.quantity), Decimal(item.cost), Decimal(item.realised_pnl))
        for item in (await desk.call(rpcs.GET_PORTFOLIO, request)).positions
    }
    stored = {instrument_id: tuple(item) for (owner, instrument_id), item in holdings.portfolio.positions.items() if owner == account_id}
    if shown != stored:
        yield f"{account_id}: positions are shown as {shown}, on disk they are {stored}"


async def _balances(desk: OperationsDesk, account_id: str, holdings: HoldingsRecord) -> AsyncIterator[str]:
    answer = await desk.call(rpcs.LIST_BALANCES, custody_service_pb2.ListBalancesRequest(account_id=account_id))
    stored = {key: value for key, value in holdings.custody.balances.items() if key[0] == account_id}
    for item in answer.balances:
        asset = Asset(item.asset_type, item.asset_id)
        for ledger_account, sign, shown in (
            (AVAILABLE, 1, item.available), (HELD, 1, item.held), (PENDING_IN, 1, item.pending_in), (PENDING_OUT, -1, item.pending_out)
        ):  # fmt: skip
            balance = sign * stored.get((account_id, asset, ledger_account, ""), _ZERO)
            if Decimal(shown) != balance:
                yield f"{account_id}: {shown} {asset.asset_id} is shown on ledger account {ledger_account}, on disk it is {balance}"
    if {Asset(item.asset_type, item.asset_id) for item in answer.balances} != {key[1] for key in stored}:
        yield f"{account_id}: {len(answer.balances)} assets are shown"
