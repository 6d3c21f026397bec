"""The auditor's second half: holds positions, lots, ledgers, settlements and reports' data to the executions of the orders.

Rule 4: positions are the sums of fills, ledgers balance, a position is custody's settled + pending in - pending out. It shares nothing
with the services but the contracts. Every check returns findings; the records are of a mesh at rest.
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from decimal import ROUND_HALF_EVEN, Context, Decimal
from typing import NamedTuple

from tests.e2e.crash.holdings_record import (
    AFFIRMED,
    AVAILABLE,
    CANCELED,
    CASH,
    CLIENT,
    FAILED,
    HELD,
    INSTRUCTED,
    PENDING_IN,
    PENDING_OUT,
    SECURITY,
    SETTLED,
    Asset,
    Deposit,
    Holding,
    HoldingsRecord,
    Instruction,
    Lot,
    Root,
    Standing,
)
from tests.e2e.crash.order_record import OrderHistory, OrderRecord, Told
from trademesh.oms.v1 import execution_pb2
from trademesh.type.v1 import order_terms_pb2

CURRENCY = "USD"
"""Of all that these tests trade."""
_EXACT = Context(prec=80, rounding=ROUND_HALF_EVEN)
_ZERO = Decimal(0)
_CORRECTION = execution_pb2.EXECUTION_TYPE_TRADE_CORRECT
_SHOWN = 5


class Fill(NamedTuple):
    """A fill with the terms that hold in the end, at the place in the log where it was first told. `corrections` counts later terms."""

    root: Root
    place: tuple[int, int]
    is_buy: bool
    quantity: Decimal
    price: Decimal
    corrections: int


@dataclass
class Deposits:
    """What the clients know of their deposits: the amounts asked for, by their keys, and the ids that answered them."""

    asked: dict[str, Deposit] = field(default_factory=dict)
    answers: dict[str, str] = field(default_factory=dict)


def audit_holdings(orders: OrderRecord, holdings: HoldingsRecord, deposits: Deposits) -> list[str]:
    """Return everything that contradicts something else."""
    return [
        *positions(orders, holdings),
        *lots(orders, holdings),
        *portfolio_history(orders, holdings),
        *ledger(holdings),
        *ledger_events(holdings),
        *deposited(holdings, deposits),
        *instructions(orders, holdings),
        *both_legs(holdings),
        *pending(holdings),
        *at_rest(holdings),
        *reports(orders, holdings),
    ]


def fills_of(orders: OrderRecord) -> tuple[dict[Holding, list[Fill]], dict[Root, int]]:
    """Return the fills that count, in the log's order, and of every fill that ever was how often it got terms."""
    found: dict[Holding, list[Fill]] = defaultdict(list)
    generations: dict[Root, int] = {}
    for order in orders.histories.values():
        if order.terms is None:
            continue
        account_id, is_buy = order.terms.account_id, order.terms.side == order_terms_pb2.SIDE_BUY
        for first in order.told:
            if first.reference:
                continue
            root, corrections = (account_id, *first.key), _corrections(order, first)
            generations[root] = 1 + corrections
            if first.key in order.fills:
                fill = Fill(root, first.place, is_buy, *order.fills[first.key], corrections)
                found[account_id, order.terms.instrument_id].append(fill)
    return {holding: sorted(fills, key=lambda fill: fill.place) for holding, fills in found.items()}, generations


def _corrections(order: OrderHistory, first: Told) -> int:
    return sum(told.root == first.key and told.type == _CORRECTION for told in order.told)


def positions(orders: OrderRecord, holdings: HoldingsRecord) -> Iterator[str]:
    """Fills, portfolio and custody hold the same of everything; what was deposited is custody's alone."""
    fills, _ = fills_of(orders)
    custody: dict[tuple[str, Asset], Decimal] = defaultdict(Decimal)
    for (account_id, asset, ledger_account, _), balance in holdings.custody.balances.items():
        if ledger_account in CLIENT:
            custody[account_id, asset] += balance
    for deposit in holdings.custody.deposits.values():
        custody[deposit.account_id, deposit.asset] -= deposit.amount
    held: dict[tuple[str, Asset], Decimal] = defaultdict(Decimal)
    for (account_id, instrument_id), counted in fills.items():
        for fill in counted:
            signed = fill.quantity if fill.is_buy else -fill.quantity
            held[account_id, Asset(SECURITY, instrument_id)] += signed
            held[account_id, Asset(CASH, CURRENCY)] -= _EXACT.multiply(signed, fill.price)
    for account_id, asset in sorted(held.keys() | custody.keys()):
        if held[account_id, asset] != custody[account_id, asset]:
            yield f"{account_id}: fills make {held[account_id, asset]} {asset.asset_id}, custody has {custody[account_id, asset]}"
    for account_id, instrument_id in sorted(fills.keys() | holdings.portfolio.positions.keys()):
        shown = holdings.portfolio.positions.get((account_id, instrument_id), Standing(0, _ZERO, _ZERO, _ZERO)).quantity
        summed = held[account_id, Asset(SECURITY, instrument_id)]
        if shown != summed:
            yield f"{account_id}: fills make {summed} {instrument_id}, portfolio has {shown}"


def lots(orders: OrderRecord, holdings: HoldingsRecord) -> Iterator[str]:
    """Lots sum to their position, and lots, cost and realised profit are what first in, first out makes of the fills."""
    fills, _ = fills_of(orders)
    portfolio = holdings.portfolio
    for holding in sorted(fills.keys() | portfolio.positions.keys() | portfolio.lots.keys()):
        shown, name = portfolio.positions.get(holding, Standing(0, _ZERO, _ZERO, _ZERO)), "/".join(holding)
        kept = portfolio.lots.get(holding, [])
        summed = sum((_signed(lot) for lot in kept), _ZERO)
        if summed != shown.quantity:
            yield f"{name}: lots sum to {summed}, the position is {shown.quantity}"
        wanted, realised = _first_in_first_out(fills.get(holding, []))
        if kept != wanted:
            yield f"{name}: lots are not those of first in, first out: {_difference(kept, wanted)}"
        cost = sum((_EXACT.multiply(_signed(lot), lot.price) for lot in wanted), _ZERO)
        for what, said, made in (
            ("cost", shown.cost, cost),
            ("realised profit", shown.realised, realised),
            ("profit of the matches", portfolio.matched.get(holding, _ZERO), realised),
        ):
            if said != made:
                yield f"{name}: {what} is {said}, first in, first out makes {made}"


def _signed(lot: Lot) -> Decimal:
    return lot.remaining if lot.is_buy else -lot.remaining


def _first_in_first_out(fills: Iterable[Fill]) -> tuple[list[Lot], Decimal]:
    open_lots: deque[Lot] = deque()
    realised = _ZERO
    for fill in fills:
        left = fill.quantity
        while left and open_lots and open_lots[0].is_buy is not fill.is_buy:
            oldest = open_lots.popleft()
            closed = min(left, oldest.remaining)
            gain = fill.price - oldest.price if oldest.is_buy else oldest.price - fill.price
            realised = _EXACT.add(realised, _EXACT.multiply(gain, closed))
            left -= closed
            if closed < oldest.remaining:
                open_lots.appendleft(oldest._replace(remaining=oldest.remaining - closed))
        if left:
            open_lots.append(Lot(fill.root[1], fill.root[2], fill.is_buy, fill.price, left))
    return list(open_lots), realised


def portfolio_history(orders: OrderRecord, holdings: HoldingsRecord) -> Iterator[str]:
    """Portfolio has each execution once, as it was told, and says each change once: in its table and in its log."""
    told = [
        (item.key, item.root, order.terms.account_id, order.terms.instrument_id, order.order_id, item.type,
         order.terms.side == order_terms_pb2.SIDE_BUY, item.quantity, item.price, item.place)
        for order in orders.histories.values() if order.terms is not None for item in order.told
    ]  # fmt: skip
    kept = [tuple(execution) for execution in holdings.portfolio.executions]
    if Counter(kept) != Counter(told):
        yield f"portfolio's executions are not those of the orders: {_difference(kept, told)}"
    counts = Counter((item[2], item[3]) for item in told)
    portfolio = holdings.portfolio
    for holding in sorted(counts.keys() | portfolio.positions.keys() | portfolio.changes.keys() | portfolio.events.keys()):
        name, shown = "/".join(holding), portfolio.positions.get(holding)
        changes, events = portfolio.changes.get(holding, []), portfolio.events.get(holding, [])
        if [change.version for change in changes] != list(range(1, counts[holding] + 1)):
            yield f"{name}: {counts[holding]} executions, {len(changes)} changes of the position"
        if changes != events:
            yield f"{name}: portfolio's log tells other changes than its table: {_difference(events, changes)}"
        if shown != (changes[-1] if changes else None):
            yield f"{name}: the position is {shown}, its last change {changes[-1:]}"


def ledger(holdings: HoldingsRecord) -> Iterator[str]:
    """Every posting and every asset sums to zero, and each balance is the sum of its entries."""
    custody = holdings.custody
    postings: dict[tuple[str, int, Asset], Decimal] = defaultdict(Decimal)
    sums: dict[tuple[str, Asset, int, str], Decimal] = defaultdict(Decimal)
    for entry in custody.entries:
        postings[entry.account_id, entry.version, entry.asset] += entry.amount
        sums[entry.account_id, entry.asset, entry.ledger_account, entry.venue] += entry.amount
    for (account_id, version, asset), total in postings.items():
        if total:
            yield f"{account_id}: posting {version} has {total} {asset.asset_id} too much"
    assets: dict[Asset, Decimal] = defaultdict(Decimal)
    for key, balance in custody.balances.items():
        assets[key[1]] += balance
    yield from (f"the balances of {asset.asset_id} sum to {total}" for asset, total in assets.items() if total)
    for key in sums.keys() | custody.balances.keys():
        if sums[key] != custody.balances.get(key, _ZERO):
            yield f"balance {key} is {custody.balances.get(key)}, its entries sum to {sums[key]}"
    for (account_id, asset, ledger_account, _), balance in custody.balances.items():
        if (ledger_account in (AVAILABLE, HELD, PENDING_IN) and balance < 0) or (ledger_account == PENDING_OUT and balance > 0):
            yield f"{account_id}: {balance} {asset.asset_id} on ledger account {ledger_account}"


def ledger_events(holdings: HoldingsRecord) -> Iterator[str]:
    """What is entered is what custody's events say, event by event; no stream has a hole."""
    lines = Counter((entry.account_id, entry.version, entry.event_type) for entry in holdings.custody.entries)
    told = Counter({(item.account_id, item.version, item.name): item.lines for item in holdings.custody.postings if item.lines})
    if lines != told:
        yield f"entries are not what custody's events say: {_difference(lines.items(), told.items())}"
    versions: dict[str, list[int]] = defaultdict(list)
    for item in holdings.custody.postings:
        versions[item.account_id].append(item.version)
    for account_id, found in versions.items():
        if found != list(range(1, len(found) + 1)):
            yield f"{account_id}: custody's events have gaps"


def deposited(holdings: HoldingsRecord, deposits: Deposits) -> Iterator[str]:
    """Every deposit that was answered is there as it was asked for, once; none is there that nobody asked for."""
    booked = holdings.custody.deposits
    for key, deposit_id in deposits.answers.items():
        if booked.get(deposit_id) != deposits.asked[key]:
            yield f"deposit {deposit_id} was asked as {deposits.asked[key]}, booked is {booked.get(deposit_id)}"
    if Counter(booked.values()) != Counter(deposits.asked[key] for key in deposits.answers):
        yield f"{len(booked)} deposits are booked, {len(deposits.answers)} were answered"


def instructions(orders: OrderRecord, holdings: HoldingsRecord) -> Iterator[str]:
    """One instruction that holds for each fill that counts, with its terms, and never two; what was settled and is void is taken back."""
    fills, generations = fills_of(orders)
    terms = {fill.root: (holding[1], fill) for holding, counted in fills.items() for fill in counted}
    by_root: dict[Root, list[Instruction]] = defaultdict(list)
    for instruction in holdings.custody.instructions:
        by_root[instruction.root].append(instruction)
    for root in sorted(generations.keys() | by_root.keys()):
        found = by_root[root]
        made = [item for item in found if not item.reverses]
        if len(made) != generations.get(root, 0):
            yield f"trade {root} had terms {generations.get(root, 0)} times and has {len(made)} instructions"
        reversed_ids = Counter(item.reverses for item in found if item.reverses)
        yield from _taken_back(found, reversed_ids)
        holds = [item for item in made if item.state != CANCELED and item.settlement_id not in reversed_ids]
        if root not in terms:
            yield from (f"instruction {item.settlement_id} of trade {root} stands, and the trade does not" for item in holds)
            continue
        instrument_id, fill = terms[root]
        signed = fill.quantity if fill.is_buy else -fill.quantity
        wanted = {Asset(SECURITY, instrument_id): signed, Asset(CASH, CURRENCY): -_EXACT.multiply(signed, fill.price)}
        if [item.legs for item in holds] != [wanted]:
            yield f"trade {root} is to move {wanted}; instructions that hold: {holds}"
    executions = {(root[0], root[1], told.exec_id) for root, told in _told(orders)}
    if Counter(holdings.custody.executions) != Counter(executions):
        yield f"custody's executions are not those of the orders: {_difference(holdings.custody.executions, executions)}"


def _told(orders: OrderRecord) -> Iterator[tuple[Root, Told]]:
    for order in orders.histories.values():
        if order.terms is not None:
            yield from (((order.terms.account_id, *told.root), told) for told in order.told)


def _taken_back(found: list[Instruction], reversed_ids: Mapping[str, int]) -> Iterator[str]:
    known = {item.settlement_id: item for item in found}
    yield from (f"instruction {settlement_id} is taken back {count} times" for settlement_id, count in reversed_ids.items() if count > 1)
    for item in found:
        if not item.reverses:
            continue
        original = known.get(item.reverses)
        opposite = original is not None and {asset: -amount for asset, amount in original.legs.items()} == item.legs
        if original is None or original.state != SETTLED or original.reverses or not opposite or item.state == CANCELED:
            yield f"instruction {item} takes back {original}"


def both_legs(holdings: HoldingsRecord) -> Iterator[str]:
    """A settled instruction moved both of its legs, once; any other moved nothing."""
    moved: dict[str, dict[Asset, Decimal]] = defaultdict(lambda: defaultdict(Decimal))
    for entry in holdings.custody.entries:
        if entry.event_type == "SettlementSettled" and entry.ledger_account == AVAILABLE:
            moved[entry.reference][entry.asset] += entry.amount
    settled = Counter(item.subject for item in holdings.custody.postings if item.name == "SettlementSettled")
    for instruction in holdings.custody.instructions:
        settlement_id, legs = instruction.settlement_id, dict(moved.pop(instruction.settlement_id, {}))
        wanted = instruction.legs if instruction.state == SETTLED else {}
        if legs != wanted:
            yield f"instruction {settlement_id} in state {instruction.state} moved {legs}, its legs are {instruction.legs}"
        if settled[settlement_id] != (instruction.state == SETTLED):
            yield f"instruction {settlement_id} in state {instruction.state} settled {settled[settlement_id]} times"
    yield from (f"{settlement_id} moved {legs}, and there is no such instruction" for settlement_id, legs in moved.items())


def pending(holdings: HoldingsRecord) -> Iterator[str]:
    """What is pending is what the open instructions are to move."""
    wanted: dict[tuple[str, Asset, int], Decimal] = defaultdict(Decimal)
    for instruction in holdings.custody.instructions:
        if instruction.state in (INSTRUCTED, AFFIRMED, FAILED):
            for asset, amount in instruction.legs.items():
                wanted[instruction.account_id, asset, PENDING_IN if amount > 0 else PENDING_OUT] += amount
    shown = {(key[0], key[1], key[2]): value for key, value in holdings.custody.balances.items() if key[2] in (PENDING_IN, PENDING_OUT)}
    for key in wanted.keys() | shown.keys():
        if wanted[key] != shown.get(key, _ZERO):
            yield f"{key[0]}: {shown.get(key, _ZERO)} {key[1].asset_id} is pending, open instructions are to move {wanted[key]}"


def at_rest(holdings: HoldingsRecord) -> Iterator[str]:
    """Nothing is parked; nothing that could be affirmed or settled still waits."""
    custody = holdings.custody
    if custody.parked:
        yield f"{custody.parked} executions are parked"
    for instruction in custody.instructions:
        if instruction.state == INSTRUCTED or (instruction.state == AFFIRMED and instruction.due):
            yield f"instruction {instruction.settlement_id} still waits in state {instruction.state}"
        elif instruction.state == FAILED:
            out = ((asset, amount) for asset, amount in instruction.legs.items() if amount < 0)
            if all(custody.balances.get((instruction.account_id, asset, AVAILABLE, ""), _ZERO) + amount >= 0 for asset, amount in out):
                yield f"instruction {instruction.settlement_id} failed, and nothing is lacking"


def reports(orders: OrderRecord, holdings: HoldingsRecord) -> Iterator[str]:
    """Reporting has every event of every order once, byte for byte, and takes for executions what orders do; settlements likewise."""
    reporting = holdings.reporting
    if Counter(reporting.orders) != Counter(reporting.log):
        copied, original = ([item[:4] for item in items] for items in (reporting.orders, reporting.log))
        yield f"reporting's copy is not svc_oms's log: {_difference(copied, original)}"
    told = [(order.order_id, item.version) for order in orders.histories.values() for item in order.told]
    if Counter(reporting.executions) != Counter(told):
        yield f"reporting's executions are not those of the orders: {_difference(reporting.executions, told)}"
    events = sum(item.name.startswith("Settlement") for item in holdings.custody.postings)
    if reporting.settlement_events != events:
        yield f"reporting has {reporting.settlement_events} events of settlements, custody {events}"


def _difference(ours: Iterable[object], theirs: Iterable[object]) -> str:
    here, there = Counter(map(str, ours)), Counter(map(str, theirs))
    return f"only here {sorted((here - there).elements())[:_SHOWN]}, only there {sorted((there - here).elements())[:_SHOWN]}"
