"""The RPCs that the command line calls."""

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


_READS = ("Get", "List", "Lookup", "BatchGet", "Stream", "Download")


@dataclass(frozen=True)
class Rpc(Generic[Request, Response]):
    """One RPC. `repeatable` says that a lost answer leaves no doubt: it reads only."""

    path: str
    request_type: type[Request]
    response_type: type[Response]
    repeatable: bool


def _rpc(service: str, name: str, request: type[Request], response: type[Response]) -> Rpc[Request, Response]:
    return Rpc(f"/trademesh.{service}/{name}", request, response, name.startswith(_READS))


_ORDERS = "oms.v1.OrderService"
_RISK = "risk.v1.RiskService"
_REFERENCE_DATA = "risk.v1.ReferenceDataService"
_MARKET_DATA = "marketdata.v1.MarketDataService"
_CUSTODY = "custody.v1.CustodyService"
_PORTFOLIO = "portfolio.v1.PortfolioService"
_REPORTING = "reporting.v1.ReportingService"

CREATE_ORDER = _rpc(_ORDERS, "CreateOrder", oms.CreateOrderRequest, oms.CreateOrderResponse)
GET_ORDER = _rpc(_ORDERS, "GetOrder", oms.GetOrderRequest, oms.GetOrderResponse)
LOOKUP_ORDER = _rpc(_ORDERS, "LookupOrder", oms.LookupOrderRequest, oms.LookupOrderResponse)
LIST_ORDERS = _rpc(_ORDERS, "ListOrders", oms.ListOrdersRequest, oms.ListOrdersResponse)
REPLACE_ORDER = _rpc(_ORDERS, "ReplaceOrder", oms.ReplaceOrderRequest, oms.ReplaceOrderResponse)
CANCEL_ORDER = _rpc(_ORDERS, "CancelOrder", oms.CancelOrderRequest, oms.CancelOrderResponse)
CANCEL_ALL_ORDERS = _rpc(_ORDERS, "CancelAllOrders", oms.CancelAllOrdersRequest, oms.CancelAllOrdersResponse)
LIST_EXECUTIONS = _rpc(_ORDERS, "ListExecutions", oms.ListExecutionsRequest, oms.ListExecutionsResponse)
STREAM_ORDER_EVENTS = _rpc(_ORDERS, "StreamOrderEvents", oms.StreamOrderEventsRequest, oms.StreamOrderEventsResponse)

GET_RISK_STATE = _rpc(_RISK, "GetRiskState", risk.GetRiskStateRequest, risk.GetRiskStateResponse)
LIST_LIMITS = _rpc(_RISK, "ListLimits", risk.ListLimitsRequest, risk.ListLimitsResponse)
UPDATE_LIMIT = _rpc(_RISK, "UpdateLimit", risk.UpdateLimitRequest, risk.UpdateLimitResponse)
ACTIVATE_KILL_SWITCH = _rpc(_RISK, "ActivateKillSwitch", risk.ActivateKillSwitchRequest, risk.ActivateKillSwitchResponse)
RELEASE_KILL_SWITCH = _rpc(_RISK, "ReleaseKillSwitch", risk.ReleaseKillSwitchRequest, risk.ReleaseKillSwitchResponse)
LIST_KILL_SWITCHES = _rpc(_RISK, "ListKillSwitches", risk.ListKillSwitchesRequest, risk.ListKillSwitchesResponse)

CREATE_ACCOUNT = _rpc(_REFERENCE_DATA, "CreateAccount", reference.CreateAccountRequest, reference.CreateAccountResponse)
LIST_ACCOUNTS = _rpc(_REFERENCE_DATA, "ListAccounts", reference.ListAccountsRequest, reference.ListAccountsResponse)
LIST_INSTRUMENTS = _rpc(_REFERENCE_DATA, "ListInstruments", reference.ListInstrumentsRequest, reference.ListInstrumentsResponse)

GET_ORDER_BOOK = _rpc(_MARKET_DATA, "GetOrderBook", market.GetOrderBookRequest, market.GetOrderBookResponse)
BATCH_GET_QUOTES = _rpc(_MARKET_DATA, "BatchGetQuotes", market.BatchGetQuotesRequest, market.BatchGetQuotesResponse)
LIST_TRADES = _rpc(_MARKET_DATA, "ListTrades", market.ListTradesRequest, market.ListTradesResponse)

LIST_BALANCES = _rpc(_CUSTODY, "ListBalances", custody.ListBalancesRequest, custody.ListBalancesResponse)
LIST_SETTLEMENTS = _rpc(_CUSTODY, "ListSettlements", custody.ListSettlementsRequest, custody.ListSettlementsResponse)
CREATE_DEPOSIT = _rpc(_CUSTODY, "CreateDeposit", custody.CreateDepositRequest, custody.CreateDepositResponse)
GET_BUSINESS_DATE = _rpc(_CUSTODY, "GetBusinessDate", custody.GetBusinessDateRequest, custody.GetBusinessDateResponse)
ADVANCE_BUSINESS_DATE = _rpc(_CUSTODY, "AdvanceBusinessDate", custody.AdvanceBusinessDateRequest, custody.AdvanceBusinessDateResponse)
GET_LEDGER_STATUS = _rpc(_CUSTODY, "GetLedgerStatus", custody.GetLedgerStatusRequest, custody.GetLedgerStatusResponse)

GET_PORTFOLIO = _rpc(_PORTFOLIO, "GetPortfolio", portfolio.GetPortfolioRequest, portfolio.GetPortfolioResponse)
LIST_LOTS = _rpc(_PORTFOLIO, "ListLots", portfolio.ListLotsRequest, portfolio.ListLotsResponse)

CREATE_REPORT = _rpc(_REPORTING, "CreateReport", reporting.CreateReportRequest, operations_pb2.Operation)
GET_REPORT = _rpc(_REPORTING, "GetReport", reporting.GetReportRequest, reporting.GetReportResponse)
LIST_REPORTS = _rpc(_REPORTING, "ListReports", reporting.ListReportsRequest, reporting.ListReportsResponse)
DOWNLOAD_REPORT = _rpc(_REPORTING, "DownloadReport", reporting.DownloadReportRequest, httpbody_pb2.HttpBody)
