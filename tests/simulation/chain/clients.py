"""Clients: traders who enter, cancel and replace orders and ask again until they know; a risk officer who changes limits and switches."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from kernel.errors import (
    AbortedError,
    DeadlineExceededError,
    OutcomeUnknownError,
    ResourceExhaustedError,
    TrademeshError,
    UnavailableError,
)
from kernel.grpc_client import ClientConfig
from kernel.identity import Identity, User
from kernel.ids import DeterministicIdSource
from tests.simulation.chain.history import Answer, Call, History
from tests.simulation.chain.hosts import Host
from tests.simulation.chain.rpc import SimChannel, Switchboard
from trademesh.oms.v1 import order_pb2, order_service_pb2

ATTEMPTS_MAX = 60
_PASSING = (UnavailableError, OutcomeUnknownError, ResourceExhaustedError, AbortedError, DeadlineExceededError)


def client_channel(switchboard: Switchboard, host: Host, user: User, targets: Sequence[str]) -> SimChannel:
    """Return the way of an outside client to a service; it repeats nothing by itself."""
    config = ClientConfig(dependency=targets[0], targets=tuple(targets), timeout_seconds=4.0, failures_max=1_000_000)
    return SimChannel(switchboard, host, config, Identity("edge", user, ""))


def outcome_of(error: TrademeshError) -> str:
    """Say whether an error tells its caller that nothing was done."""
    if isinstance(error, OutcomeUnknownError):
        return "unknown"
    # Only a transport's own failure names its code; the service's own answers are definite, and so is a call that was never sent.
    lost = "grpc_code" in error.metadata and "never_sent" not in error.metadata
    return "unknown" if lost else "refused"


class Caller:
    """Makes calls and writes down what came of them."""

    def __init__(self, name: str, history: History, host: Host, dice: random.Random) -> None:
        self.name = name
        self.host = host
        self.dice = dice
        self._history = history

    async def once(self, rpc: Any, method: str, key: tuple[str, str], request: Any) -> Any:
        """Call once. Returns the response, or the error as a value."""
        loop = self.host.loop
        number = len(self._history.calls) + 1
        self._history.calls.append(Call(number, loop.time(), self.name, method, key, request.SerializeToString(deterministic=True)))
        try:
            response = await rpc(request)
        except TrademeshError as error:
            self._history.answers.append(Answer(number, loop.time(), outcome_of(error), error.reason.value))
            return error
        raw = response.SerializeToString(deterministic=True)
        self._history.answers.append(Answer(number, loop.time(), "ok", "", raw))
        return response

    async def until_known(self, rpc: Any, method: str, key: tuple[str, str], request: Any, *, give_up: float = 0.0) -> Any:
        """Call with one key until the answer is definite and not of passing trouble; return it.

        Args:
            rpc: the stub's method.
            method: its name.
            key: the client's.
            request: with that key in it.
            give_up: how likely it is to stop after a definite refusal for passing trouble, rather than to try again.
        """
        pause = 0.05
        answer: Any = None
        for _ in range(ATTEMPTS_MAX):
            answer = await self.once(rpc, method, key, request)
            if not isinstance(answer, _PASSING):
                return answer
            if outcome_of(answer) == "refused" and self.dice.random() < give_up:
                return answer
            await asyncio.sleep(pause * self.dice.uniform(0.5, 1.5))
            pause = min(2 * pause, 2.0)
        return answer


class Trader:
    """Somebody who trades a few accounts for a while.

    Args:
        caller: writes down the calls.
        stub: of OrderService.
        accounts: to trade for.
        prices: how the trader sees the market, by instrument: price, tick, quantity, lot.
    """

    def __init__(
        self, caller: Caller, stub: Any, accounts: Sequence[str], prices: dict[str, tuple[Decimal, Decimal, int, Decimal]]
    ) -> None:
        self._caller = caller
        self._dice = caller.dice
        self._stub = stub
        self._accounts = accounts
        self._prices = prices
        self._ids = DeterministicIdSource(sum(caller.name.encode()) * 7_919)
        self._count = 0
        self._orders: list[order_pb2.Order] = []

    async def trade(self, until: float) -> None:
        """Do one thing after the other, some of them at the same time, until a moment of the loop's time."""
        loop, under_way = self._caller.host.loop, set[asyncio.Task[None]]()
        while loop.time() < until:
            task = asyncio.create_task(self._act())
            under_way.add(task)
            if self._dice.random() < 0.5 or len(under_way) > 4:
                await asyncio.wait(under_way)
                under_way.clear()
            await asyncio.sleep(self._dice.expovariate(1.0) * 0.6)
        if under_way:
            await asyncio.wait(under_way)

    async def _act(self) -> None:
        kind = self._dice.random()
        if kind < 0.55 or not self._orders:
            await self._create(self._new_order())
        elif kind < 0.62:
            await self._batch()
        elif kind < 0.80:
            await self.cancel(self._dice.choice(self._orders))
        elif kind < 0.95:
            await self._replace(self._dice.choice(self._orders))
        elif kind < 0.97:
            # The same key at once on two replicas.
            request = self._new_order()
            await asyncio.gather(self._create(request), self._create(request))
        else:
            await self.cancel_all(self._dice.choice(self._accounts))

    def _new_order(self) -> order_service_pb2.CreateOrderRequest:
        self._count += 1
        dice = self._dice
        instrument_id = dice.choice(sorted(self._prices))
        price, tick, quantity_max, lot = self._prices[instrument_id]
        quantity = dice.randrange(1, quantity_max) * lot
        is_market = dice.random() < 0.1
        side = dice.choice((1, 2))
        away = round(float(price / tick) * dice.gauss(0.0, 0.004))
        limit_price = None if is_market else str(price + tick * away)
        time_in_force = dice.choice((1, 3)) if is_market else dice.choice((1, 1, 2, 2, 2, 3, 4))
        return order_service_pb2.CreateOrderRequest(
            account_id=dice.choice(self._accounts),
            client_order_id=f"{self._caller.name}-{self._count}",
            instrument_id=instrument_id,
            side=side,  # type: ignore[arg-type]
            type=1 if is_market else 2,  # type: ignore[arg-type]
            time_in_force=time_in_force,  # type: ignore[arg-type]
            quantity=_text(quantity),
            limit_price=limit_price,
        )

    async def create(self, request: order_service_pb2.CreateOrderRequest) -> order_pb2.Order:
        """Enter an order until its answer is known, and return it."""
        key = (request.account_id, request.client_order_id)
        answer = await self._caller.until_known(self._stub.CreateOrder, "CreateOrder", key, request)
        assert isinstance(answer, order_service_pb2.CreateOrderResponse), repr(answer)
        return answer.order

    async def _create(self, request: order_service_pb2.CreateOrderRequest) -> None:
        key = (request.account_id, request.client_order_id)
        answer = await self._caller.until_known(self._stub.CreateOrder, "CreateOrder", key, request, give_up=0.3)
        if isinstance(answer, order_service_pb2.CreateOrderResponse):
            self._orders.append(answer.order)
            if self._dice.random() < 0.1:
                await self._caller.until_known(self._stub.CreateOrder, "CreateOrder", key, request)

    async def _batch(self) -> None:
        requests = [self._new_order() for _ in range(self._dice.randrange(2, 6))]
        key = (requests[0].account_id, f"batch-{requests[0].client_order_id}")
        batch = order_service_pb2.BatchCreateOrdersRequest(requests=requests)
        answer = await self._caller.once(self._stub.BatchCreateOrders, "BatchCreateOrders", key, batch)
        if not isinstance(answer, order_service_pb2.BatchCreateOrdersResponse):
            return
        for request, result in zip(requests, answer.results, strict=True):
            if result.HasField("order"):
                self._orders.append(result.order)
            elif self._dice.random() < 0.5:
                await self._create(request)

    async def cancel(self, order: order_pb2.Order) -> None:
        """Ask for the cancel of an order until the answer is known."""
        request_id = self._ids.new_id()
        request = order_service_pb2.CancelOrderRequest(account_id=order.account_id, order_id=order.order_id, request_id=request_id)
        await self._caller.until_known(self._stub.CancelOrder, "CancelOrder", (order.account_id, request_id), request)

    async def _replace(self, order: order_pb2.Order) -> None:
        dice, (price, tick, quantity_max, lot) = self._dice, self._prices[order.instrument_id]
        request_id = self._ids.new_id()
        request = order_service_pb2.ReplaceOrderRequest(account_id=order.account_id, order_id=order.order_id, request_id=request_id)
        if dice.random() < 0.7:
            request.quantity = _text(dice.randrange(1, 2 * quantity_max) * lot)
        if order.HasField("limit_price") and (dice.random() < 0.7 or not request.HasField("quantity")):
            request.limit_price = str(price + tick * round(float(price / tick) * dice.gauss(0.0, 0.004)))
        if not request.HasField("quantity") and not request.HasField("limit_price"):
            return
        await self.replace(request)

    async def replace(self, request: order_service_pb2.ReplaceOrderRequest) -> None:
        """Ask for new terms of an order until the answer is known."""
        await self._caller.until_known(self._stub.ReplaceOrder, "ReplaceOrder", (request.account_id, request.request_id), request)

    async def cancel_all(self, account_id: str) -> None:
        """Ask for the cancel of everything that an account has open."""
        request_id = self._ids.new_id()
        request = order_service_pb2.CancelAllOrdersRequest(account_id=account_id, request_id=request_id)
        await self._caller.until_known(self._stub.CancelAllOrders, "CancelAllOrders", (account_id, request_id), request)


def _text(value: Decimal) -> str:
    return f"{value.normalize():f}"
