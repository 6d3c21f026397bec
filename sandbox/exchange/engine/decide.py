"""Decisions: a state and a command in, events out. Nothing here changes the state."""

from collections.abc import Callable
from typing import cast

from sandbox.exchange.engine import commands, events
from sandbox.exchange.engine.commands import Command
from sandbox.exchange.engine.events import Event
from sandbox.exchange.engine.matching import Plan, plan_fills
from sandbox.exchange.engine.state import Market, VenueState
from sandbox.exchange.engine.vocabulary import (
    CancelReason,
    CancelRejectReason,
    Order,
    OrderStatus,
    OrderType,
    RejectReason,
    Side,
    TimeInForce,
)

RESPONSE_TO_CANCEL = "1"
RESPONSE_TO_REPLACE = "2"

_RESTING = frozenset({TimeInForce.DAY, TimeInForce.GOOD_TILL_CANCEL})


def decide(state: VenueState, command: Command) -> list[Event]:
    """Return what `command` leads to. Phases must be current: `AdvanceTime` comes first when a boundary was passed."""
    return _DECIDE[type(command)](state, command)


def _order_defect(state: VenueState, command: commands.NewOrder) -> RejectReason | None:
    """The first rule that the order breaks, in the order in which RejectReason lists them."""
    if (command.owner, command.client_order_id) in state.by_client_order_id:
        return RejectReason.DUPLICATE_ORDER
    market = state.markets.get(command.instrument)
    if market is None:
        return RejectReason.UNKNOWN_SYMBOL
    if not market.is_open:
        return RejectReason.EXCHANGE_CLOSED
    is_market = command.order_type is OrderType.MARKET
    if is_market and command.time_in_force is TimeInForce.GOOD_TILL_CANCEL:
        return RejectReason.UNSUPPORTED_CHARACTERISTIC
    if command.quantity <= 0:
        return RejectReason.INCORRECT_QUANTITY
    if command.quantity > market.instrument.quantity_max:
        return RejectReason.QUANTITY_LIMIT
    if (command.price != 0) if is_market else not 0 < command.price <= market.instrument.price_max:
        return RejectReason.INCORRECT_PRICE
    if command.quantity * (market.reference_price if is_market else command.price) > market.instrument.value_max:
        return RejectReason.NOTIONAL_LIMIT
    return None


def _decide_new(state: VenueState, command: commands.NewOrder) -> list[Event]:
    sequence = state.sequence + 1
    defect = _order_defect(state, command)
    if defect is not None:
        return [_rejected(state, command, defect)]
    market = state.markets[command.instrument]
    accepted = events.Accepted(
        sequence, command.time_ns, command.owner, command.account, command.client_order_id, command.instrument, command.side,
        command.order_type, command.time_in_force, command.quantity, command.price,
    )  # fmt: skip
    limit = command.price if command.order_type is OrderType.LIMIT else None
    opposite = market.book.opposite(command.side)
    plan = plan_fills(opposite, command.side, limit, command.quantity, command.owner, command.account)
    if command.time_in_force is TimeInForce.FILL_OR_KILL and plan.remaining:
        reason = CancelReason.SELF_TRADE if plan.met_own_order else CancelReason.NOT_FILLABLE
        return [accepted, events.Canceled(sequence + 1, command.time_ns, sequence, command.instrument, "", command.quantity, reason, 0)]
    rests = limit is not None and command.time_in_force in _RESTING
    return [accepted, *_meet(market, plan, command.time_ns, sequence + 1, sequence, command.side, rests)]


def _meet(market: Market, plan: Plan, time_ns: int, sequence: int, order_id: int, side: Side, rests: bool) -> list[Event]:
    """Turn a plan into trades and, for what is left over, a place in the book or a cancel."""
    outcome: list[Event] = []
    symbol, trade_date = market.instrument.symbol, market.trade_date
    for maker, taken in plan.fills:
        reference = maker.book_reference
        outcome.append(events.Traded(sequence, time_ns, trade_date, symbol, maker.price, taken, order_id, maker.order_id, side, reference))
        sequence += 2
    if not plan.remaining:
        return outcome
    if rests and not plan.met_own_order:
        outcome.append(events.Booked(sequence, order_id))
    else:
        reason = CancelReason.SELF_TRADE if plan.met_own_order else CancelReason.REMAINDER
        outcome.append(events.Canceled(sequence, time_ns, order_id, symbol, "", plan.remaining, reason, 0))
    return outcome


def _rejected(state: VenueState, command: commands.NewOrder, reason: RejectReason) -> events.Rejected:
    market = state.markets.get(command.instrument)
    quantity = market.instrument.quantities.text(command.quantity) if market else str(command.quantity)
    price = market.instrument.prices.text(command.price) if market else str(command.price)
    if command.order_type is OrderType.MARKET:
        price = ""
    return events.Rejected(
        state.sequence + 1, command.time_ns, command.owner, command.account, command.client_order_id, command.instrument, command.side,
        command.order_type, command.time_in_force, quantity, price, reason.name, reason.text,
    )  # fmt: skip


def _decide_refuse_order(state: VenueState, command: commands.RefuseOrder) -> list[Event]:
    reason, text = command.reason, command.text
    if (command.owner, command.client_order_id) in state.by_client_order_id:
        reason, text = RejectReason.DUPLICATE_ORDER, RejectReason.DUPLICATE_ORDER.text
    return [
        events.Rejected(
            state.sequence + 1,
            command.time_ns,
            command.owner,
            command.account,
            command.client_order_id,
            command.instrument,
            command.side,
            command.order_type,
            command.time_in_force,
            command.quantity,
            command.price,
            reason.name,
            text,
        )
    ]


def _change_rejected(
    state: VenueState, command: commands.CancelOrder | commands.ReplaceOrder, order: Order | None, reason: CancelRejectReason
) -> list[Event]:
    response_to = RESPONSE_TO_CANCEL if isinstance(command, commands.CancelOrder) else RESPONSE_TO_REPLACE
    return [
        events.ChangeRejected(
            state.sequence + 1,
            command.time_ns,
            command.owner,
            order.order_id if order else 0,
            command.client_order_id,
            command.orig_client_order_id,
            response_to,
            reason.name,
            reason.text,
        )
    ]


def _change_defect(
    state: VenueState, command: commands.CancelOrder | commands.ReplaceOrder, order: Order | None
) -> CancelRejectReason | None:
    """The first rule that cancels and replaces share and that this one breaks."""
    if (command.owner, command.client_order_id) in state.by_client_order_id:
        return CancelRejectReason.DUPLICATE_CLIENT_ORDER_ID
    if order is None:
        return CancelRejectReason.UNKNOWN_ORDER
    if not order.is_open:
        return CancelRejectReason.TOO_LATE
    if isinstance(command, commands.ReplaceOrder) and order.client_order_id != command.orig_client_order_id:
        return CancelRejectReason.NOT_CURRENT
    if order.instrument != command.instrument or order.side is not command.side:
        return CancelRejectReason.MISMATCH
    return None


def _decide_cancel(state: VenueState, command: commands.CancelOrder) -> list[Event]:
    order = state.find(command.owner, command.orig_client_order_id)
    defect = _change_defect(state, command, order)
    if defect is not None or order is None:
        return _change_rejected(state, command, order, defect or CancelRejectReason.UNKNOWN_ORDER)
    return [
        events.Canceled(
            state.sequence + 1,
            command.time_ns,
            order.order_id,
            order.instrument,
            command.client_order_id,
            order.leaves_quantity,
            CancelReason.REQUESTED,
            order.book_reference,
        )
    ]


def _replace_defect(market: Market, command: commands.ReplaceOrder) -> CancelRejectReason | None:
    if not market.is_open:
        return CancelRejectReason.EXCHANGE_CLOSED
    if command.order_type is not OrderType.LIMIT or command.time_in_force not in _RESTING:
        return CancelRejectReason.UNSUPPORTED_CHARACTERISTIC
    if not 0 < command.quantity <= market.instrument.quantity_max:
        return CancelRejectReason.INCORRECT_QUANTITY
    if not 0 < command.price <= market.instrument.price_max:
        return CancelRejectReason.INCORRECT_PRICE
    if command.quantity * command.price > market.instrument.value_max:
        return CancelRejectReason.NOTIONAL_LIMIT
    return None


def _decide_replace(state: VenueState, command: commands.ReplaceOrder) -> list[Event]:
    order = state.find(command.owner, command.orig_client_order_id)
    defect = _change_defect(state, command, order)
    if defect is not None or order is None:
        return _change_rejected(state, command, order, defect or CancelRejectReason.UNKNOWN_ORDER)
    market = state.markets[order.instrument]
    defect = _replace_defect(market, command)
    if defect is not None:
        return _change_rejected(state, command, order, defect)
    quantity = max(command.quantity, order.cum_quantity)
    keeps_priority = command.price == order.price and quantity <= order.quantity
    sequence = state.sequence + 1
    replaced = events.Replaced(
        sequence, command.time_ns, order.order_id, order.instrument, command.client_order_id, command.time_in_force, quantity,
        command.price, keeps_priority, order.quantity - quantity if keeps_priority else 0, order.book_reference,
    )  # fmt: skip
    leaves = quantity - order.cum_quantity
    if keeps_priority or leaves == 0:
        return [replaced]
    plan = plan_fills(market.book.opposite(order.side), order.side, command.price, leaves, order.owner, order.account)
    return [replaced, *_meet(market, plan, command.time_ns, sequence + 1, order.order_id, order.side, True)]


def _decide_refuse_change(state: VenueState, command: commands.RefuseChange) -> list[Event]:
    order = state.find(command.owner, command.orig_client_order_id)
    return [
        events.ChangeRejected(
            state.sequence + 1,
            command.time_ns,
            command.owner,
            order.order_id if order else 0,
            command.client_order_id,
            command.orig_client_order_id,
            command.response_to,
            command.reason.name,
            command.text,
        )
    ]


def _decide_cancel_all(state: VenueState, command: commands.CancelAll) -> list[Event]:
    return [
        events.Canceled(
            state.sequence + 1 + index,
            command.time_ns,
            order.order_id,
            order.instrument,
            "",
            order.leaves_quantity,
            command.reason,
            order.book_reference,
        )
        for index, order in enumerate(state.open_orders_of(command.owner))
    ]


def _decide_advance(state: VenueState, command: commands.AdvanceTime) -> list[Event]:
    outcome: list[Event] = []
    sequence = state.sequence
    if command.time_ns < state.next_boundary_ns:
        return outcome
    for symbol, market in state.markets.items():
        if command.time_ns < market.phase_ends_ns:
            continue
        calendar = market.instrument.calendar
        phase = calendar.phase_at(command.time_ns)
        if not market.tick:
            grid = market.instrument
            dated = calendar.trade_date_before(phase.trade_date) if phase.is_open else phase.trade_date
            sequence += 1
            outcome.append(
                events.Listed(sequence, command.time_ns, symbol, grid.prices.step, grid.quantities.step, grid.initial_close, dated)
            )
        if market.is_open:
            closing = _close_session(state, market, command.time_ns, sequence)
            outcome += closing
            sequence += len(closing)
        sequence += 1
        outcome.append(events.PhaseChanged(sequence, command.time_ns, symbol, phase.is_open, phase.trade_date, phase.ends_ns))
    return outcome


def _close_session(state: VenueState, market: Market, time_ns: int, sequence: int) -> list[Event]:
    """Expire the session's DAY orders, oldest first, then set the close."""
    ending = sorted(
        (
            order
            for owned in state.open_orders.values()
            for order in owned.values()
            if order.instrument == market.instrument.symbol and order.time_in_force is TimeInForce.DAY
        ),
        key=lambda order: order.order_id,
    )
    outcome: list[Event] = [
        events.Expired(sequence + 1 + index, time_ns, order.order_id, order.instrument, order.leaves_quantity, order.book_reference)
        for index, order in enumerate(ending)
    ]
    traded = market.last_trade_date == market.trade_date
    price, dated = (market.last_price, market.trade_date) if traded else (market.close_price, market.close_date)
    outcome.append(events.OfficialClose(sequence + len(outcome) + 1, time_ns, market.instrument.symbol, price, dated))
    return outcome


def _decide_correct(state: VenueState, command: commands.CorrectTrade) -> list[Event]:
    """Correct a trade, or nothing if it is unknown, already busted, or the new terms are not lower or equal in quantity.

    Returned quantity of an order that is still open rejoins its queue at the back; of a closed one it is cancelled at once.
    """
    trade = state.trades.get(command.match_id)
    if trade is None or trade.quantity == 0 or not 0 <= command.quantity <= trade.quantity:
        return []
    if not 0 < command.price <= state.markets[trade.instrument].instrument.price_max:
        return []
    if (command.price, command.quantity) == (trade.price, trade.quantity):
        return []
    parties = [state.orders.get(trade.buy_order_id), state.orders.get(trade.sell_order_id)]
    returned = trade.quantity - command.quantity
    references = [order.book_reference if order and returned else 0 for order in parties]
    sequence = state.sequence + 1
    outcome: list[Event] = [
        events.TradeCorrected(sequence, command.time_ns, command.match_id, command.price, command.quantity, references[0], references[1])
    ]
    sequence += 2
    for order in parties:
        if order is None or not returned:
            continue
        if order.is_open:
            outcome.append(events.Booked(sequence, order.order_id))
        elif order.status is OrderStatus.FILLED:
            outcome.append(
                events.Canceled(sequence, command.time_ns, order.order_id, order.instrument, "", returned, CancelReason.BUSTED, 0)
            )
        else:
            continue
        sequence += 1
    return outcome


_DECIDE = cast(
    "dict[type[Command], Callable[[VenueState, Command], list[Event]]]",
    {
        commands.NewOrder: _decide_new,
        commands.RefuseOrder: _decide_refuse_order,
        commands.CancelOrder: _decide_cancel,
        commands.ReplaceOrder: _decide_replace,
        commands.RefuseChange: _decide_refuse_change,
        commands.CancelAll: _decide_cancel_all,
        commands.AdvanceTime: _decide_advance,
        commands.CorrectTrade: _decide_correct,
    },
)
