"""The pre-trade decision: one pass over the facts that names every broken rule.

The order of `RULES` is the precedence of refusals, printed in `docs/reference/reject-reasons.md`. An order that is malformed for its
account or instrument is invalid before any rule is asked. Without a fresh reference price risk does not decide, unless a rule that needs
no price (kill switch, account, instrument, market) refuses anyway: then the order is refused by every rule that can be judged.

The collar works both ways. The dangerous side is the aggressive one (a buy far above the market, a sell far below it), which trades at
once at a price nobody meant; the passive side is refused as well, because a price that far away is a mistake too and would reserve too
little.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from decimal import ROUND_UP, Decimal
from typing import NamedTuple

from kernel.errors import FieldViolation, Reason
from kernel.values import MAGNITUDE_LIMIT, ZERO, format_decimal
from svc_risk.domain.check import Approval, Breach, Invalidity, OrderCheck, Outcome, Refusal, Undecided
from svc_risk.domain.exposure import AMOUNT_MAX, NOTHING, QUANTUM, AccountExposure, Held, InstrumentExposure, product_up, shifted
from svc_risk.domain.market import Market, collar_of
from svc_risk.domain.policy import AccountPolicy, Binding, Bounds, Instrument, InstrumentPolicy, LimitValue, limit_text
from svc_risk.domain.reservation import PENDING_MAX, Reservation
from svc_risk.domain.vocabulary import AccountStatus, CheckKind, InstrumentStatus, LimitType, OrderType, Side, TimeInForce

_BUY, _NEW = Side.BUY, CheckKind.NEW
_LIMIT, _MARKET = OrderType.LIMIT, OrderType.MARKET
_ACCOUNT_ACTIVE, _INSTRUMENT_ACTIVE = AccountStatus.ACTIVE, InstrumentStatus.ACTIVE


class Facts(NamedTuple):
    """Everything that one decision rests on, read under the account's lock.

    `account_messages` and `trader_messages` count the messages of the last second; `duplicate` says that the same order was approved
    within the account's window; `reservation` is the order's own, None for a new order.
    """

    check: OrderCheck
    binding: Binding
    market: Market
    exposure: AccountExposure | None
    position: InstrumentExposure
    reservation: Reservation | None
    account_messages: int
    trader_messages: int
    duplicate: bool


class _Case(NamedTuple):
    """The facts, with what follows from them. Without a usable price, the order's own exposure cannot be judged and does not move."""

    facts: Facts
    check: OrderCheck
    account: AccountPolicy
    instrument: InstrumentPolicy
    exposure: AccountExposure
    fresh: bool
    collar: LimitValue | None
    collar_type: LimitType
    price: Decimal | None
    notional: Decimal
    before: Held
    after: Held


def decide(facts: Facts) -> Outcome:
    """Return the outcome of one check. Pure: the caller folds an approval into the state that the next check sees."""
    return approve_within_room(facts) or judge(facts)


def approve_within_room(facts: Facts) -> Approval | None:
    """Return the approval of a new limit order that is certain to break no rule; None for any other, of which the rules have to decide.

    It takes a third of their time. It may only ever be stricter; a property test holds it to that.
    """
    check, binding, market, exposure, position, _, account_messages, trader_messages, duplicate = facts
    room, edges, price, quantity = binding.room, market.edges, check.limit_price, check.quantity
    if room is None or edges is None or market.reference is None or exposure is None or price is None or duplicate:
        return None
    tenant, venue, tick, lot, quantity_max, notional_max, open_max, gross_max, account_messages_max, trader_messages_max = room
    if (
        check.kind is not _NEW
        or check.type is not _LIMIT
        or not check.may_trade
        or check.tenant != tenant
        or price % tick
        or quantity % lot
        or quantity > quantity_max
        or not edges[0] <= price <= edges[1]
        or account_messages >= account_messages_max
        or trader_messages >= trader_messages_max
    ):
        return None
    reference = market.reference.price
    side = check.side
    worst = price if side is _BUY or price > reference else reference
    notional = product_up(quantity, worst)
    if notional > notional_max or exposure.open_notional + notional > open_max:
        return None
    held = Held(quantity, notional)
    after = shifted(position, side, NOTHING, held)
    if exposure.gross - position.gross + after.gross > gross_max:
        return None
    return Approval(held, worst, reference, venue, tenant, after)


def judge(facts: Facts) -> Outcome:
    """Return the outcome of one check by every rule."""
    invalid = _invalidity(facts)
    if invalid is not None:
        return invalid
    (account, _, instrument, _), exposure, reference = facts.binding, facts.exposure, facts.market.reference
    assert account is not None
    assert instrument is not None
    assert exposure is not None, "an account has had its exposure since it was created"
    case = _case(facts, account, instrument, exposure)
    if case.notional >= MAGNITUDE_LIMIT:
        return _invalid(Reason.FIELD_INVALID, "quantity", "notional.range", "price times quantity must be below 10^20")
    venue, tenant = instrument.instrument.venue, account.account.tenant
    breaches: list[Breach] = []
    for rule in RULES:
        breaches += rule(case)
    if not case.fresh or reference is None:
        if any(breach.reason in _WITHOUT_PRICE for breach in breaches):
            return Refusal(tuple(breaches), venue, tenant)
        return Undecided(Reason.REFERENCE_PRICE_STALE, f"no fresh reference price for {facts.check.instrument_id}")
    if breaches:
        return Refusal(tuple(breaches), venue, tenant)
    assert case.price is not None, "the collar of the price's source is mandatory"
    exposed = shifted(facts.position, facts.check.side, case.before, case.after)
    return Approval(case.after, case.price, reference.price, venue, tenant, exposed)


def _case(facts: Facts, account: AccountPolicy, instrument: InstrumentPolicy, exposure: AccountExposure) -> _Case:
    check, reference, reservation = facts.check, facts.market.reference, facts.reservation
    fresh = reference is not None and reference.fresh
    collar_type, collar = collar_of(instrument, reference)
    price = worst_price(check, reference.price, collar) if fresh and reference is not None else None
    before = NOTHING if reservation is None else reservation.held
    if price is None:
        after, notional = before, ZERO
    else:
        notional = product_up(check.quantity, price)
        if reservation is None:
            after = Held(check.quantity, notional)
        else:
            after = reservation.with_pending(check.request_id, check.quantity, price).held
    return _Case(facts, check, account, instrument, exposure, fresh, collar, collar_type, price, notional, before, after)


def worst_price(check: OrderCheck, reference: Decimal, collar: LimitValue | None) -> Decimal | None:
    """Return the highest price per unit that the order's notional is reckoned with; None where the collar that it needs is not set.

    A buyer's limit is the most that is paid. A seller's is the least that is received, so a sell below the market counts at the market.
    A market order counts at the collar's upper edge, on either side.
    """
    limit_price = check.limit_price
    if limit_price is not None:
        return limit_price if check.side is _BUY or limit_price > reference else reference
    return None if collar is None else _up(reference + reference * collar.value)


def _up(value: Decimal) -> Decimal:
    return value.quantize(QUANTUM, rounding=ROUND_UP).normalize()


def _invalid(reason: Reason, field: str, rule: str, text: str) -> Invalidity:
    return Invalidity(reason, (FieldViolation(field, rule, text),), text)


def _invalidity(facts: Facts) -> Invalidity | None:
    """The rules of form, in precedence order; the form of price and quantity is reported together."""
    check, account, instrument = facts.check, facts.binding.account, facts.binding.instrument
    if not check.may_trade:
        return Invalidity(Reason.ROLE_REQUIRED, (), "the user lacks the role trader")
    if account is None or account.account.tenant != check.tenant:
        return Invalidity(Reason.ACCOUNT_NOT_ALLOWED, (), "the account is not one of the caller's")
    if instrument is None:
        return _invalid(Reason.INSTRUMENT_NOT_FOUND, "instrument_id", "instrument.unknown", "no such instrument")
    if check.kind is not _NEW:
        unfit = _unfit_replace(check, facts.reservation)
        if unfit is not None:
            return unfit
    if instrument.instrument.currency != account.account.currency:
        text = f"is priced in {instrument.instrument.currency}, the account is kept in {account.account.currency}"
        return _invalid(Reason.FIELD_INVALID, "instrument_id", "instrument.currency", text)
    if _well_formed(check, instrument.instrument):
        return None
    found = tuple(_malformed(check, instrument))
    return Invalidity(found[0][0], tuple(violation for _, violation in found), found[0][1].description) if found else None


def _unfit_replace(check: OrderCheck, reservation: Reservation | None) -> Invalidity | None:
    if reservation is None or reservation.account_id != check.account_id:
        return Invalidity(Reason.ORDER_NOT_FOUND, (), "risk holds no reservation for this order")
    if reservation.instrument_id != check.instrument_id or reservation.side is not check.side:
        return _invalid(Reason.FIELD_INVALID, "instrument_id", "replace.fixed", "a replace keeps instrument and side")
    if not reservation.live:
        return Invalidity(Reason.ORDER_TERMINAL, (), "the order is terminal")
    if len(reservation.pending) >= PENDING_MAX:
        return Invalidity(Reason.ORDER_REQUEST_PENDING, (), f"{len(reservation.pending)} replaces of the order are under way")
    return None


def _well_formed(check: OrderCheck, instrument: Instrument) -> bool:
    """The common case in one expression: a limit order on tick and lot."""
    price = check.limit_price
    return check.type is _LIMIT and price is not None and not price % instrument.tick_size and not check.quantity % instrument.lot_size


def _malformed(check: OrderCheck, policy: InstrumentPolicy) -> Iterator[tuple[Reason, FieldViolation]]:
    instrument = policy.instrument
    price = check.limit_price
    if price is None and check.type is _LIMIT:
        yield Reason.FIELD_INVALID, FieldViolation("limit_price", "order.limit_price", "required on a limit order")
    elif price is not None and check.type is _MARKET:
        yield Reason.FIELD_INVALID, FieldViolation("limit_price", "order.limit_price", "must be unset on a market order")
    elif price is not None and price % instrument.tick_size:
        text = f"must be a multiple of the tick {format_decimal(instrument.tick_size)}"
        yield Reason.PRICE_OFF_TICK, FieldViolation("limit_price", "instrument.tick", text)
    if check.quantity % instrument.lot_size:
        text = f"must be a multiple of the lot {format_decimal(instrument.lot_size)}"
        yield Reason.QUANTITY_OFF_LOT, FieldViolation("quantity", "instrument.lot", text)
    if check.type is _MARKET and check.time_in_force is TimeInForce.GTC:
        yield Reason.FIELD_INVALID, FieldViolation("time_in_force", "order.time_in_force", "GTC is for limit orders only")


def _kill_switches(case: _Case) -> Iterable[Breach]:
    names = case.account.bounds.kill_switches + case.facts.binding.trader.kill_switches + case.instrument.bounds.kill_switches
    return [Breach(Reason.KILL_SWITCH_ACTIVE, name, "", "", f"kill switch {name} is active") for name in names] if names else ()


def _account_status(case: _Case) -> Iterable[Breach]:
    account = case.account.account
    if account.status is _ACCOUNT_ACTIVE:
        return ()
    return (Breach(Reason.ACCOUNT_NOT_ACTIVE, case.account.bounds.subject, "", "", f"the account is {account.status.name.lower()}"),)


def _instrument_status(case: _Case) -> Iterable[Breach]:
    status = case.instrument.instrument.status
    if status is _INSTRUMENT_ACTIVE:
        return ()
    return (Breach(Reason.INSTRUMENT_NOT_ACTIVE, case.instrument.bounds.subject, "", "", f"the instrument is {status.name.lower()}"),)


def _market_hours(case: _Case) -> Iterable[Breach]:
    if case.facts.market.is_open:
        return ()
    zone = case.instrument.instrument.calendar.time_zone
    return (Breach(Reason.MARKET_CLOSED, case.instrument.bounds.subject, "", "", f"the market is closed ({zone})"),)


def _max_quantity(case: _Case) -> Iterable[Breach]:
    quantity = case.check.quantity
    return [
        _above(Reason.MAX_QUANTITY_EXCEEDED, bounds, limit, quantity, "quantity")
        for bounds in (case.account.bounds, case.facts.binding.trader, case.instrument.bounds)
        if (limit := bounds.max_quantity) is not None and quantity > limit.value
    ]


def _max_notional(case: _Case) -> Iterable[Breach]:
    notional = case.notional
    return [
        _above(Reason.MAX_NOTIONAL_EXCEEDED, bounds, limit, notional, "notional")
        for bounds in (case.account.bounds, case.facts.binding.trader, case.instrument.bounds)
        if (limit := bounds.max_notional) is not None and notional > limit.value
    ]


def _collar(case: _Case) -> Iterable[Breach]:
    price, reference, limit = case.check.limit_price, case.facts.market.reference, case.collar
    if price is None or reference is None or limit is None or not case.fresh:
        return ()
    away = price - reference.price
    if abs(away) <= reference.price * limit.value:
        return ()
    share = min(_up(abs(away) / reference.price), AMOUNT_MAX)
    side = "aggressive" if (away > 0) is (case.check.side is _BUY) else "passive"
    where = f"{'above' if away > 0 else 'below'} the {reference.source} {format_decimal(reference.price)}"
    text = f"limit price {format_decimal(price)} is too far {where} ({side} side)"
    return (Breach(Reason.PRICE_COLLAR_BREACHED, case.instrument.bounds.subject, limit.text, format_decimal(share), text),)


def _open_exposure(case: _Case) -> Iterable[Breach]:
    limit, increase = case.account.bounds.open_exposure, case.after.notional - case.before.notional
    if limit is None or increase <= 0:
        return ()
    after = case.exposure.open_notional + increase
    if after <= limit.value:
        return ()
    return (_above(Reason.OPEN_EXPOSURE_EXCEEDED, case.account.bounds, limit, after, "open notional"),)


def _gross_exposure(case: _Case) -> Iterable[Breach]:
    limit, position = case.account.bounds.gross_exposure, case.facts.position
    if limit is None or case.before is case.after:
        return ()
    increase = shifted(position, case.check.side, case.before, case.after).gross - position.gross
    if increase <= 0 or case.exposure.gross + increase <= limit.value:
        return ()
    return (_above(Reason.GROSS_EXPOSURE_EXCEEDED, case.account.bounds, limit, case.exposure.gross + increase, "gross exposure"),)


def _message_rate(case: _Case) -> Iterable[Breach]:
    return [
        _above(Reason.MESSAGE_RATE_EXCEEDED, bounds, limit, Decimal(count + 1), "messages in a second")
        for bounds, count in ((case.account.bounds, case.facts.account_messages), (case.facts.binding.trader, case.facts.trader_messages))
        if (limit := bounds.message_rate) is not None and count >= limit.value
    ]


def _duplicate(case: _Case) -> Iterable[Breach]:
    if not case.facts.duplicate:
        return ()
    bounds = case.account.bounds
    window = limit_text(bounds.duplicate_window)
    return (Breach(Reason.DUPLICATE_ORDER, bounds.subject, window, "", f"the same order was approved within {window} s"),)


def _limits_set(case: _Case) -> Iterable[Breach]:
    account, instrument = case.account.bounds, case.instrument.bounds
    if not account.missing and not instrument.missing and (case.collar is not None or not case.fresh):
        return ()
    breaches = [_not_set(bounds, limit_type) for bounds in (account, instrument) for limit_type in bounds.missing]
    return [*breaches, _not_set(instrument, case.collar_type)] if case.collar is None and case.fresh else breaches


def _not_set(bounds: Bounds, limit_type: LimitType) -> Breach:
    return Breach(Reason.LIMIT_NOT_SET, bounds.subject, "", "", f"no {limit_type.name} is set, and without one nothing is allowed")


def _above(reason: Reason, bounds: Bounds, limit: LimitValue, value: Decimal, what: str) -> Breach:
    actual = format_decimal(min(value, AMOUNT_MAX))
    return Breach(reason, bounds.subject, limit.text, actual, f"{what} {actual} exceeds {limit.text} of {bounds.subject}")


RULES: tuple[Callable[[_Case], Iterable[Breach]], ...] = (
    _kill_switches,
    _account_status,
    _instrument_status,
    _market_hours,
    _max_quantity,
    _max_notional,
    _collar,
    _open_exposure,
    _gross_exposure,
    _message_rate,
    _duplicate,
    _limits_set,
)
"""The rules in precedence order, which is the order of their numbers in `ErrorReason`."""

_WITHOUT_PRICE = frozenset({Reason.KILL_SWITCH_ACTIVE, Reason.ACCOUNT_NOT_ACTIVE, Reason.INSTRUMENT_NOT_ACTIVE, Reason.MARKET_CLOSED})
