"""Facts for risk's decisions, with one thing changed at a time."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from svc_risk.domain.calendar import TradingCalendar
from svc_risk.domain.check import Approval, OrderCheck, Refusal
from svc_risk.domain.decide import Facts, decide
from svc_risk.domain.exposure import FLAT, AccountExposure, InstrumentExposure, instrument_exposure, no_exposure
from svc_risk.domain.market import market
from svc_risk.domain.policy import Account, AccountPolicy, Bounds, Instrument, InstrumentPolicy, binding, bounds, limit_value
from svc_risk.domain.reference_price import PriceSource, ReferencePrice
from svc_risk.domain.vocabulary import (
    AccountStatus,
    AssetClass,
    CheckKind,
    InstrumentStatus,
    LimitScope,
    LimitType,
    OrderType,
    Side,
    TimeInForce,
)

NOW = datetime(2026, 3, 2, 15, 0, tzinfo=UTC)
AROUND_THE_CLOCK = TradingCalendar("UTC", None, None, frozenset())

ACCOUNT_LIMITS = {
    LimitType.MAX_NOTIONAL: "100000",
    LimitType.OPEN_EXPOSURE: "200000",
    LimitType.GROSS_EXPOSURE: "300000",
    LimitType.MESSAGE_RATE: "10",
    LimitType.DUPLICATE_WINDOW: "2",
}
INSTRUMENT_LIMITS = {
    LimitType.MAX_QUANTITY: "1000",
    LimitType.PRICE_COLLAR: "0.05",
    LimitType.PRICE_COLLAR_PRIOR_CLOSE: "0.1",
}


def account(status: AccountStatus = AccountStatus.ACTIVE, **changes: Any) -> Account:
    fields = {"account_id": "ACC-1", "tenant": "north", "display_name": "One", "currency": "USD", "status": status, "version": 1}
    return Account(**{**fields, "create_time": NOW, "update_time": NOW, **changes})


def instrument(**changes: Any) -> Instrument:
    fields: dict[str, Any] = {
        "instrument_id": "AAPL",
        "display_name": "Apple",
        "asset_class": AssetClass.EQUITY,
        "currency": "USD",
        "tick_size": Decimal("0.01"),
        "lot_size": Decimal(1),
        "venue": "XSIM",
        "calendar": AROUND_THE_CLOCK,
        "status": InstrumentStatus.ACTIVE,
        "version": 1,
        "update_time": NOW,
    }
    return Instrument(**{**fields, **changes})


def limits(scope: LimitScope, scope_id: str, values: Mapping[LimitType, str], switches: tuple[str, ...] = ()) -> Bounds:
    return bounds(scope, scope_id, {kind: limit_value(Decimal(value)) for kind, value in values.items()}, switches)


def account_policy(values: Mapping[LimitType, str] | None = None, switches: tuple[str, ...] = (), **changes: Any) -> AccountPolicy:
    owner = account(**changes)
    return AccountPolicy(owner, limits(LimitScope.ACCOUNT, owner.account_id, ACCOUNT_LIMITS if values is None else values, switches))


def trader_bounds(values: Mapping[LimitType, str] | None = None, switches: tuple[str, ...] = ()) -> Bounds:
    return limits(LimitScope.TRADER, "ada", values or {}, switches)


def instrument_policy(values: Mapping[LimitType, str] | None = None, switches: tuple[str, ...] = (), **changes: Any) -> InstrumentPolicy:
    traded = instrument(**changes)
    found = limits(LimitScope.INSTRUMENT, traded.instrument_id, INSTRUMENT_LIMITS if values is None else values, switches)
    return InstrumentPolicy(traded, found)


def reference(price: str = "100", source: PriceSource = PriceSource.MID, *, fresh: bool = True) -> ReferencePrice:
    return ReferencePrice(Decimal(price), source, fresh)


def order(side: Side = Side.BUY, quantity: str = "10", price: str | None = "100", **changes: Any) -> OrderCheck:
    fields: dict[str, Any] = {
        "kind": CheckKind.NEW,
        "order_id": "o-1",
        "request_id": "o-1",
        "payload_hash": b"h",
        "principal": "ada",
        "tenant": "north",
        "may_trade": True,
        "account_id": "ACC-1",
        "instrument_id": "AAPL",
        "side": side,
        "type": OrderType.MARKET if price is None else OrderType.LIMIT,
        "time_in_force": TimeInForce.DAY,
        "quantity": Decimal(quantity),
        "limit_price": None if price is None else Decimal(price),
        "duplicate_key": 1,
    }
    return OrderCheck(**{**fields, **changes})


def position(
    quantity: str = "0", mark: str = "100", buys: tuple[str, str] = ("0", "0"), sells: tuple[str, str] = ("0", "0")
) -> InstrumentExposure:
    return instrument_exposure(Decimal(quantity), Decimal(mark), *(Decimal(text) for text in (*buys, *sells)))


def exposure_of(*positions: InstrumentExposure) -> AccountExposure:
    buy, sell = sum((p.buy_notional for p in positions), Decimal(0)), sum((p.sell_notional for p in positions), Decimal(0))
    gross = sum((p.gross for p in positions), Decimal(0))
    return no_exposure(NOW)._replace(buy_notional=buy, sell_notional=sell, gross=gross)


def facts(check: OrderCheck | None = None, **changes: Any) -> Facts:
    held = changes.get("position", FLAT)
    owner, traded = changes.pop("account", account_policy()), changes.pop("instrument", instrument_policy())
    priced, is_open = changes.pop("reference", reference()), changes.pop("market_open", True)
    fields: dict[str, Any] = {
        "check": order() if check is None else check,
        "binding": binding(owner, changes.pop("trader", trader_bounds()), traded),
        "market": market(traded, priced, is_open=is_open),
        "exposure": exposure_of(held),
        "position": held,
        "reservation": None,
        "account_messages": 0,
        "trader_messages": 0,
        "duplicate": False,
    }
    return Facts(**{**fields, **changes})


def approve(made: Facts) -> Approval:
    outcome = decide(made)
    assert isinstance(outcome, Approval), outcome
    return outcome


def refuse(made: Facts) -> list[tuple[str, str, str, str]]:
    """Return the breaches of a refusal as (reason, scope, limit, actual)."""
    outcome = decide(made)
    assert isinstance(outcome, Refusal), outcome
    return [(breach.reason.value, breach.scope, breach.limit, breach.actual) for breach in outcome.breaches]
