"""The demo behind the trade: positions, ledger, settlement and a report, each held against the fills."""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Mapping
from decimal import Decimal

from cli import rpcs
from cli.demo.desk import STEP_SECONDS_MAX, Desk
from cli.output import enum_name
from cli.reports import await_report, content
from cli.session import new_key
from kernel.errors import NotFoundError
from trademesh.custody.v1 import custody_service_pb2, ledger_pb2, settlement_pb2
from trademesh.marketdata.v1 import market_data_pb2, market_data_service_pb2
from trademesh.oms.v1 import execution_pb2
from trademesh.portfolio.v1 import portfolio_service_pb2
from trademesh.reporting.v1 import report_pb2, reporting_service_pb2
from trademesh.type.v1 import order_terms_pb2

CASH = "2000000"
ADVANCES_MAX = 5
_ZERO = Decimal(0)


def deposit(desk: Desk) -> None:
    """Give the account money to settle with."""
    desk.transcript.command(f"deposit cash {CASH} USD --account {desk.account}")
    request = custody_service_pb2.CreateDepositRequest(
        account_id=desk.account, asset_type=ledger_pb2.ASSET_TYPE_CASH, asset_id="USD", amount=CASH, comment="demo", request_id=new_key()
    )

    def book() -> ledger_pb2.Balance:
        try:
            return desk.session.call(rpcs.CREATE_DEPOSIT, request, desk.account).message.balance
        except NotFoundError:
            # Custody hears of a new account from risk's log, a moment later.
            return ledger_pb2.Balance()

    balance = desk.until(book, lambda found: bool(found.asset_id))
    desk.transcript.check(balance.available == CASH, f"{balance.available} {balance.asset_id} are available")


def market(desk: Desk, instrument: str) -> None:
    """Show the book that the orders will meet."""
    desk.transcript.step("The market, from the venue's ITCH feed")
    desk.transcript.command(f"book {instrument} --depth 3")
    request = market_data_service_pb2.GetOrderBookRequest(instrument_id=instrument, depth=3)

    def read() -> market_data_pb2.OrderBook:
        return desk.session.call(rpcs.GET_ORDER_BOOK, request, desk.account).message.book

    book = desk.until(read, lambda found: found.state == market_data_pb2.BOOK_STATE_LIVE and bool(found.bids and found.asks))
    for bid, ask in zip(book.bids, book.asks, strict=False):
        desk.transcript.tell(f"{bid.quantity:>10} @ {bid.price:<10} | {ask.price:>10} @ {ask.quantity}")
    live = book.state == market_data_pb2.BOOK_STATE_LIVE and bool(book.bids and book.asks)
    desk.transcript.check(live and Decimal(book.bids[0].price) < Decimal(book.asks[0].price), "the book is live, and not crossed")


def positions(desk: Desk, executions: list[execution_pb2.Execution], held: Mapping[str, Decimal]) -> None:
    """Hold portfolio and custody against the fills."""
    desk.transcript.step("Positions by the portfolio, balances by custody: both are the sums of the fills")
    desk.transcript.command(f"positions --account {desk.account}")
    portfolio_request = portfolio_service_pb2.GetPortfolioRequest(account_id=desk.account, min_position=desk.listener.last_position)

    def portfolio() -> portfolio_service_pb2.GetPortfolioResponse:
        return desk.session.call(rpcs.GET_PORTFOLIO, portfolio_request, desk.account).message

    shown = desk.until(portfolio, lambda found: _quantities(found) == held)
    for item in shown.positions:
        desk.transcript.tell(
            f"{item.instrument_id:8} {item.quantity:>8} at {item.average_cost}, worth {item.market_value}, "
            f"realised {item.realised_pnl}, unrealised {item.unrealised_pnl}"
        )
    by_portfolio = _quantities(shown) == held
    desk.transcript.check(by_portfolio, "the portfolio's positions are the sums of the fills")
    desk.transcript.command(f"balances --account {desk.account}")
    balances = desk.until(lambda: _balances(desk), lambda found: _agrees(found, executions, held))
    for asset in balances:
        desk.transcript.tell(f"{asset.asset_id:8} available {asset.available}, pending in {asset.pending_in}, out {asset.pending_out}")
    by_custody = _agrees(balances, executions, held)
    desk.transcript.check(by_custody, "custody's settled + pending in - pending out are the same, and the cash is what the fills cost")
    desk.tally.position_matches_fills = by_portfolio and by_custody


def _quantities(found: portfolio_service_pb2.GetPortfolioResponse) -> dict[str, Decimal]:
    return {item.instrument_id: Decimal(item.quantity) for item in found.positions if Decimal(item.quantity)}


def _balances(desk: Desk) -> list[ledger_pb2.Balance]:
    request = custody_service_pb2.ListBalancesRequest(account_id=desk.account)
    return list(desk.session.call(rpcs.LIST_BALANCES, request, desk.account).message.balances)


def _agrees(balances: list[ledger_pb2.Balance], executions: list[execution_pb2.Execution], held: Mapping[str, Decimal]) -> bool:
    securities = {item.asset_id: Decimal(item.position) for item in balances if item.asset_type == ledger_pb2.ASSET_TYPE_SECURITY}
    cash = {item.asset_id: Decimal(item.position) for item in balances if item.asset_type == ledger_pb2.ASSET_TYPE_CASH}
    spent = sum((_signed(item) * Decimal(item.last_price) for item in executions), _ZERO)
    return {key: value for key, value in securities.items() if value} == held and cash == {"USD": Decimal(CASH) - spent}


def _signed(item: execution_pb2.Execution) -> Decimal:
    quantity = Decimal(item.last_quantity)
    return quantity if item.side == order_terms_pb2.SIDE_BUY else -quantity


def settle(desk: Desk, executions: list[execution_pb2.Execution]) -> None:
    """Advance the sandbox's business date until every trade has settled, delivery versus payment."""
    desk.transcript.step("Settlement, delivery versus payment: T+1 for shares, the same day for crypto assets")
    desk.transcript.command(f"settlements --account {desk.account}")
    found = desk.until(lambda: _settlements(desk), lambda items: len(items) == len(executions) and not _instructed(items))
    for item in found:
        state = enum_name(settlement_pb2.SettlementState, item.state, "SETTLEMENT_STATE_")
        exchanged = f"{item.instrument_id:8} {item.securities_amount:>6} for {item.cash_amount} USD"
        desk.transcript.tell(f"{exchanged}, due {item.settlement_date}: {state}")
    desk.transcript.check(len(found) == len(executions), "every fill has its instruction, affirmed")
    _advance(desk, max(item.settlement_date for item in found))
    found = desk.until(lambda: _settlements(desk), lambda items: _settled(items) == len(executions))
    desk.tally.settled_trades = _settled(found)
    desk.transcript.check(desk.tally.settled_trades == len(executions), f"all {desk.tally.settled_trades} trades have settled")
    pending = [item for item in _balances(desk) if Decimal(item.pending_in) or Decimal(item.pending_out)]
    desk.transcript.check(not pending, "nothing is pending any more")
    status_request = custody_service_pb2.GetLedgerStatusRequest(verify_entries=True)
    status = desk.session.call(rpcs.GET_LEDGER_STATUS, status_request, desk.account).message
    desk.tally.ledger_balanced = status.balanced and not status.mismatched_balances
    desk.transcript.check(desk.tally.ledger_balanced, f"the ledger balances: {len(status.assets)} assets, every entry added up")


def _advance(desk: Desk, due: str) -> None:
    """Move the business date to a day; the venue's trade date may be a day ahead of custody's."""
    for _ in range(ADVANCES_MAX):
        desk.transcript.command("business-date advance")
        request = custody_service_pb2.AdvanceBusinessDateRequest(request_id=new_key())
        moved = desk.session.call(rpcs.ADVANCE_BUSINESS_DATE, request, desk.account).message
        desk.transcript.tell(f"{moved.previous_date} is over; it is {moved.business_date}")
        if moved.business_date >= due:
            return


def _settlements(desk: Desk) -> list[settlement_pb2.Settlement]:
    request = custody_service_pb2.ListSettlementsRequest(account_id=desk.account, page_size=500)
    return list(desk.session.call(rpcs.LIST_SETTLEMENTS, request, desk.account).message.settlements)


def _instructed(items: list[settlement_pb2.Settlement]) -> int:
    return sum(item.state == settlement_pb2.SETTLEMENT_STATE_INSTRUCTED for item in items)


def _settled(items: list[settlement_pb2.Settlement]) -> int:
    return sum(item.state == settlement_pb2.SETTLEMENT_STATE_SETTLED for item in items)


def report(desk: Desk, executions: list[execution_pb2.Execution]) -> None:
    """Make a trade blotter, hold it against the fills, and make it again from the same data: the same bytes."""
    desk.transcript.step("A trade blotter, and the same one again from the same data")
    desk.transcript.command(f"report create blotter --account {desk.account}")
    made, text = _blotter(desk, None)
    rows = list(csv.DictReader(io.StringIO(text.decode(), newline="")))
    desk.tally.report_rows = len(rows)
    desk.transcript.tell(f"{made.row_count} rows, {made.content_bytes} bytes, sha256 {made.sha256[:16]}…")
    complete = {row["exec_id"] for row in rows} == {item.exec_id for item in executions} and len(rows) == len(executions)
    desk.transcript.check(complete, "every fill stands in it once")
    desk.transcript.check(hashlib.sha256(text).hexdigest() == made.sha256, "what was downloaded is what was reported")
    again, same = _blotter(desk, made.parameters.data_positions)
    identical = again.report_id != made.report_id and same == text
    desk.transcript.check(identical, "a second report from the same positions is the same, byte for byte")


def _blotter(desk: Desk, at: report_pb2.DataPositions | None) -> tuple[report_pb2.Report, bytes]:
    request = reporting_service_pb2.CreateReportRequest(
        request_id=new_key(),
        kind=report_pb2.REPORT_KIND_TRADE_BLOTTER,
        format=report_pb2.REPORT_FORMAT_CSV,
        account_ids=[desk.account],
        data_positions=at,
        min_positions=report_pb2.DataPositions(oms=desk.listener.last_position),
    )
    operation = desk.session.call(rpcs.CREATE_REPORT, request, desk.account).message
    made = await_report(desk.session, operation.name.rpartition("/")[2], (desk.account,), STEP_SECONDS_MAX)
    state = enum_name(report_pb2.ReportState, made.state, "REPORT_STATE_")
    desk.transcript.check(made.state == report_pb2.REPORT_STATE_COMPLETED, f"{made.parameters.rule_version} is {state}")
    return made, b"".join(content(desk.session, made.report_id, (desk.account,)))
