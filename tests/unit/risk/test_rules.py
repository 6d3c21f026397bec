"""Every rule at its edge, what an approval reserves, and the order in which refusals come."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from kernel.errors import Reason
from svc_risk.domain.check import Invalidity, Undecided
from svc_risk.domain.decide import decide
from svc_risk.domain.policy import MANDATORY
from svc_risk.domain.reference_price import PriceSource
from svc_risk.domain.reservation import Reservation, ReservationStatus
from svc_risk.domain.vocabulary import AccountStatus, CheckKind, InstrumentStatus, LimitScope, LimitType, OrderType, Side, TimeInForce
from tests.unit.risk.parts import (
    ACCOUNT_LIMITS,
    INSTRUMENT_LIMITS,
    account_policy,
    approve,
    exposure_of,
    facts,
    instrument_policy,
    order,
    position,
    reference,
    refuse,
    trader_bounds,
)


@pytest.mark.parametrize(
    ("check", "held", "why"),
    [
        (order(Side.BUY, "10", "99.5"), ("10", "995"), "a buyer's limit is the most that is paid"),
        (order(Side.SELL, "10", "101"), ("10", "1010"), "a seller's limit above the market"),
        (order(Side.SELL, "10", "96"), ("10", "1000"), "a sell below the market trades at the market"),
        (order(Side.BUY, "10", None), ("10", "1050"), "a market order counts at the collar's edge"),
        (order(Side.SELL, "10", None), ("10", "1050"), "on either side"),
    ],
)
def test_what_an_approval_reserves(check: Any, held: tuple[str, str], why: str) -> None:
    approval = approve(facts(check))
    assert approval.held == (Decimal(held[0]), Decimal(held[1])), why
    assert approval.reference == 100
    assert (approval.venue, approval.tenant) == ("XSIM", "north")


def test_a_market_order_at_a_prior_close_counts_at_the_wider_collar() -> None:
    assert approve(facts(order(price=None), reference=reference(source=PriceSource.PRIOR_CLOSE))).held.notional == 1100


def test_a_product_that_needs_more_than_eighteen_places_is_rounded_up() -> None:
    fine = instrument_policy(tick_size=Decimal("0.000000001"), lot_size=Decimal("0.000000001"))
    made = facts(order(quantity="0.333333333", price=None), instrument=fine, reference=reference("0.777777777"))
    exact = Decimal("0.333333333") * (Decimal("0.777777777") * Decimal("1.05"))
    assert exact < approve(made).held.notional < exact + Decimal("1e-17")


EDGES: list[tuple[str, dict[str, Any], dict[str, Any], tuple[str, str, str, str]]] = [
    (
        "quantity of the instrument",
        {"check": order(quantity="1000", price="96")},
        {"check": order(quantity="1001", price="96")},
        ("MAX_QUANTITY_EXCEEDED", "instrument/AAPL", "1000", "1001"),
    ),
    (
        "quantity of the trader",
        {"trader": trader_bounds({LimitType.MAX_QUANTITY: "10"})},
        {"trader": trader_bounds({LimitType.MAX_QUANTITY: "9"})},
        ("MAX_QUANTITY_EXCEEDED", "trader/ada", "9", "10"),
    ),
    (
        "quantity of the account",
        {"account": account_policy(ACCOUNT_LIMITS | {LimitType.MAX_QUANTITY: "10"})},
        {"account": account_policy(ACCOUNT_LIMITS | {LimitType.MAX_QUANTITY: "9.5"})},
        ("MAX_QUANTITY_EXCEEDED", "account/ACC-1", "9.5", "10"),
    ),
    (
        "notional of the account",
        {"check": order(quantity="1000", price="100")},
        {"check": order(quantity="1000", price="100.01")},
        ("MAX_NOTIONAL_EXCEEDED", "account/ACC-1", "100000", "100010"),
    ),
    (
        "notional of the trader",
        {"trader": trader_bounds({LimitType.MAX_NOTIONAL: "1000"})},
        {"trader": trader_bounds({LimitType.MAX_NOTIONAL: "999.99"})},
        ("MAX_NOTIONAL_EXCEEDED", "trader/ada", "999.99", "1000"),
    ),
    (
        "notional of the instrument",
        {"instrument": instrument_policy(INSTRUMENT_LIMITS | {LimitType.MAX_NOTIONAL: "1000"})},
        {"instrument": instrument_policy(INSTRUMENT_LIMITS | {LimitType.MAX_NOTIONAL: "999"})},
        ("MAX_NOTIONAL_EXCEEDED", "instrument/AAPL", "999", "1000"),
    ),
    (
        "collar above, buy: the aggressive side",
        {"check": order(Side.BUY, price="105")},
        {"check": order(Side.BUY, price="105.01")},
        ("PRICE_COLLAR_BREACHED", "instrument/AAPL", "0.05", "0.0501"),
    ),
    (
        "collar below, buy: the passive side",
        {"check": order(Side.BUY, price="95")},
        {"check": order(Side.BUY, price="94.99")},
        ("PRICE_COLLAR_BREACHED", "instrument/AAPL", "0.05", "0.0501"),
    ),
    (
        "collar below, sell: the aggressive side",
        {"check": order(Side.SELL, price="95")},
        {"check": order(Side.SELL, price="94.99")},
        ("PRICE_COLLAR_BREACHED", "instrument/AAPL", "0.05", "0.0501"),
    ),
    (
        "collar above, sell: the passive side",
        {"check": order(Side.SELL, price="105")},
        {"check": order(Side.SELL, price="105.01")},
        ("PRICE_COLLAR_BREACHED", "instrument/AAPL", "0.05", "0.0501"),
    ),
    (
        "wider collar around a prior close",
        {"check": order(price="110"), "reference": reference(source=PriceSource.PRIOR_CLOSE)},
        {"check": order(price="110.01"), "reference": reference(source=PriceSource.PRIOR_CLOSE)},
        ("PRICE_COLLAR_BREACHED", "instrument/AAPL", "0.1", "0.1001"),
    ),
    (
        "open exposure",
        {"position": position(buys=("1990", "199000"))},
        {"position": position(buys=("1990", "199000.01"))},
        ("OPEN_EXPOSURE_EXCEEDED", "account/ACC-1", "200000", "200000.01"),
    ),
    (
        "gross exposure, bought on top of a long position",
        {"position": position("2990")},
        {"position": position("2991")},
        ("GROSS_EXPOSURE_EXCEEDED", "account/ACC-1", "300000", "300100"),
    ),
    (
        "gross exposure, sold on top of a short position",
        {"check": order(Side.SELL), "position": position("-2990")},
        {"check": order(Side.SELL), "position": position("-2991")},
        ("GROSS_EXPOSURE_EXCEEDED", "account/ACC-1", "300000", "300100"),
    ),
    (
        "messages of the account",
        {"account_messages": 9},
        {"account_messages": 10},
        ("MESSAGE_RATE_EXCEEDED", "account/ACC-1", "10", "11"),
    ),
    (
        "messages of the trader",
        {"trader": trader_bounds({LimitType.MESSAGE_RATE: "5"}), "trader_messages": 4},
        {"trader": trader_bounds({LimitType.MESSAGE_RATE: "5"}), "trader_messages": 5},
        ("MESSAGE_RATE_EXCEEDED", "trader/ada", "5", "6"),
    ),
]


@pytest.mark.parametrize(("within", "beyond", "breach"), [edge[1:] for edge in EDGES], ids=[edge[0] for edge in EDGES])
def test_a_limit_holds_at_its_value_and_refuses_beyond(
    within: dict[str, Any], beyond: dict[str, Any], breach: tuple[str, str, str, str]
) -> None:
    approve(facts(**within))
    assert refuse(facts(**beyond)) == [breach]


@pytest.mark.parametrize(
    ("changes", "breach"),
    [
        ({"account": account_policy(switches=("firm/*",))}, ("KILL_SWITCH_ACTIVE", "firm/*", "", "")),
        ({"trader": trader_bounds(switches=("trader/ada",))}, ("KILL_SWITCH_ACTIVE", "trader/ada", "", "")),
        ({"instrument": instrument_policy(switches=("instrument/AAPL",))}, ("KILL_SWITCH_ACTIVE", "instrument/AAPL", "", "")),
        ({"account": account_policy(status=AccountStatus.SUSPENDED)}, ("ACCOUNT_NOT_ACTIVE", "account/ACC-1", "", "")),
        ({"account": account_policy(status=AccountStatus.CLOSED)}, ("ACCOUNT_NOT_ACTIVE", "account/ACC-1", "", "")),
        ({"instrument": instrument_policy(status=InstrumentStatus.SUSPENDED)}, ("INSTRUMENT_NOT_ACTIVE", "instrument/AAPL", "", "")),
        ({"market_open": False}, ("MARKET_CLOSED", "instrument/AAPL", "", "")),
        ({"duplicate": True}, ("DUPLICATE_ORDER", "account/ACC-1", "2", "")),
    ],
)
def test_rules_without_a_number(changes: dict[str, Any], breach: tuple[str, str, str, str]) -> None:
    assert refuse(facts(**changes)) == [breach]
    # These four need no price, so they refuse without one as well.
    if breach[0] != "DUPLICATE_ORDER":
        assert refuse(facts(**changes, reference=None)) == [breach]


@pytest.mark.parametrize("limit_type", MANDATORY[LimitScope.ACCOUNT])
def test_without_a_mandatory_limit_of_the_account_nothing_is_allowed(limit_type: LimitType) -> None:
    values = {kind: value for kind, value in ACCOUNT_LIMITS.items() if kind is not limit_type}
    assert refuse(facts(account=account_policy(values))) == [("LIMIT_NOT_SET", "account/ACC-1", "", "")]


@pytest.mark.parametrize("check", [order(), order(price=None)], ids=["limit", "market"])
@pytest.mark.parametrize(
    ("missing", "source"),
    [
        (LimitType.MAX_QUANTITY, PriceSource.MID),
        (LimitType.PRICE_COLLAR, PriceSource.LAST_TRADE),
        (LimitType.PRICE_COLLAR_PRIOR_CLOSE, PriceSource.PRIOR_CLOSE),
    ],
)
def test_without_a_mandatory_limit_of_the_instrument_nothing_is_allowed(check: Any, missing: LimitType, source: PriceSource) -> None:
    values = {kind: value for kind, value in INSTRUMENT_LIMITS.items() if kind is not missing}
    made = facts(check, instrument=instrument_policy(values), reference=reference(source=source))
    assert refuse(made) == [("LIMIT_NOT_SET", "instrument/AAPL", "", "")]


def test_a_limit_of_zero_allows_nothing() -> None:
    assert refuse(facts(account=account_policy(ACCOUNT_LIMITS | {LimitType.MESSAGE_RATE: "0"}))) == [
        ("MESSAGE_RATE_EXCEEDED", "account/ACC-1", "0", "1")
    ]


def test_every_breach_is_reported_in_the_order_of_its_number() -> None:
    stopped = account_policy(
        {LimitType.MAX_NOTIONAL: "1", LimitType.OPEN_EXPOSURE: "1", LimitType.MESSAGE_RATE: "1"},
        ("firm/*", "tenant/north"),
        status=AccountStatus.SUSPENDED,
    )
    made = facts(
        order(quantity="2000", price="200"),
        account=stopped,
        trader=trader_bounds({LimitType.MAX_QUANTITY: "1"}, ("trader/ada",)),
        instrument=instrument_policy(status=InstrumentStatus.SUSPENDED),
        market_open=False,
        account_messages=1,
        duplicate=True,
    )
    assert [(reason, scope) for reason, scope, *_ in refuse(made)] == [
        ("KILL_SWITCH_ACTIVE", "firm/*"),
        ("KILL_SWITCH_ACTIVE", "tenant/north"),
        ("KILL_SWITCH_ACTIVE", "trader/ada"),
        ("ACCOUNT_NOT_ACTIVE", "account/ACC-1"),
        ("INSTRUMENT_NOT_ACTIVE", "instrument/AAPL"),
        ("MARKET_CLOSED", "instrument/AAPL"),
        ("MAX_QUANTITY_EXCEEDED", "trader/ada"),
        ("MAX_QUANTITY_EXCEEDED", "instrument/AAPL"),
        ("MAX_NOTIONAL_EXCEEDED", "account/ACC-1"),
        ("PRICE_COLLAR_BREACHED", "instrument/AAPL"),
        ("OPEN_EXPOSURE_EXCEEDED", "account/ACC-1"),
        ("MESSAGE_RATE_EXCEEDED", "account/ACC-1"),
        ("DUPLICATE_ORDER", "account/ACC-1"),
        ("LIMIT_NOT_SET", "account/ACC-1"),
    ]


@pytest.mark.parametrize(
    ("changes", "reason", "fields"),
    [
        ({"check": order(may_trade=False)}, Reason.ROLE_REQUIRED, []),
        ({"account": None}, Reason.ACCOUNT_NOT_ALLOWED, []),
        ({"check": order(tenant="south")}, Reason.ACCOUNT_NOT_ALLOWED, []),
        ({"instrument": None}, Reason.INSTRUMENT_NOT_FOUND, ["instrument_id"]),
        ({"instrument": instrument_policy(currency="EUR")}, Reason.FIELD_INVALID, ["instrument_id"]),
        ({"check": order(price="100.005")}, Reason.PRICE_OFF_TICK, ["limit_price"]),
        ({"check": order(quantity="1.5")}, Reason.QUANTITY_OFF_LOT, ["quantity"]),
        ({"check": order(quantity="1.5", price="100.005")}, Reason.PRICE_OFF_TICK, ["limit_price", "quantity"]),
        ({"check": order(price=None, type=OrderType.LIMIT)}, Reason.FIELD_INVALID, ["limit_price"]),
        ({"check": order(type=OrderType.MARKET)}, Reason.FIELD_INVALID, ["limit_price"]),
        ({"check": order(price=None, time_in_force=TimeInForce.GTC)}, Reason.FIELD_INVALID, ["time_in_force"]),
        ({"check": order(quantity="1000000000000000000")}, Reason.FIELD_INVALID, ["quantity"]),
        ({"check": order(kind=CheckKind.REPLACE)}, Reason.ORDER_NOT_FOUND, []),
    ],
)
def test_what_is_malformed_is_invalid_before_any_rule(changes: dict[str, Any], reason: Reason, fields: list[str]) -> None:
    outcome = decide(facts(**{"market_open": False, "reference": None if reason is not Reason.FIELD_INVALID else reference(), **changes}))
    assert isinstance(outcome, Invalidity), outcome
    assert outcome.reason is reason
    assert [violation.field for violation in outcome.violations] == fields


@pytest.mark.parametrize("price", [None, reference(fresh=False)])
def test_without_a_fresh_price_risk_does_not_decide(price: Any) -> None:
    outcome = decide(facts(reference=price))
    assert isinstance(outcome, Undecided)
    assert outcome.reason is Reason.REFERENCE_PRICE_STALE


def test_an_account_in_breach_may_reduce_and_not_increase() -> None:
    long = position("5000")
    approve(facts(order(Side.SELL, "10"), position=long))
    assert [breach[0] for breach in refuse(facts(order(Side.BUY, "10"), position=long))] == ["GROSS_EXPOSURE_EXCEEDED"]


def test_both_sides_are_reckoned_at_their_worst() -> None:
    # 2,000 long with 900 open to buy: 2,900 at the worst; sells up to 4,900 leave no worse.
    held = position("2000", buys=("900", "90000"))
    approve(facts(order(Side.SELL, "100"), position=held))
    approve(facts(order(Side.BUY, "100"), position=held))
    assert [breach[0] for breach in refuse(facts(order(Side.BUY, "101"), position=held))] == ["GROSS_EXPOSURE_EXCEEDED"]


def reservation(**changes: Any) -> Reservation:
    made = Reservation("o-1", "ACC-1", "AAPL", Side.BUY, ReservationStatus.CONFIRMED, Decimal(100), Decimal(100))
    return made._replace(**changes)


@pytest.mark.parametrize(
    ("quantity", "price", "held"),
    [
        ("150", "100", ("150", "15000")),
        ("50", "100", ("100", "10000")),
        ("120", "96", ("120", "11520")),
        ("90", "104", ("100", "10000")),
        ("99", "104", ("100", "10296")),
    ],
)
def test_a_replace_reserves_the_larger_of_old_and_new(quantity: str, price: str, held: tuple[str, str]) -> None:
    check = order(quantity=quantity, price=price, kind=CheckKind.REPLACE, request_id="r-1")
    before = position(buys=("100", "10000"))
    assert approve(facts(check, reservation=reservation(), position=before)).held == tuple(Decimal(text) for text in held)


def test_a_replace_is_judged_by_what_it_adds() -> None:
    crowded = position(buys=("1990", "199000"))
    bigger = order(quantity="111", price="100", kind=CheckKind.REPLACE, request_id="r-1")
    smaller = order(quantity="50", price="100", kind=CheckKind.REPLACE, request_id="r-1")
    assert [breach[0] for breach in refuse(facts(bigger, reservation=reservation(), position=crowded))] == ["OPEN_EXPOSURE_EXCEEDED"]
    approve(facts(smaller, reservation=reservation(), position=crowded))
    # Even far above the limit, less is always allowed.
    above = position(buys=("5000", "500000"))
    approve(facts(smaller, reservation=reservation(), position=above, exposure=exposure_of(above)))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"account_id": "ACC-9"}, Reason.ORDER_NOT_FOUND),
        ({"instrument_id": "MSFT"}, Reason.FIELD_INVALID),
        ({"side": Side.SELL}, Reason.FIELD_INVALID),
        ({"status": ReservationStatus.CLOSED}, Reason.ORDER_TERMINAL),
    ],
)
def test_a_replace_must_fit_its_order(changes: dict[str, Any], reason: Reason) -> None:
    check = order(quantity="50", kind=CheckKind.REPLACE, request_id="r-1")
    outcome = decide(facts(check, reservation=reservation(**changes)))
    assert isinstance(outcome, Invalidity)
    assert outcome.reason is reason
