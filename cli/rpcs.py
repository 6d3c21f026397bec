"""The RPCs that the command line calls, each with the service that answers it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

from google.api import httpbody_pb2
from google.longrunning import operations_pb2
from google.protobuf.message import Message

from trademesh.custody.v1 import custody_service_pb2 as custody
from trademesh.marketdata.v1 import market_data_service_pb2 as market
from trademesh.oms.v1 import order_service_pb2 as oms
from trademesh.portfolio.v1 import portfolio_service_pb2 as portfolio
from trademesh.reporting.v1 import reporting_service_pb2 as reporting
from trademesh.risk.v1 import reference_data_service_pb2 as reference
from trademesh.risk.v1 import risk_service_pb2 as risk

Request = TypeVar("Request", bound=Message)
Response = TypeVar("Response", bound=Message)


@dataclass(frozen=True)
class Rpc(Generic[Request, Response]):
    """One RPC. `repeatable` says that a lost answer leaves no doubt: it reads only."""

    service: str
    path: str
    request_type: type[Request]
    response_type: type[Response]
    repeatable: bool = False


def _orders(name: str, request: type[Request], response: type[Response], *, repeatable: bool = False) -> Rpc[Request, Response]:
    return Rpc("svc_oms", f"/trademesh.oms.v1.OrderService/{name}", request, response, repeatable)


def _risk(name: str, request: type[Request], response: type[Response], *, repeatable: bool = False) -> Rpc[Request, Response]:
    return Rpc("svc_risk", f"/trademesh.risk.v1.RiskService/{name}", request, response, repeatable)


def _reference(name: str, request: type[Request], response: type[Response], *, repeatable: bool = False) -> Rpc[Request, Response]:
    return Rpc("svc_risk", f"/trademesh.risk.v1.ReferenceDataService/{name}", request, response, repeatable)


def _market(name: str, request: type[Request], response: type[Response]) -> Rpc[Request, Response]:
    return Rpc("svc_marketdata", f"/trademesh.marketdata.v1.MarketDataService/{name}", request, response, repeatable=True)


def _custody(name: str, request: type[Request], response: type[Response], *, repeatable: bool = False) -> Rpc[Request, Response]:
    return Rpc("svc_custody", f"/trademesh.custody.v1.CustodyService/{name}", request, response, repeatable)


def _portfolio(name: str, request: type[Request], response: type[Response]) -> Rpc[Request, Response]:
    return Rpc("svc_portfolio", f"/trademesh.portfolio.v1.PortfolioService/{name}", request, response, repeatable=True)


def _reporting(name: str, request: type[Request], response: type[Response], *, repeatable: bool = False) -> Rpc[Request, Response]:
    return Rpc("svc_reporting", f"/trademesh.reporting.v1.ReportingService/{name}", request, response, repeatable)


CREATE_ORDER = _orders("CreateOrder", oms.CreateOrderRequest, oms.CreateOrderResponse)
GET_ORDER = _orders("GetOrder", oms.GetOrderRequest, oms.GetOrderResponse, repeatable=True)
LOOKUP_ORDER = _orders("LookupOrder", oms.LookupOrderRequest, oms.LookupOrderResponse, repeatable=True)
LIST_ORDERS = _orders("ListOrders", oms.ListOrdersRequest, oms.ListOrdersResponse, repeatable=True)
REPLACE_ORDER = _orders("ReplaceOrder", oms.ReplaceOrderRequest, oms.ReplaceOrderResponse)
CANCEL_ORDER = _orders("CancelOrder", oms.CancelOrderRequest, oms.CancelOrderResponse)
CANCEL_ALL_ORDERS = _orders("CancelAllOrders", oms.CancelAllOrdersRequest, oms.CancelAllOrdersResponse)
LIST_EXECUTIONS = _orders("ListExecutions", oms.ListExecutionsRequest, oms.ListExecutionsResponse, repeatable=True)
STREAM_ORDER_EVENTS = _orders("StreamOrderEvents", oms.StreamOrderEventsRequest, oms.StreamOrderEventsResponse, repeatable=True)

GET_RISK_STATE = _risk("GetRiskState", risk.GetRiskStateRequest, risk.GetRiskStateResponse, repeatable=True)
LIST_LIMITS = _risk("ListLimits", risk.ListLimitsRequest, risk.ListLimitsResponse, repeatable=True)
UPDATE_LIMIT = _risk("UpdateLimit", risk.UpdateLimitRequest, risk.UpdateLimitResponse)
ACTIVATE_KILL_SWITCH = _risk("ActivateKillSwitch", risk.ActivateKillSwitchRequest, risk.ActivateKillSwitchResponse)
RELEASE_KILL_SWITCH = _risk("ReleaseKillSwitch", risk.ReleaseKillSwitchRequest, risk.ReleaseKillSwitchResponse)
LIST_KILL_SWITCHES = _risk("ListKillSwitches", risk.ListKillSwitchesRequest, risk.ListKillSwitchesResponse, repeatable=True)

CREATE_ACCOUNT = _reference("CreateAccount", reference.CreateAccountRequest, reference.CreateAccountResponse)
LIST_ACCOUNTS = _reference("ListAccounts", reference.ListAccountsRequest, reference.ListAccountsResponse, repeatable=True)
CREATE_INSTRUMENT = _reference("CreateInstrument", reference.CreateInstrumentRequest, reference.CreateInstrumentResponse)
GET_INSTRUMENT = _reference("GetInstrument", reference.GetInstrumentRequest, reference.GetInstrumentResponse, repeatable=True)
LIST_INSTRUMENTS = _reference("ListInstruments", reference.ListInstrumentsRequest, reference.ListInstrumentsResponse, repeatable=True)

GET_ORDER_BOOK = _market("GetOrderBook", market.GetOrderBookRequest, market.GetOrderBookResponse)
BATCH_GET_QUOTES = _market("BatchGetQuotes", market.BatchGetQuotesRequest, market.BatchGetQuotesResponse)
LIST_TRADES = _market("ListTrades", market.ListTradesRequest, market.ListTradesResponse)

LIST_BALANCES = _custody("ListBalances", custody.ListBalancesRequest, custody.ListBalancesResponse, repeatable=True)
LIST_LEDGER_ENTRIES = _custody("ListLedgerEntries", custody.ListLedgerEntriesRequest, custody.ListLedgerEntriesResponse, repeatable=True)
LIST_SETTLEMENTS = _custody("ListSettlements", custody.ListSettlementsRequest, custody.ListSettlementsResponse, repeatable=True)
CREATE_DEPOSIT = _custody("CreateDeposit", custody.CreateDepositRequest, custody.CreateDepositResponse)
CREATE_WITHDRAWAL = _custody("CreateWithdrawal", custody.CreateWithdrawalRequest, custody.CreateWithdrawalResponse)
AFFIRM_SETTLEMENT = _custody("AffirmSettlement", custody.AffirmSettlementRequest, custody.AffirmSettlementResponse)
GET_BUSINESS_DATE = _custody("GetBusinessDate", custody.GetBusinessDateRequest, custody.GetBusinessDateResponse, repeatable=True)
ADVANCE_BUSINESS_DATE = _custody("AdvanceBusinessDate", custody.AdvanceBusinessDateRequest, custody.AdvanceBusinessDateResponse)
GET_LEDGER_STATUS = _custody("GetLedgerStatus", custody.GetLedgerStatusRequest, custody.GetLedgerStatusResponse, repeatable=True)

GET_PORTFOLIO = _portfolio("GetPortfolio", portfolio.GetPortfolioRequest, portfolio.GetPortfolioResponse)
LIST_POSITIONS = _portfolio("ListPositions", portfolio.ListPositionsRequest, portfolio.ListPositionsResponse)
LIST_LOTS = _portfolio("ListLots", portfolio.ListLotsRequest, portfolio.ListLotsResponse)
GET_PNL = _portfolio("GetPnl", portfolio.GetPnlRequest, portfolio.GetPnlResponse)

CREATE_REPORT = _reporting("CreateReport", reporting.CreateReportRequest, operations_pb2.Operation)
GET_REPORT = _reporting("GetReport", reporting.GetReportRequest, reporting.GetReportResponse, repeatable=True)
LIST_REPORTS = _reporting("ListReports", reporting.ListReportsRequest, reporting.ListReportsResponse, repeatable=True)
DOWNLOAD_REPORT = _reporting("DownloadReport", reporting.DownloadReportRequest, httpbody_pb2.HttpBody, repeatable=True)
