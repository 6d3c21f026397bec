"""Calls of every kind as clients outside make them, one by one: through the edge, with TLS and a token, each under a deadline."""

from __future__ import annotations

import asyncio
import random
import ssl
import uuid
from collections import deque
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import grpc

from cli import rpcs
from cli.access import LocalUsers
from cli.rpcs import Request, Response, Rpc
from kernel.errors import TrademeshError
from mesh.local.harness import LocalMesh
from mesh.local.outside import door
from tests.chaos.followed import BrokenStreamError, Followed
from tests.chaos.socket_reads import SocketError, SocketReads
from tests.e2e.crash.client import RETRIED, Ledger, answered_order, call_failure
from tests.e2e.crash.holdings_audit import CURRENCY, Deposits
from tests.e2e.crash.holdings_record import CASH, Asset, Deposit
from tests.e2e.crash.load import ACCOUNTS, Cancel, Command, Create, Load, Replace
from tests.e2e.crash.operations_desk import OPERATIONS
from tests.e2e.crash.world import TRADER
from trademesh.custody.v1 import custody_service_pb2, ledger_pb2
from trademesh.marketdata.v1 import market_data_service_pb2
from trademesh.oms.v1 import order_pb2, order_service_pb2
from trademesh.portfolio.v1 import portfolio_service_pb2
from trademesh.reporting.v1 import reporting_service_pb2

CALL_SECONDS = 2.0
INSTRUMENTS = ("AAPL", "MSFT", "NVDA", "BTC-USD")
AT_VENUE_SECONDS = 1.5
LOOK_SECONDS = 0.05
STOCKED_AT_ONCE = 12
AMOUNTS = ("1000", "250000.5")
READS: Mapping[str, Mapping[str, Any]] = {
    "trademesh.oms.v1.OrderService/ListOrders": {"account_id": ACCOUNTS[0], "page_size": 1},
    "trademesh.risk.v1.RiskService/GetRiskState": {"account_id": ACCOUNTS[0]},
    "trademesh.marketdata.v1.MarketDataService/BatchGetQuotes": {"instrument_ids": list(INSTRUMENTS)},
    "trademesh.custody.v1.CustodyService/ListBalances": {"account_id": ACCOUNTS[0]},
    "trademesh.portfolio.v1.PortfolioService/GetPortfolio": {"account_id": ACCOUNTS[0]},
    "trademesh.reporting.v1.ReportingService/ListReports": {},
}
"""One of each service that the gateway calls."""

# The user may do all of it, so a denial is no service's answer either.
_UNANSWERED = RETRIED | {"UNAUTHENTICATED", "PERMISSION_DENIED", "UNIMPLEMENTED", "INTERNAL"}
_AT_VENUE = frozenset({order_pb2.ORDER_STATE_NEW, order_pb2.ORDER_STATE_PARTIALLY_FILLED, order_pb2.ORDER_STATE_FILLED})
_ON_THE_WAY = frozenset({order_pb2.ORDER_STATE_PENDING_NEW, order_pb2.ORDER_STATE_UNKNOWN})
_OPTIONS = (
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 2_000),  # which is how long an attempt may take
    ("grpc.max_reconnect_backoff_ms", 250),
)
_RPCS: dict[type[Any], Rpc[Any, Any]] = {Create: rpcs.CREATE_ORDER, Cancel: rpcs.CANCEL_ORDER, Replace: rpcs.REPLACE_ORDER}


class NoAnswerError(Exception):
    """A call got no answer of a service: the transport's words, or a token could not be had. `code` is gRPC's name, `reason` our own."""

    def __init__(self, code: str, reason: str, text: str) -> None:
        super().__init__(f"{code} {reason} {text}"[:200])
        self.code, self.reason = code, reason


class Calls:
    """One user's calls and what they know. Each method is one try; what was not answered is asked again under its key by the next.

    Args:
        mesh: a running one.
        source: all chance comes from here.
        name: begins the keys of all orders.
        deposits: what is known of deposits, added to here.
    """

    def __init__(self, mesh: LocalMesh, source: random.Random, name: str, deposits: Deposits) -> None:
        entrance = door(mesh.layout)
        users = LocalUsers(mesh.layout)
        self._tokens = {caller.principal: users.tokens(caller) for caller in (TRADER, OPERATIONS)}
        credentials = grpc.ssl_channel_credentials(entrance.authority_file.read_bytes())
        self.channel = grpc.aio.secure_channel(entrance.edge, credentials, options=_OPTIONS)
        self.ledger = Ledger()
        # Each kind has its own, so that what one draws does not hang on how far the others have come.
        self._dice = {kind: random.Random(source.getrandbits(64)) for kind in ("order", "replace", "cancel", "deposit")}
        self._load = Load(self._dice["order"], name)
        self._prices = Load(self._dice["replace"], name)
        self._deposits = deposits
        self._open: dict[str, Command] = {}
        self._depositing: tuple[str, Deposit] | None = None
        self.placed: deque[order_pb2.Order] = deque(maxlen=400)
        self.replaced: deque[order_pb2.Order] = deque(maxlen=400)
        self._sent: deque[order_pb2.Order] = deque(maxlen=4)
        tls = ssl.create_default_context(cafile=str(entrance.authority_file))
        self.followed = Followed(self.channel, self._bearer, ACCOUNTS[0])
        self._sockets = SocketReads(entrance.edge, tls, self._bearer, READS)

    async def call(self, rpc: Rpc[Request, Response], request: Request, *, principal: str = TRADER.principal) -> Response:
        """Call once.

        Raises:
            NoAnswerError: nobody answered.
            grpc.aio.AioRpcError: a service refused.
        """
        method: Any = self.channel.unary_unary(rpc.path, rpc.request_type.SerializeToString, rpc.response_type.FromString)
        header = await asyncio.to_thread(self._bearer, principal)
        try:
            answer: Response = await method(request, timeout=CALL_SECONDS, metadata=(header,))
        except grpc.aio.AioRpcError as error:
            failure = call_failure(error)
            if failure.code in _UNANSWERED:
                raise NoAnswerError(failure.code, failure.reason, failure.text) from error
            raise
        return answer

    async def order(self) -> bool:
        """Place an order that rests."""
        await self._rest("order")
        return True

    async def stock(self, count: int) -> None:
        """Place orders that rest, several at a time, until there are so many."""

        async def fill(kind: str) -> None:
            while len(self.placed) < count:
                try:
                    await self._rest(kind)
                except NoAnswerError:
                    await asyncio.sleep(LOOK_SECONDS)

        await asyncio.gather(*(fill(f"stock {number}") for number in range(STOCKED_AT_ONCE)))

    async def _rest(self, kind: str) -> None:
        order = await self._command(kind, lambda: self._load.resting(1)[0])
        if order is not None and order.state != order_pb2.ORDER_STATE_REJECTED:
            self.placed.append(order)
            self._sent.append(order)

    async def replace(self) -> bool:
        """Change an order that was placed here; False while there is none."""
        if "replace" not in self._open and not self.placed:
            return False
        order = await self._command("replace", lambda: self._change(self.placed.popleft(), Replace))
        if order is not None:
            self.replaced.append(order)
        return True

    async def cancel(self) -> bool:
        """Cancel an order that was placed here; False while there is none."""
        pool = self.replaced or self.placed
        if "cancel" not in self._open and not pool:
            return False
        await self._command("cancel", lambda: self._change(pool.popleft(), Cancel))
        return True

    async def read(self) -> bool:
        """Read an order; False while there is none."""
        if not self._sent:
            return False
        order = self._sent[-1]
        await self.call(rpcs.GET_ORDER, order_service_pb2.GetOrderRequest(account_id=order.account_id, order_id=order.order_id))
        return True

    async def venue(self) -> bool:
        """See an order that was placed reach the venue; False while there is none under way."""
        if not self._sent:
            return False
        order, deadline = self._sent[0], asyncio.get_running_loop().time() + AT_VENUE_SECONDS
        request = order_service_pb2.GetOrderRequest(account_id=order.account_id, order_id=order.order_id)
        while (state := (await self.call(rpcs.GET_ORDER, request)).order.state) not in _AT_VENUE:
            if state not in _ON_THE_WAY:
                break
            if asyncio.get_running_loop().time() > deadline:
                raise NoAnswerError("DEADLINE_EXCEEDED", "", f"the venue has not answered for order {order.order_id}")
            await asyncio.sleep(LOOK_SECONDS)
        if self._sent and self._sent[0] is order:
            self._sent.popleft()
        if state not in _AT_VENUE | {order_pb2.ORDER_STATE_CANCELED}:
            raise NoAnswerError("FAILED_PRECONDITION", "", f"order {order.order_id} is {order_pb2.OrderState.Name(state)}")
        return True

    async def deposit(self) -> bool:
        """Put some cash in."""
        if self._depositing is None:
            dice = self._dice["deposit"]
            key = str(uuid.UUID(int=dice.getrandbits(128), version=4))
            self._depositing = key, Deposit(dice.choice(ACCOUNTS), Asset(CASH, CURRENCY), Decimal(dice.choice(AMOUNTS)))
            self._deposits.asked[key] = self._depositing[1]
        key, deposit = self._depositing
        request = custody_service_pb2.CreateDepositRequest(
            account_id=deposit.account_id,
            asset_type=ledger_pb2.ASSET_TYPE_CASH,
            asset_id=CURRENCY,
            amount=f"{deposit.amount:f}",
            comment="chaos",
            request_id=key,
        )
        answer = await self.call(rpcs.CREATE_DEPOSIT, request, principal=OPERATIONS.principal)
        self._deposits.answers[key] = answer.deposit_id
        self._depositing = None
        return True

    async def positions(self) -> bool:
        """Read positions."""
        await self.call(rpcs.GET_PORTFOLIO, portfolio_service_pb2.GetPortfolioRequest(account_id=ACCOUNTS[0]))
        return True

    async def quotes(self) -> bool:
        """Read prices."""
        await self.call(rpcs.BATCH_GET_QUOTES, market_data_service_pb2.BatchGetQuotesRequest(instrument_ids=INSTRUMENTS))
        return True

    async def reports(self) -> bool:
        """List reports."""
        await self.call(rpcs.LIST_REPORTS, reporting_service_pb2.ListReportsRequest(), principal=OPERATIONS.principal)
        return True

    async def stream(self) -> bool:
        """See a sign of life of the stream that is followed all the while."""
        try:
            await self.followed.sign()
        except BrokenStreamError as error:
            raise NoAnswerError(error.code, "", str(error)) from error
        return True

    async def socket(self) -> bool:
        """Read from every service over a socket."""
        try:
            await self._sockets.round(CALL_SECONDS)
        except SocketError as error:
            raise NoAnswerError("UNAVAILABLE", "", str(error)) from error
        return True

    async def close(self) -> None:
        """End the stream, and close the connections."""
        await self.followed.close()
        await self._sockets.close()
        await self.channel.close()

    @property
    def unanswered(self) -> list[str]:
        """What was asked and never answered, by kind."""
        return [*self._open, *(["deposit"] if self._depositing else [])]

    def _bearer(self, principal: str = TRADER.principal) -> tuple[str, str]:
        try:
            return "authorization", f"Bearer {self._tokens[principal].token().text}"
        except TrademeshError as error:
            raise NoAnswerError("UNAUTHENTICATED", "", f"no token: {error}") from error

    def _change(self, order: order_pb2.Order, kind: type[Replace] | type[Cancel]) -> Command:
        dice = self._dice["replace" if kind is Replace else "cancel"]
        key = str(uuid.UUID(int=dice.getrandbits(128), version=4))
        request = kind(account_id=order.account_id, order_id=order.order_id, request_id=key)
        if isinstance(request, Replace):
            request.limit_price = self._prices.other_price(order)
        return Command(order.account_id, key, request)

    async def _command(self, kind: str, draw: Any) -> order_pb2.Order | None:
        """Ask for the command of this kind that is open, or for another one; return the answer, None of a refusal."""
        command: Command = self._open.setdefault(kind, draw()) if kind not in self._open else self._open[kind]
        key = command.account_id, command.key
        self.ledger.commands[key] = command
        try:
            answer = await self.call(_RPCS[type(command.request)], command.request)
        except grpc.aio.AioRpcError as error:
            self.ledger.refused[key] = call_failure(error)
            del self._open[kind]
            return None
        order = answered_order(answer)
        self.ledger.answers[key] = order
        del self._open[kind]
        return order
