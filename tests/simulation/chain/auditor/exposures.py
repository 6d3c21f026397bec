"""Rules about risk: approvals, limits, reservations, positions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal

from tests.simulation.chain.auditor.venue import VenueBook
from tests.simulation.chain.auditor.view import BUY, TRADE, ZERO, Audited, Entry, Hold, OrderView, Violation
from tests.simulation.chain.history import Exposure, Rest

_OPEN_EXPOSURE, _GROSS_EXPOSURE = 5, 6
_ACCOUNT_SCOPE = 1
_PENDING, _ACTIVE = 1, 2


def approval_comes_first(audited: Audited, venue: VenueBook) -> Iterator[Violation]:
    """Every order at the venue was approved and durable before, with no more than was approved; so was every replace."""
    rule = "approval-comes-first"
    accepted = {order_id: entry for order_id, entry in audited.order_entries() if entry.kind == "OrderAccepted"}
    approvals: dict[str, list[tuple[float, Decimal]]] = defaultdict(list)
    for entry in audited.deltas():
        delta = entry.body.delta
        size = Decimal(delta.delta_quantity)
        if entry.kind == "ExposureFilled":
            size += abs(Decimal(entry.body.position_delta))
        approvals[delta.order_id].append((entry.event.moment, size))
    for order in venue.orders.values():
        begun = accepted.get(order.order_id)
        if begun is None:
            yield Violation(rule, f"the venue has {order.order_id}, which was never accepted here")
            continue
        terms = begun.body.terms
        if (terms.account_id, terms.instrument_id, terms.side) != (order.account_id, order.instrument_id, order.side):
            yield Violation(rule, f"the venue has {order.order_id} for another account, instrument or side")
        for moment, name, quantity in order.terms:
            if begun.event.moment > moment:
                yield Violation(rule, f"{name} was at the venue before it was durable")
            approved = sum((size for when, size in approvals[order.order_id] if when <= moment), ZERO)
            if approved < quantity:
                yield Violation(rule, f"{name} was at the venue with {quantity} when {approved} were approved")


@dataclass(slots=True)
class _Instrument:
    """An account's exposure in one instrument, by its events."""

    position: Decimal = ZERO
    buys: Decimal = ZERO
    sells: Decimal = ZERO

    def gross(self, price: Decimal) -> Decimal:
        """The worse of what all open buys filled, and all open sells filled, would leave."""
        value = self.position * price
        return max(abs(value + self.buys), abs(value - self.sells))


class _Ledger:
    """Risk's log folded event by event: limits and switches in force, and what every account has open."""

    def __init__(self) -> None:
        self.limits: dict[tuple[str, int], Decimal] = {}
        self.switches: set[tuple[int, str]] = set()
        self.open_notional: dict[str, Decimal] = defaultdict(lambda: ZERO)
        self.instruments: dict[tuple[str, str], _Instrument] = defaultdict(_Instrument)

    def limit(self, account_id: str, limit_type: int) -> Decimal | None:
        """Return the account's own limit, else the default."""
        return self.limits.get((account_id, limit_type), self.limits.get(("*", limit_type)))

    def note(self, entry: Entry) -> None:
        """Take a change of limits or switches."""
        if entry.kind == "LimitUpdated" and entry.body.limit.scope == _ACCOUNT_SCOPE:
            limit = entry.body.limit
            self.limits[limit.scope_id, limit.type] = Decimal(limit.value)
        elif entry.kind == "KillSwitchChanged":
            switch = entry.body.kill_switch
            stops = switch.status in (_PENDING, _ACTIVE)
            (self.switches.add if stops else self.switches.discard)((switch.scope, switch.scope_id))

    def move(self, entry: Entry) -> tuple[_Instrument, _Instrument]:
        """Take a change of exposure; return the instrument's before and after it."""
        delta, key = entry.body.delta, (entry.body.delta.account_id, entry.body.delta.instrument_id)
        before, added = self.instruments[key], Decimal(delta.delta_notional)
        filled = Decimal(entry.body.position_delta) if entry.kind == "ExposureFilled" else ZERO
        after = _Instrument(
            before.position + filled,
            before.buys + (added if delta.side == BUY else ZERO),
            before.sells + (added if delta.side != BUY else ZERO),
        )
        self.instruments[key] = after
        self.open_notional[delta.account_id] += added
        return before, after


def limits_hold(audited: Audited) -> Iterator[Violation]:
    """No approval takes an account's open or gross exposure above the limit then in force, and none is made under a kill switch."""
    ledger = _Ledger()
    for entry in audited.risk:
        ledger.note(entry)
        if not entry.event.stream_id.startswith("exposure-") or entry.kind == "LimitUpdated":
            continue
        before, after = ledger.move(entry)
        delta, where = entry.body.delta, f"{entry.event.stream_id} version {entry.event.version}"
        total = ledger.open_notional[delta.account_id]
        if total != Decimal(delta.open_notional):
            yield Violation("ledger-adds-up", f"{where}: changes sum to {total}, it says {delta.open_notional}")
        if entry.kind == "ExposureReserved":
            yield from _judge(entry, where, ledger, before, after)


def _judge(entry: Entry, where: str, ledger: _Ledger, before: _Instrument, after: _Instrument) -> Iterator[Violation]:
    delta, price = entry.body.delta, Decimal(entry.body.reference_price)
    open_limit, gross_limit = (ledger.limit(delta.account_id, limit_type) for limit_type in (_OPEN_EXPOSURE, _GROSS_EXPOSURE))
    total, gross = ledger.open_notional[delta.account_id], Decimal(delta.gross_exposure)
    if open_limit is None or (Decimal(delta.delta_notional) > 0 and total > open_limit):
        yield Violation("limits-hold", f"{where}: an approval left {total} open, the limit was {open_limit}")
    if gross_limit is None or (after.gross(price) > before.gross(price) and gross > gross_limit):
        yield Violation("limits-hold", f"{where}: an approval left a gross exposure of {gross}, the limit was {gross_limit}")
    if {(1, "*"), (2, delta.account_id), (4, delta.instrument_id)} & ledger.switches:
        yield Violation("limits-hold", f"{where}: an approval under a kill switch")


def fills_count_once(audited: Audited, venue: VenueBook) -> Iterator[Violation]:
    """An execution counts for one order, once; at rest, every one of the venue's counts."""
    rule = "fills-count-once"
    counted: dict[tuple[str, str, str], str] = {}
    for order_id, entry in audited.order_entries():
        if entry.kind != "ExecutionRecorded":
            continue
        execution = entry.body.execution
        key = execution.venue, execution.trade_date.replace("-", ""), execution.exec_id
        if key in counted:
            yield Violation(rule, f"execution {key} counts for {counted[key]} and again for {order_id}")
        counted[key] = order_id
        if execution.type == TRADE:
            fill = venue.fills.get(int(execution.exec_id.rpartition("-")[2]))
            if fill is None or fill.order_id != order_id:
                yield Violation(rule, f"{order_id} counts execution {key}, which the venue never made for it")
    if not audited.history.rests:
        return
    numbers = {int(exec_id.rpartition("-")[2]) for _, _, exec_id in counted}
    for number, fill in venue.fills.items():
        if number not in numbers:
            yield Violation(rule, f"the venue traded {fill.quantity} for {fill.order_id} as {fill.exec_id}, and it does not count here")


def exposures_are_open_orders(audited: Audited) -> Iterator[Violation]:
    """At rest, what risk holds for an order is what may still trade of it; for an order that is gone it holds nothing."""
    for rest in audited.history.rests:
        orders, holds = audited.folded(rest.orders), audited.holds(rest.risk)
        for order_id, hold in holds.items():
            order = orders.get(order_id)
            yield from _compare(order_id, order, hold)
        for order_id, order in orders.items():
            if order.leaves and order_id not in holds:
                yield Violation("exposures-are-open-orders", f"{order_id} has {order.leaves} open, and risk holds nothing")
        yield from _shown(rest, holds)
        if rest.closed and any(order.leaves for order in orders.values()):
            open_orders = [order_id for order_id, order in orders.items() if order.leaves]
            yield Violation("exposures-are-open-orders", f"after the cancel of everything, {open_orders[:3]} are open")


def _compare(order_id: str, order: OrderView | None, hold: Hold) -> Iterator[Violation]:
    leaves = ZERO if order is None else order.leaves
    asked = [Decimal(request.quantity) for request in order.pending.values() if hasattr(request, "quantity")] if order is not None else []
    if order is not None and asked and leaves:
        leaves = max(leaves, max(asked) - order.filled)
    if leaves == 0 and (hold.quantity or hold.notional):
        yield Violation("reservations-end", f"{order_id} has nothing open, and risk holds {hold.quantity} for {hold.notional}")
    elif hold.quantity != leaves:
        yield Violation("exposures-are-open-orders", f"{order_id} has {leaves} open, and risk holds {hold.quantity}")
    elif order is not None and hold.checks == 1 and not order.replaced and hold.notional != leaves * hold.unit_price:
        text = f"{order_id} has {leaves} open at {hold.unit_price} each, and risk holds {hold.notional}"
        yield Violation("exposures-are-open-orders", text)
    elif order is not None and order.limit_price and hold.notional < leaves * Decimal(order.limit_price):
        yield Violation("exposures-are-open-orders", f"{order_id} is worth more than the {hold.notional} that risk holds")


def _shown(rest: Rest, holds: dict[str, Hold]) -> Iterator[Violation]:
    """What risk showed of each account is the sum of what it holds."""
    for shown in rest.exposures:
        mine = [hold for hold in holds.values() if hold.account_id == shown.account_id]
        for name, side, text in (("buy", BUY, shown.buy_notional), ("sell", 3 - BUY, shown.sell_notional)):
            held = sum((hold.notional for hold in mine if hold.side == side), ZERO)
            if held != Decimal(text):
                yield Violation("exposures-are-open-orders", f"{shown.account_id}: {name} orders hold {held}, risk shows {text}")
        live = sum(1 for hold in mine if hold.quantity)
        if live != shown.reservation_count:
            yield Violation("reservations-end", f"{shown.account_id}: {live} orders hold something, risk counts {shown.reservation_count}")


def positions_are_fills(audited: Audited, venue: VenueBook) -> Iterator[Violation]:
    """At the last rest, positions are what the venue traded: in risk's log, in what risk shows, and in the executions of orders."""
    if not audited.history.rests:
        return
    rest = audited.history.rests[-1]
    traded = venue.positions()
    logged: dict[tuple[str, str], Decimal] = defaultdict(lambda: ZERO)
    for hold in audited.holds(rest.risk).values():
        logged[hold.account_id, hold.instrument_id] += hold.position
    executed: dict[tuple[str, str], Decimal] = defaultdict(lambda: ZERO)
    for order in audited.folded(rest.orders).values():
        executed[order.account_id, order.instrument_id] += order.filled if order.side == BUY else -order.filled
    shown = _positions_shown(rest.exposures)
    for key in sorted({*traded, *logged, *executed, *shown}):
        values = [positions.get(key, ZERO) for positions in (traded, executed, logged, shown)]
        if len(set(values)) > 1:
            text = "the venue traded {}, orders executed {}, risk's log says {}, risk shows {}".format(*values)
            yield Violation("positions-are-fills", f"{key}: {text}")


def _positions_shown(exposures: tuple[Exposure, ...]) -> dict[tuple[str, str], Decimal]:
    return {
        (exposure.account_id, instrument): Decimal(position) for exposure in exposures for instrument, position, *_ in exposure.positions
    }
