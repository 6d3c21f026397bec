"""The shortcut past the rules approves what they approve, and nothing else."""

from __future__ import annotations

from decimal import Decimal, localcontext

from hypothesis import event, given, settings
from hypothesis import strategies as st

from kernel.values import exact_context
from svc_risk.domain.check import Approval
from svc_risk.domain.decide import Facts, approve_within_room, decide, judge
from svc_risk.domain.policy import AccountPolicy, Bounds, InstrumentPolicy
from svc_risk.domain.reference_price import PriceSource, ReferencePrice
from svc_risk.domain.vocabulary import AccountStatus, InstrumentStatus, LimitType, OrderType, Side, TimeInForce
from tests.unit.risk.parts import (
    ACCOUNT_LIMITS,
    INSTRUMENT_LIMITS,
    account_policy,
    facts,
    instrument_policy,
    order,
    position,
    reference,
    trader_bounds,
)

QUANTITIES = st.sampled_from(["1", "10", "20", "50", "99", "100", "101", "999", "1000", "1001", "0.5", "1" + "0" * 19])
PRICES = st.sampled_from(["94.99", "95", "99.99", "100", "100", "101", "102", "100.005", "105", "105.01", "109.99", "1" * 20, "0.01"])
SWITCHES = st.sampled_from([()] * 9 + [("firm/*",)])
AMOUNTS = st.sampled_from(["0", "0", "0", "5", "100", "199000", "299000"])


def some(limits: dict[LimitType, str]) -> st.SearchStrategy[dict[LimitType, str]]:
    """All limits, mostly; or a few of them, some very low."""
    few = st.fixed_dictionaries({}, optional={kind: st.sampled_from([value, "1", "100"]) for kind, value in limits.items()})
    return st.just(limits) | st.just(limits) | st.just(limits) | few.map(lambda chosen: limits | chosen) | few


@st.composite
def accounts(draw: st.DrawFn) -> AccountPolicy | None:
    if not draw(st.integers(0, 20)):
        return None
    status = draw(st.sampled_from([AccountStatus.ACTIVE] * 8 + [AccountStatus.SUSPENDED]))
    tenant, currency = draw(st.sampled_from(["north"] * 8 + ["south"])), draw(st.sampled_from(["USD"] * 8 + ["EUR"]))
    limits = ACCOUNT_LIMITS | {LimitType.MAX_QUANTITY: "1000"}
    return account_policy(draw(some(limits)), draw(SWITCHES), status=status, tenant=tenant, currency=currency)


@st.composite
def instruments(draw: st.DrawFn) -> InstrumentPolicy | None:
    if not draw(st.integers(0, 20)):
        return None
    limits = INSTRUMENT_LIMITS | {LimitType.MAX_NOTIONAL: "50000"}
    status = draw(st.sampled_from([InstrumentStatus.ACTIVE] * 8 + [InstrumentStatus.SUSPENDED]))
    lot = Decimal(draw(st.sampled_from(["1", "1", "0.1", "10"])))
    return instrument_policy(draw(some(limits)), draw(SWITCHES), status=status, lot_size=lot)


@st.composite
def traders(draw: st.DrawFn) -> Bounds:
    limits = {LimitType.MAX_QUANTITY: "100", LimitType.MAX_NOTIONAL: "9999", LimitType.MESSAGE_RATE: "2.5"}
    return trader_bounds(draw(st.just({}) | some(limits)), draw(SWITCHES))


@st.composite
def references(draw: st.DrawFn) -> ReferencePrice | None:
    if not draw(st.integers(0, 20)):
        return None
    source, fresh = draw(st.sampled_from(PriceSource)), bool(draw(st.integers(0, 8)))
    return reference(
        draw(st.sampled_from(["100", "100", "100", "100", "100", "0.000000000000000001", "99999999999999999999"])), source, fresh=fresh
    )


CHANGES: dict[str, st.SearchStrategy[object]] = {
    "account": accounts(),
    "trader": traders(),
    "instrument": instruments(),
    "reference": references(),
    "position": st.tuples(AMOUNTS, AMOUNTS, AMOUNTS, AMOUNTS, AMOUNTS).map(lambda a: position(a[0], "100", (a[1], a[2]), (a[3], a[4]))),
    "market_open": st.booleans(),
    "account_messages": st.sampled_from([0, 9, 10, 11]),
    "trader_messages": st.sampled_from([0, 2, 3]),
    "duplicate": st.booleans(),
}


@st.composite
def cases(draw: st.DrawFn) -> Facts:
    """A plain order that passes, with up to three things changed."""
    price = draw(st.sampled_from(["100", "100", "102"]) | PRICES | st.none())
    check = order(draw(st.sampled_from(Side)), draw(QUANTITIES), price, time_in_force=draw(st.sampled_from(TimeInForce)))
    if draw(st.integers(0, 9)) == 9:
        check = check._replace(type=draw(st.sampled_from(OrderType)), may_trade=draw(st.booleans()))
    names = draw(st.lists(st.sampled_from(sorted(CHANGES)), max_size=3, unique=True))
    return facts(check, **{name: draw(CHANGES[name]) for name in names})


@given(cases())
@settings(max_examples=2_000, deadline=None)
def test_the_shortcut_decides_as_the_rules_do(made: Facts) -> None:
    with localcontext(exact_context()):
        judged, quick, decided = judge(made), approve_within_room(made), decide(made)
    event("approved" if isinstance(judged, Approval) else "not approved")
    assert quick is None or quick == judged
    assert decided == judged
    if quick is None and isinstance(judged, Approval):
        # The long way is for what is not plain, or gives way although the account is above a limit.
        assert made.check.type is OrderType.MARKET or judged.exposure.gross <= made.position.gross
