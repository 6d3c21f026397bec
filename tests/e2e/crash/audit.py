"""The auditor: holds what clients were told, what svc_oms and svc_risk have on disk and what the venue has in its journal to each other.

It shares nothing with the services but the contracts, and believes the venue first. Every check returns findings; none is the aim. The
records are of a mesh at rest.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal

from tests.e2e.crash.client import Ledger
from tests.e2e.crash.findings import AboveLimit, Doubled, Lost
from tests.e2e.crash.load import Cancel, Create, Replace
from tests.e2e.crash.order_record import OrderHistory, OrderRecord
from tests.e2e.crash.risk_record import CLOSED, CONFIRMED, REFUSED, ExposureEvent, Reservation, RiskRecord
from tests.e2e.crash.venue_record import VenueOrder, VenueRecord
from trademesh.oms.v1 import order_pb2
from trademesh.risk.v1 import events_pb2, limit_pb2
from trademesh.type.v1 import order_terms_pb2

_S = order_pb2.OrderState
_VENUE_STATES = {
    _S.ORDER_STATE_NEW: "open",
    _S.ORDER_STATE_PARTIALLY_FILLED: "open",
    _S.ORDER_STATE_FILLED: "filled",
    _S.ORDER_STATE_CANCELED: "canceled",
    _S.ORDER_STATE_EXPIRED: "expired",
}


def audit(ledger: Ledger, orders: OrderRecord, risk: RiskRecord, venue: VenueRecord) -> list[str]:
    """Return everything that contradicts something else."""
    return [
        *acknowledged(ledger, orders),
        *unanswered(ledger, orders),
        *keys(orders),
        *histories(orders),
        *venue_agrees(orders, venue),
        *session(orders, venue),
        *approved(orders, risk, venue),
        *reservations(orders, risk),
        *exposures(orders, risk),
        *exposure_logs(risk),
    ]


def acknowledged(ledger: Ledger, orders: OrderRecord) -> Iterator[str]:
    """Rule 1: what was answered is there, under its id and its key, as it was answered."""
    ids: Counter[str] = Counter()
    for command, answer in ledger.of(Create):
        history = orders.histories.get(answer.order_id)
        ids[answer.order_id] += 1
        if history is None or history.terms is None:
            yield Lost(f"order {answer.order_id} ({command.key}) was acknowledged and is gone")
            continue
        request, terms = command.request, history.terms
        assert isinstance(request, Create)
        for name in ("account_id", "client_order_id", "instrument_id", "side", "type", "time_in_force", "quantity", "limit_price"):
            if getattr(terms, name) != getattr(request, name):
                yield f"order {answer.order_id}: {name} was asked as {getattr(request, name)!r}, stored as {getattr(terms, name)!r}"
        expected = "OrderRejected" if answer.state == _S.ORDER_STATE_REJECTED else "OrderAccepted"
        if history.types[0] != expected:
            yield f"order {answer.order_id} was answered {order_pb2.OrderState.Name(answer.state)} and begins with {history.types[0]}"
    yield from (f"order id {order_id} answers {count} keys" for order_id, count in ids.items() if count > 1)
    for command, answer in (*ledger.of(Cancel), *ledger.of(Replace)):
        asked = orders.histories.get(answer.order_id)
        found = _requests_recorded(asked, command.key) if asked is not None else 0
        if answer.order_id != command.order_id or found != 1:
            kind = Doubled if found > 1 else Lost
            yield kind(f"request {command.key} on order {command.order_id} was acknowledged and is recorded {found} times")


def _requests_recorded(history: OrderHistory, key: str) -> int:
    return history.cancel_keys[key] + history.replace_keys[key] + history.replaces_rejected[key]


def unanswered(ledger: Ledger, orders: OrderRecord) -> Iterator[str]:
    """No order without a client who asked; nothing done that was refused; at most once what nobody heard of."""
    asked = {(command.account_id, command.key): key for key, command in ledger.commands.items()}
    for history in orders.histories.values():
        if history.terms is None:
            continue
        key = history.terms.account_id, history.terms.client_order_id
        if key not in asked:
            yield f"order {history.order_id} has key {key}, which no client used"
        elif key in ledger.refused:
            yield f"order {history.order_id} exists, and its client was refused: {ledger.refused[key]}"
        elif key in ledger.lost and ledger.lost[key].code == "UNAVAILABLE" and ledger.lost[key].reason:
            yield f"order {history.order_id} exists, and its client was told that nothing was persisted: {ledger.lost[key]}"
    for key, failure in (*ledger.refused.items(), *ledger.lost.items()):
        command = ledger.commands[key]
        asked_for = orders.histories.get(command.order_id)
        count = _requests_recorded(asked_for, command.key) if asked_for is not None else 0
        nothing = key in ledger.refused or (failure.code == "UNAVAILABLE" and failure.reason)
        if key in ledger.refused and asked_for is not None:
            # The refusal itself may be recorded: of a replace that risk had approved.
            count -= asked_for.replaces_rejected[command.key]
        if count > (0 if nothing else 1):
            yield f"request {command.key} is recorded {count} times, and its client was told {failure}"


def keys(orders: OrderRecord) -> Iterator[str]:
    """A client's key has one order, by whatever id, and an order begins once."""
    # That ids derive from keys is the service's own rule: here keys are counted as if they did not.
    places: dict[tuple[str, str], list[str]] = defaultdict(list)
    for order in orders.histories.values():
        if order.terms is not None:
            places[order.terms.account_id, order.terms.client_order_id].append(order.order_id)
        if order.beginnings > 1:
            yield Doubled(f"order {order.order_id} begins {order.beginnings} times: {' '.join(order.types)}")
        elif not order.begins:
            yield f"order {order.order_id} begins with {order.types[0]}"
    for key, found in places.items():
        if len(found) > 1:
            yield Doubled(f"key {key} has {len(found)} orders: {', '.join(sorted(found))}")


def histories(orders: OrderRecord) -> Iterator[str]:
    """Each stream is whole and folds to its read model; fills count once, everywhere."""
    fills: Counter[tuple[str, str]] = Counter()
    for order in orders.histories.values():
        fills.update(told.key for told in order.told)
        if order.versions != list(range(1, len(order.versions) + 1)) or order.places != sorted(order.places):
            yield f"order {order.order_id}: versions {order.versions} at {order.places}"
        if order.fills_repeated:
            yield Doubled(f"order {order.order_id} counts fills twice: {order.fills_repeated}")
        if order.filled_quantity > order.quantity:
            yield f"order {order.order_id} is filled {order.filled_quantity} of {order.quantity}"
        yield from (f"order {order.order_id}: {text}" for text in order.anomalies)
        sent_again = ((name, count) for name, count in order.routed.items() if count > 1)
        yield from (Doubled(f"order {order.order_id}: {name} was sent {count} times") for name, count in sent_again)
        yield from _read_model(order, orders.snapshots.get(order.order_id))
    yield from (Doubled(f"execution {key} counts for {count} orders") for key, count in fills.items() if count > 1)
    yield from (f"order {order_id} has a read model and no history" for order_id in orders.snapshots.keys() - orders.histories.keys())
    listed = Counter((execution.trade_date, execution.exec_id) for execution in orders.executions)
    if listed != fills:
        yield f"the table of executions differs from the events: {_difference(set(listed.items()), set(fills.items()))}"
    for execution in orders.executions:
        history = orders.histories.get(execution.order_id)
        shown = execution.trade_date, execution.exec_id, Decimal(execution.last_quantity), Decimal(execution.last_price)
        if history is None or shown not in {(*told.key, told.quantity, told.price) for told in history.told}:
            yield f"execution {execution.exec_id} of order {execution.order_id} is not what its event says"


def _read_model(order: OrderHistory, shown: order_pb2.Order | None) -> Iterator[str]:
    if shown is None:
        yield f"order {order.order_id} has no read model"
        return
    if (shown.state, shown.version) != (order.state, len(order.versions)):
        yield f"order {order.order_id}: shown as {shown.state} at {shown.version}, its events say {order.state} at {len(order.versions)}"
    if order.terms is None:
        return
    leaves = order.quantity - order.filled_quantity if order.is_open else Decimal(0)
    expected = {"quantity": order.quantity, "filled_quantity": order.filled_quantity, "leaves_quantity": leaves}
    for name, value in expected.items():
        if Decimal(getattr(shown, name)) != value:
            yield f"order {order.order_id}: {name} is shown as {getattr(shown, name)}, its events say {value}"
    price = Decimal(shown.limit_price) if shown.HasField("limit_price") else None
    if price != order.limit_price:
        yield f"order {order.order_id}: limit_price is shown as {price}, its events say {order.limit_price}"
    if shown.pending_action:
        yield f"order {order.order_id} has a pending request while everything rests"


def venue_agrees(orders: OrderRecord, venue: VenueRecord) -> Iterator[str]:
    """Rules 3 and 5: the venue has each order at most once, and as we say; its fills are ours, one by one."""
    yield from (Doubled(f"the venue took {order_id} twice") for order_id in venue.taken_twice)
    yield from (Doubled(f"the venue was sent {order_id} again") for order_id in venue.duplicates_refused)
    yield from (Doubled(f"the venue used execution id {exec_id} twice") for exec_id in venue.exec_ids_reused)
    yield from (Doubled(f"the venue used number {number} twice") for number in venue.numbers_reused)
    for order_id, theirs in venue.orders.items():
        ours = orders.histories.get(order_id)
        if ours is None or ours.terms is None:
            yield f"the venue has order {order_id}, which we do not know"
            continue
        if not ours.routed[order_id]:
            yield f"the venue has order {order_id}, which was not recorded as sent"
        yield from _same_order(ours, theirs)
    for order_id, ours in orders.histories.items():
        if order_id not in venue.orders and (ours.fills or ours.state not in (_S.ORDER_STATE_REJECTED, _S.ORDER_STATE_ABANDONED)):
            canceled_unsent = ours.state == _S.ORDER_STATE_CANCELED and not ours.routed and not ours.fills
            if not canceled_unsent:
                yield f"order {order_id} is {order_pb2.OrderState.Name(ours.state)}, and the venue never had it"


def _same_order(ours: OrderHistory, theirs: VenueOrder) -> Iterator[str]:
    assert ours.terms is not None
    name = f"order {ours.order_id}"
    is_buy = ours.terms.side == order_terms_pb2.SIDE_BUY
    if (theirs.account_id, theirs.instrument_id, theirs.is_buy) != (ours.terms.account_id, ours.terms.instrument_id, is_buy):
        yield f"{name}: the venue has other terms: {theirs}"
    if _VENUE_STATES.get(ours.state) != theirs.state:
        yield f"{name} is {order_pb2.OrderState.Name(ours.state)}, and {theirs.state} at the venue ({' '.join(ours.types)})"
    if (theirs.quantity, theirs.limit_price) != (ours.quantity, ours.limit_price):
        yield f"{name}: {ours.quantity} at {ours.limit_price}, {theirs.quantity} at {theirs.limit_price} at the venue"
    known = {(fill.trade_date, fill.exec_id): (fill.quantity, fill.price) for fill in theirs.fills}
    if known != ours.fills:
        yield f"{name}: fills differ from the venue's: {_difference(set(ours.fills.items()), set(known.items()))}"


def session(orders: OrderRecord, venue: VenueRecord) -> Iterator[str]:
    """Each message has one number, and what was sent is what the venue has."""
    numbers = [message["sequence"] for message in orders.messages]
    yield from (Doubled(f"message number {number} was given twice") for number, count in Counter(numbers).items() if count > 1)
    sent = Counter(message["order_id"] for message in orders.messages if message["msg_type"] == "D")
    yield from (Doubled(f"order {order_id} was numbered {count} times") for order_id, count in sent.items() if count > 1)
    yield from (f"the venue has order {order_id}, which has no stored message" for order_id in venue.orders.keys() - sent.keys())


def approved(orders: OrderRecord, risk: RiskRecord, venue: VenueRecord) -> Iterator[str]:
    """Rule 2: nothing reached the venue, or was accepted, without an approval that came first."""
    for order_id in (*venue.orders, *venue.rejected):
        reservation = risk.reservations.get(order_id)
        if reservation is None or reservation.status == REFUSED:
            yield f"order {order_id} reached the venue without an approval: {reservation}"
        elif order_id in venue.orders:
            accepted_at = datetime.fromtimestamp(venue.orders[order_id].accepted_ns / 1e9, UTC)
            if accepted_at < reservation.reserved_at:
                yield f"order {order_id} reached the venue at {accepted_at}, approved at {reservation.reserved_at}"
    for order in orders.histories.values():
        found = risk.reservations.get(order.order_id)
        if order.types[0] == "OrderAccepted" and (found is None or found.status == REFUSED):
            yield f"order {order.order_id} was accepted without an approval"
        if order.types[0] == "OrderRejected" and (found is None or found.status != REFUSED):
            yield f"order {order.order_id} was rejected, and risk holds {found}"
        for key in order.replace_keys:
            if key not in risk.approved_replaces:
                yield f"replace {key} of order {order.order_id} has no approval"


def reservations(orders: OrderRecord, risk: RiskRecord) -> Iterator[str]:
    """At rest, what is reserved is what may trade: one confirmed reservation for each open order, and no other."""
    for reservation in risk.reservations.values():
        order = orders.histories.get(reservation.order_id)
        if reservation.status not in (REFUSED, CONFIRMED, CLOSED) or reservation.pending is not None:
            yield f"reservation {reservation.order_id} is not settled: {reservation}"
        if reservation.status == CONFIRMED and (order is None or not order.is_open):
            yield f"reservation {reservation.order_id} is held for an order that is not open: {order.types if order else 'none'}"
        if order is None and reservation.status != REFUSED:
            yield f"reservation {reservation.order_id} was given up, and svc_oms may still accept its order: no OrderAbandoned"
    for order in orders.histories.values():
        held = risk.reservations.get(order.order_id)
        if order.is_open:
            if held is None or held.status != CONFIRMED:
                yield f"order {order.order_id} is open, and nothing is reserved for it: {held}"
            elif (held.quantity, held.price, held.filled) != (order.quantity, order.limit_price, order.filled_quantity):
                yield f"order {order.order_id} is {order.quantity} at {order.limit_price}, reserved is {held}"
        elif held is not None and held.status != REFUSED and held.filled != order.filled_quantity:
            yield f"order {order.order_id} is filled {order.filled_quantity}, risk says {held.filled}"


def exposures(orders: OrderRecord, risk: RiskRecord) -> Iterator[str]:
    """Rule 4, and exposures equal open orders: sums by account and instrument, from orders and fills alone."""
    wanted: dict[tuple[str, str], dict[str, Decimal]] = defaultdict(lambda: defaultdict(Decimal))
    for order in orders.histories.values():
        if order.terms is None:
            continue
        place = wanted[order.terms.account_id, order.terms.instrument_id]
        bought = order.terms.side == order_terms_pb2.SIDE_BUY
        place["position"] += order.filled_quantity if bought else -order.filled_quantity
        if order.is_open:
            leaves, side = order.quantity - order.filled_quantity, "buy" if bought else "sell"
            place[f"{side}_quantity"] += leaves
            place[f"{side}_notional"] += leaves * (order.limit_price or 0)
            place["count"] += 1
    names = ("position", "buy_quantity", "buy_notional", "sell_quantity", "sell_notional")
    for key in wanted.keys() | risk.positions.keys():
        for name in names:
            shown = risk.positions[key][name] if key in risk.positions else Decimal(0)
            if shown != wanted[key][name]:
                yield f"{'/'.join(key)}: {name} is {shown}, orders and fills make {wanted[key][name]}"
    for account_id, shown_account in risk.accounts.items():
        places = [place for key, place in wanted.items() if key[0] == account_id]
        for name, column in (("buy_notional", "buy_notional"), ("sell_notional", "sell_notional"), ("count", "reservation_count")):
            total = sum(place[name] for place in places)
            if shown_account[column] != total:
                yield f"{account_id}: {column} is {shown_account[column]}, open orders make {total}"


def exposure_logs(risk: RiskRecord) -> Iterator[str]:
    """Every change says what was before and after; the last says what is; no approval went above the limit that was in force then."""
    for account_id, log in risk.log.items():
        if [entry.version for entry in log] != list(range(1, len(log) + 1)):
            yield f"{account_id}: the exposure log has gaps"
        before, in_force = Decimal(0), dict[int, str]()
        for entry in log:
            if entry.delta is None:
                in_force[entry.message.limit.type] = entry.message.limit.value
            else:
                yield from _step(account_id, before, entry.delta, entry)
                yield from _limited(account_id, entry.delta, entry, in_force)
                before = Decimal(entry.delta.open_notional)
        shown = risk.accounts[account_id]
        if before != shown["buy_notional"] + shown["sell_notional"]:
            yield f"{account_id}: the exposure log ends at {before}, the account stands at {shown}"


def _step(account_id: str, before: Decimal, delta: events_pb2.ExposureDelta, entry: ExposureEvent) -> Iterator[str]:
    after = Decimal(delta.open_notional)
    if before + Decimal(delta.delta_notional) != after:
        yield f"{account_id}: version {entry.version} goes from {before} by {delta.delta_notional} to {after}"


def _limited(account_id: str, delta: events_pb2.ExposureDelta, entry: ExposureEvent, in_force: dict[int, str]) -> Iterator[str]:
    """The account's own limit stands in its log, in order with the approvals; one of all accounts is known by what risk says of it."""
    if entry.type != "risk.v1.ExposureReserved":
        return
    limits = (
        (delta.open_notional, delta.open_limit, limit_pb2.LIMIT_TYPE_OPEN_EXPOSURE),
        (delta.gross_exposure, delta.gross_limit, limit_pb2.LIMIT_TYPE_GROSS_EXPOSURE),
    )
    for value, said, kind in limits:
        limit = in_force.get(kind, said)
        if said != limit:
            yield f"{account_id}: version {entry.version} was decided by a limit of {said}, in force was {limit}"
        # What makes nothing larger is no approval of what a lowered limit has left above it.
        if limit and Decimal(value) > Decimal(limit) and Decimal(delta.delta_notional) > 0:
            yield AboveLimit(f"{account_id}: version {entry.version} approves {value} above {limit}")


def orphans(orders: OrderRecord, risk: RiskRecord) -> list[Reservation]:
    """Return the reservations that never had an order: each was given up by svc_oms first."""
    return [risk.reservations[order_id] for order_id, order in orders.histories.items() if order.types[0] == "OrderAbandoned"]


def _difference(ours: set[object], theirs: set[object]) -> str:
    return f"only here {sorted(map(str, ours - theirs))[:5]}, only there {sorted(map(str, theirs - ours))[:5]}"
