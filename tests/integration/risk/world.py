"""A small world for risk's tests: accounts, instruments, limits and prices, written straight into the schema by its owner."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable
from decimal import Decimal

import asyncpg

from kernel.config import Dsn
from kernel.ids import order_id
from svc_risk.codec.checks import duplicate_key
from svc_risk.domain.check import OrderCheck
from svc_risk.domain.vocabulary import CheckKind, LimitScope, LimitType, OrderType, Side, TimeInForce

TENANT = "north"
VENUE = "XSIM"
ALWAYS_OPEN: tuple[str, str, str, list[str]] = ("UTC", "", "", [])

DEFAULT_LIMITS: dict[tuple[LimitScope, LimitType], str] = {
    (LimitScope.ACCOUNT, LimitType.MAX_NOTIONAL): "1000000",
    (LimitScope.ACCOUNT, LimitType.OPEN_EXPOSURE): "5000000",
    (LimitScope.ACCOUNT, LimitType.GROSS_EXPOSURE): "10000000",
    (LimitScope.ACCOUNT, LimitType.MESSAGE_RATE): "100000",
    (LimitScope.INSTRUMENT, LimitType.MAX_QUANTITY): "100000",
    (LimitScope.INSTRUMENT, LimitType.PRICE_COLLAR): "0.05",
    (LimitScope.INSTRUMENT, LimitType.PRICE_COLLAR_PRIOR_CLOSE): "0.1",
}

_numbers = itertools.count(1)


async def populate(
    owner_dsn: Dsn,
    *,
    accounts: Iterable[str] = ("ACC-1", "ACC-2"),
    instruments: Iterable[str] = ("AAPL", "MSFT"),
    limits: dict[tuple[LimitScope, LimitType], str] | None = None,
    price: str = "100",
    tenant: str = TENANT,
) -> None:
    """Create accounts, instruments priced in USD with tick 0.01 and lot 1, default limits, and a live feed that quotes one price."""
    connection = await asyncpg.connect(owner_dsn.reveal())
    try:
        for account in accounts:
            await connection.execute("INSERT INTO account VALUES ($1, $2, 'a name', 'USD', 1, 1, now(), now())", account, tenant)
            await connection.execute("INSERT INTO account_exposure VALUES ($1, 0, 0, 0, 0, 0, 0, '', now())", account)
        for instrument in instruments:
            await connection.execute(
                "INSERT INTO instrument VALUES ($1, 'a name', 1, 'USD', 0.01, 1, $2, $3, $4, $5, $6, 1, 1, now())",
                instrument,
                VENUE,
                *ALWAYS_OPEN,
            )
        for (scope, limit_type), value in (DEFAULT_LIMITS if limits is None else limits).items():
            await set_limit(connection, scope, "*", limit_type, value)
        await quote(connection, instruments, price)
        await connection.execute("INSERT INTO price_feed VALUES ($1, now() + interval '1 hour') ON CONFLICT DO NOTHING", VENUE)
    finally:
        await connection.close()


async def set_limit(
    connection: asyncpg.Connection[asyncpg.Record], scope: LimitScope, scope_id: str, limit_type: LimitType, value: str
) -> None:
    """Set a limit, as an operator with SQL would."""
    await connection.execute(
        "INSERT INTO risk_limit VALUES ($1, $2, $3, $4, 1, 'a test', now())"
        " ON CONFLICT (scope, scope_id, type) DO UPDATE SET value = excluded.value",
        *(scope, scope_id, limit_type, Decimal(value)),
    )  # fmt: skip


async def quote(connection: asyncpg.Connection[asyncpg.Record], instruments: Iterable[str], price: str) -> None:
    """Make the feed quote a price on both sides."""
    for instrument in instruments:
        await connection.execute(
            "INSERT INTO reference_price VALUES ($1, $2, $2, $2, $2, current_date, false, $3, now())"
            " ON CONFLICT (instrument_id) DO UPDATE SET bid = excluded.bid, ask = excluded.ask",
            *(instrument, Decimal(price), VENUE),
        )  # fmt: skip


def buy(quantity: str, price: str | None = "100", *, account: str = "ACC-1", instrument: str = "AAPL", **more: object) -> OrderCheck:
    """Return the check of a new order with a key of its own."""
    return check(Side.BUY, quantity, price, account=account, instrument=instrument, **more)


def sell(quantity: str, price: str | None = "100", *, account: str = "ACC-1", instrument: str = "AAPL", **more: object) -> OrderCheck:
    """Return the check of a new order with a key of its own."""
    return check(Side.SELL, quantity, price, account=account, instrument=instrument, **more)


def check(side: Side, quantity: str, price: str | None, *, account: str, instrument: str, **more: object) -> OrderCheck:
    """Return the check of a new order; `more` replaces fields."""
    key = f"order-{next(_numbers)}"
    name = order_id(account, key)
    amount, limit_price = Decimal(quantity), None if price is None else Decimal(price)
    made = OrderCheck(
        CheckKind.NEW,
        name,
        name,
        hashlib.sha256(f"{key} {side} {quantity} {price}".encode()).digest(),
        "ada",
        TENANT,
        True,
        account,
        instrument,
        side,
        OrderType.MARKET if limit_price is None else OrderType.LIMIT,
        TimeInForce.DAY,
        amount,
        limit_price,
        duplicate_key(account, instrument, side, amount, limit_price),
    )
    return made._replace(**more) if more else made  # type: ignore[arg-type]
