"""What the public RPCs say once the mesh has come to rest: every first answer again, every order by id and by key, every exposure."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import grpc

from mesh.local.harness import LocalMesh
from tests.e2e.crash.client import BATCH_MAX, Clients, Connection, call_failure
from tests.e2e.crash.findings import Lost, Unresolved
from tests.e2e.crash.load import ACCOUNTS, Cancel, Command, Create, Replace
from tests.e2e.crash.order_record import OrderRecord
from tests.e2e.crash.risk_record import RiskRecord
from tests.e2e.crash.world import TRADER
from trademesh.oms.v1 import execution_pb2, order_pb2, order_service_pb2
from trademesh.risk.v1 import risk_service_pb2
from trademesh.risk.v1.risk_service_pb2_grpc import RiskServiceStub

PAGE_SIZE = 500
SAMPLE = 200
AT_ONCE = 32


async def read_back(clients: Clients, mesh: LocalMesh, source: random.Random, orders: OrderRecord, risk: RiskRecord) -> list[str]:
    """Return everything in which the RPCs differ from first answers and records."""
    found = [finding async for finding in _orders_again(clients)]
    found += await _requests_again(clients)
    found += resolved(await _lookups(clients, source, orders), orders)
    for account_id in ACCOUNTS:
        found += [finding async for finding in _lists(clients.next(), account_id, orders)]
    found += await _exposures(mesh, risk)
    return found


async def _orders_again(clients: Clients) -> AsyncIterator[str]:
    """The same commands under the same keys get the first answers."""
    answered = clients.ledger.of(Create)
    for start in range(0, len(answered), BATCH_MAX):
        part = answered[start : start + BATCH_MAX]
        results = await clients.next().batch([command.request for command, _ in part if isinstance(command.request, Create)])
        for (command, first), result in zip(part, results, strict=True):
            if result.order != first:
                yield f"order {command.key}: first answered {_line(first)}, now {_line(result)}; {_differing(first, result.order)}"


async def _requests_again(clients: Clients) -> list[str]:
    at_once = asyncio.Semaphore(AT_ONCE)

    async def again(command: Command, first: order_pb2.Order) -> str | None:
        async with at_once:
            try:
                answer = await clients.next().unary(command)
            except grpc.aio.AioRpcError as error:
                return f"request {command.key}: first answered {_line(first)}, now {call_failure(error)}"
        return None if answer == first else f"request {command.key} on order {answer.order_id}: {_differing(first, answer)}"

    answered = [*clients.ledger.of(Cancel), *clients.ledger.of(Replace)]
    return [finding for finding in await asyncio.gather(*(again(*item) for item in answered)) if finding is not None]


@dataclass(frozen=True, slots=True)
class Lookup:
    """What the RPCs say of a client's key, and of the order that was acknowledged under it or stands on disk for it."""

    command: Command
    order_id: str
    by_key: order_pb2.Order | None
    by_id: order_pb2.Order | None
    acknowledged: bool


def resolved(lookups: Iterable[Lookup], orders: OrderRecord) -> Iterator[str]:
    """Rule 5: a key tells what became of its command, whoever heard the answer: the order as it is, or that there is none."""
    for look in lookups:
        kind = Lost if look.acknowledged else Unresolved
        stored = orders.snapshots.get(look.order_id) if look.order_id else None
        if stored is None:
            if look.by_key is not None and look.by_key.state != order_pb2.ORDER_STATE_ABANDONED:
                yield kind(f"key {look.command.key} has no order on disk, and is answered {_line(look.by_key)}")
            elif look.acknowledged:
                yield kind(f"order {look.order_id} of key {look.command.key} was acknowledged and is not on disk")
            continue
        for how, shown in (("by key", look.by_key), ("by id", look.by_id)):
            if shown != stored:
                yield kind(f"order {look.order_id} of key {look.command.key} is {_line(stored)}, and shown {how} as {_line(shown)}")


async def _lookups(clients: Clients, source: random.Random, orders: OrderRecord) -> list[Lookup]:
    """A sample of what was acknowledged, and all that nobody heard of: by key, and by id."""
    ledger, at_once = clients.ledger, asyncio.Semaphore(AT_ONCE)
    acknowledged = [(command, answer.order_id) for command, answer in ledger.of(Create)]
    wanted = source.sample(acknowledged, min(SAMPLE, len(acknowledged)))
    wanted += [(ledger.commands[key], "") for key in ledger.lost if isinstance(ledger.commands[key].request, Create)]
    known = {
        (history.terms.account_id, history.terms.client_order_id): order_id
        for order_id, history in orders.histories.items()
        if history.terms
    }

    async def look(command: Command, answered: str) -> Lookup:
        order_id, account_id = answered or known.get((command.account_id, command.key), ""), command.account_id
        async with at_once:
            key = order_service_pb2.LookupOrderRequest(account_id=account_id, client_order_id=command.key)
            by_key, by_id = await _get(clients.next(), key), None
            if order_id:
                by_id = await _get(clients.next(), order_service_pb2.GetOrderRequest(account_id=account_id, order_id=order_id))
        return Lookup(command, order_id, by_key, by_id, acknowledged=bool(answered))

    return await asyncio.gather(*(look(*item) for item in wanted))


async def _get(
    connection: Connection, request: order_service_pb2.LookupOrderRequest | order_service_pb2.GetOrderRequest
) -> order_pb2.Order | None:
    by_key = isinstance(request, order_service_pb2.LookupOrderRequest)
    method = connection.orders.LookupOrder if by_key else connection.orders.GetOrder
    try:
        response = await method(request, metadata=connection.metadata, timeout=10)
    except grpc.aio.AioRpcError as error:
        if error.code() is grpc.StatusCode.NOT_FOUND:
            return None
        raise
    order: order_pb2.Order = response.order
    return order


async def _lists(connection: Connection, account_id: str, orders: OrderRecord) -> AsyncIterator[str]:
    """Page by page, all orders and all executions of an account."""
    listed = [order async for order in _pages(connection, "ListOrders", "orders", account_id)]
    # What was given up never was an order: it is shown to those who ask for it.
    listed += [order async for order in _pages(connection, "ListOrders", "orders", account_id, states=[order_pb2.ORDER_STATE_ABANDONED])]
    stored = {order_id: order for order_id, order in orders.snapshots.items() if order.account_id == account_id}
    if len(listed) != len(stored) or any(stored.get(order.order_id) != order for order in listed):
        yield f"{account_id}: ListOrders shows {len(listed)} orders, {len(stored)} are on disk, or some of them differ"
    executions: list[execution_pb2.Execution] = [item async for item in _pages(connection, "ListExecutions", "executions", account_id)]
    shown = sorted((item.trade_date, item.exec_id, item.order_id, item.last_quantity, item.last_price) for item in executions)
    on_disk = sorted(
        (item.trade_date, item.exec_id, item.order_id, item.last_quantity, item.last_price)
        for item in orders.executions
        if item.account_id == account_id
    )
    if shown != on_disk:
        yield f"{account_id}: ListExecutions shows {len(shown)} executions, {len(on_disk)} are on disk, or some of them differ"


async def _pages(connection: Connection, method: str, name: str, account_id: str, **filters: Any) -> AsyncIterator[Any]:
    token, request_type = "", getattr(order_service_pb2, f"{method}Request")
    while True:
        request = request_type(account_id=account_id, page_size=PAGE_SIZE, page_token=token, **filters)
        response = await getattr(connection.orders, method)(request, metadata=connection.metadata, timeout=10)
        for item in getattr(response, name):
            yield item
        token = response.next_page_token
        if not token:
            return


async def _exposures(mesh: LocalMesh, risk: RiskRecord) -> list[str]:
    """Each replica of risk says the same, and it is what is on disk."""
    found = []
    for endpoint in mesh.endpoints("svc_risk"):
        async with grpc.aio.insecure_channel(endpoint.target) as channel:
            stub: Any = RiskServiceStub(channel)
            for account_id in ACCOUNTS:
                request = risk_service_pb2.GetRiskStateRequest(account_id=account_id)
                state = await stub.GetRiskState(request, metadata=endpoint.metadata(TRADER), timeout=10)
                found += [f"{endpoint.instance}: {account_id}: {finding}" for finding in _exposure(state, risk)]
    return found


def _exposure(state: risk_service_pb2.GetRiskStateResponse, risk: RiskRecord) -> Iterator[str]:
    account = risk.accounts[state.account_id]
    pairs: list[tuple[str, object, object]] = [
        ("open_buy_notional", Decimal(state.open_buy_notional), account["buy_notional"]),
        ("open_sell_notional", Decimal(state.open_sell_notional), account["sell_notional"]),
        ("reservation_count", state.reservation_count, account["reservation_count"]),
    ]
    shown = {item.instrument_id: item for item in state.instruments}
    for (account_id, instrument_id), row in risk.positions.items():
        item = shown.get(instrument_id)
        if account_id != state.account_id or item is None:
            # An instrument without anything in it need not be shown.
            empty = not any(row[name] for name in ("position", "buy_quantity", "sell_quantity"))
            pairs.append((instrument_id, account_id == state.account_id and not empty, False))
            continue
        pairs += [
            (f"{instrument_id} position", Decimal(item.position_quantity), row["position"]),
            (f"{instrument_id} open buys", Decimal(item.open_buy_quantity), row["buy_quantity"]),
            (f"{instrument_id} open sells", Decimal(item.open_sell_quantity), row["sell_quantity"]),
        ]
    return (f"{name} is shown as {said}, on disk it is {stored}" for name, said, stored in pairs if said != stored)


def _differing(first: order_pb2.Order, now: order_pb2.Order) -> str:
    """Say in which fields the answers differ."""
    names = [field.name for field in first.DESCRIPTOR.fields if getattr(first, field.name) != getattr(now, field.name)]
    return ", ".join(f"{name} was first answered {_line(getattr(first, name))}, now {_line(getattr(now, name))}" for name in names)


def _line(message: object) -> str:
    return " ".join(str(message).split())[:300]
