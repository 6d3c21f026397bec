"""The steps of the demo, in order."""

from __future__ import annotations

import time
from collections import defaultdict
from datetime import UTC, datetime
from decimal import ROUND_DOWN, Decimal

from cli import rpcs
from cli.demo import doors, holdings
from cli.demo.desk import STEP_SECONDS_MAX, Desk, average_price
from cli.demo.listener import Listener
from cli.demo.transcript import StepError, Tally, Transcript
from cli.session import Session, new_key
from cli.watch import OrderFeed
from kernel.errors import AlreadyExistsError, TrademeshError
from mesh.local import commands, screens
from mesh.local.layout import running_supervisor
from mesh.local.options import Options
from trademesh.oms.v1 import execution_pb2, order_pb2, order_service_pb2
from trademesh.risk.v1 import kill_switch_pb2, limit_pb2, reference_data_service_pb2, risk_service_pb2
from trademesh.type.v1 import order_terms_pb2

_CENT = Decimal("0.01")
_ZERO = Decimal(0)


def run_demo(session: Session, account: str | None = None) -> bool:
    """Trade on the mesh, starting it if it is down; return whether every step held. Writes a transcript and one line of JSON.

    Args:
        session: the command's session.
        account: the account to create and trade for; a fresh one unless given.
    """
    began, tally, transcript = time.monotonic(), Tally(), Transcript(session.output)
    if running_supervisor(session.layout) is None:
        commands.up(session.layout, Options(), screens.console(stderr=session.output.as_json))
    desk = _open_desk(session, account or f"DEMO-{datetime.now(UTC):%Y%m%d-%H%M%S}", transcript, tally)
    try:
        _steps(desk)
    except StepError as error:
        tally.failure = f"does not hold: {error}"
    except TrademeshError as error:
        tally.failure = f"{error.reason}: {error.message}"
    finally:
        desk.listener.stop()
    if tally.failure:
        transcript.line(f"\nThe demo stopped: {tally.failure}")
    tally.stream_gaps = desk.listener.gaps
    tally.elapsed_s = round(time.monotonic() - began, 3)
    transcript.line("")
    session.output.document(tally.document())
    return tally.holds


def _open_desk(session: Session, account: str, transcript: Transcript, tally: Tally) -> Desk:
    request = order_service_pb2.StreamOrderEventsRequest(account_id=account)
    request.heartbeat_interval.FromSeconds(1)
    # A connection of its own: closing it ends the stream, and nothing else.
    feed = OrderFeed(session.connect(account), request, give_up_seconds=STEP_SECONDS_MAX)
    return Desk(session, account, transcript, tally, Listener(feed))


def _steps(desk: Desk) -> None:
    _account(desk)
    holdings.market(desk, "AAPL")
    bought = _fills(desk)
    _risk_rejection(desk, bought)
    _replay(desk)
    doors.rest_orders(desk)
    _cancel(desk, bought)
    _limit(desk)
    _kill_switch(desk)
    executions = _exposures(desk, bought)
    holdings.positions(desk, executions, _positions(executions))
    holdings.settle(desk, executions)
    holdings.report(desk, executions)


def _account(desk: Desk) -> None:
    desk.transcript.step(f"A fresh account, {desk.account}, and a stream of what happens to its orders")
    desk.transcript.command(f"accounts create {desk.account}")
    request = reference_data_service_pb2.CreateAccountRequest(
        account_id=desk.account, display_name="Demo", currency="USD", request_id=new_key()
    )
    desk.session.call(rpcs.CREATE_ACCOUNT, request, desk.account)
    limits = desk.risk_state(lambda state: bool(state.limits)).limits
    desk.transcript.check(bool(limits), f"created; {len(limits)} default limits bind it")
    holdings.deposit(desk)
    desk.transcript.command(f"watch --account {desk.account}")
    desk.transcript.check(desk.listener.start(timeout_seconds=STEP_SECONDS_MAX), "the stream begins with a snapshot of no open orders")


def _fills(desk: Desk) -> order_pb2.Order:
    desk.transcript.step("Market orders: accepted, routed over FIX, acknowledged, filled")
    bought = desk.fill(desk.request("buy", "10", "AAPL"))
    desk.fill(desk.request("buy", "0.05", "BTC-USD"))
    desk.fill(desk.request("sell", "4", "AAPL"))
    return bought


def _risk_rejection(desk: Desk, bought: order_pb2.Order) -> None:
    desk.transcript.step("An order that breaks several limits at once: every breach is named, nothing is sent")
    price = _on_tick(average_price(bought) * Decimal("1.5"))
    reasons = ("MAX_QUANTITY_EXCEEDED", "MAX_NOTIONAL_EXCEEDED", "PRICE_COLLAR_BREACHED", "OPEN_EXPOSURE_EXCEEDED")
    desk.refuse(desk.request("buy", "200000", "AAPL", price), *reasons)


def _replay(desk: Desk) -> None:
    desk.transcript.step("The same command again: the first answer again, and no second order")
    request = desk.request("buy", "7", "MSFT")
    first = desk.send(request).message
    desk.listener.await_order(
        first.order.order_id, lambda item: item.state == order_pb2.ORDER_STATE_FILLED, timeout_seconds=STEP_SECONDS_MAX
    )
    again = desk.send(request)
    desk.tally.replays_identical = again.replayed and again.message.order == first.order
    desk.transcript.check(desk.tally.replays_identical, "answered as the first time, marked as a replay")
    request.quantity = "8"
    try:
        desk.send(request)
        refused = False
    except AlreadyExistsError as error:
        desk.transcript.tell(f"{error.reason}: {error.message}")
        refused = True
    desk.transcript.check(refused, "another command under the same key is refused")


def _cancel(desk: Desk, bought: order_pb2.Order) -> None:
    desk.transcript.step("An order that rests in the book holds exposure; canceling it gives it back")
    price = _on_tick(average_price(bought) * Decimal("0.97"))
    placed = desk.rest(desk.request("buy", "5", "AAPL", price))
    held = 5 * price
    state = desk.risk_state(lambda state: Decimal(state.open_buy_notional) == held)
    desk.transcript.check(Decimal(state.open_buy_notional) == held, f"risk holds {state.open_buy_notional} USD for it")
    desk.transcript.command(f"cancel {placed.order_id} --account {desk.account}")
    request = order_service_pb2.CancelOrderRequest(account_id=desk.account, order_id=placed.order_id, request_id=new_key())
    desk.session.call(rpcs.CANCEL_ORDER, request, desk.account)
    desk.await_terminal(placed, order_pb2.ORDER_STATE_CANCELED)
    state = desk.risk_state(lambda state: Decimal(state.open_buy_notional) == 0)
    desk.transcript.check(Decimal(state.open_buy_notional) == 0, "risk has released it")


def _limit(desk: Desk) -> None:
    desk.transcript.step("A limit lowered: it binds the next order")
    _set_limit(desk, "3")
    desk.refuse(desk.request("buy", "6", "MSFT"), "MAX_QUANTITY_EXCEEDED")
    _set_limit(desk, "1000")
    desk.fill(desk.request("buy", "6", "MSFT"))


def _set_limit(desk: Desk, value: str) -> None:
    desk.transcript.command(f"limits set account {desk.account} max-quantity {value}")
    request = risk_service_pb2.UpdateLimitRequest(
        scope=limit_pb2.LIMIT_SCOPE_ACCOUNT,
        scope_id=desk.account,
        type=limit_pb2.LIMIT_TYPE_MAX_QUANTITY,
        value=value,
        comment="demo",
        request_id=new_key(),
    )
    changed = desk.session.call(rpcs.UPDATE_LIMIT, request, desk.account).message.limit
    desk.transcript.check(changed.value == value, f"in force, version {changed.version}, set by {changed.principal}")


def _kill_switch(desk: Desk) -> None:
    desk.transcript.step("The kill switch: active in risk and in the order service before it answers")
    scope = kill_switch_pb2.KILL_SWITCH_SCOPE_ACCOUNT
    desk.transcript.command(f"kill activate account {desk.account}")
    activate = risk_service_pb2.ActivateKillSwitchRequest(scope=scope, scope_id=desk.account, comment="demo", request_id=new_key())
    desk.session.call(rpcs.ACTIVATE_KILL_SWITCH, activate, desk.account)
    _await_switch(desk, kill_switch_pb2.KILL_SWITCH_STATUS_ACTIVE, "active everywhere")
    desk.refuse(desk.request("sell", "2", "AAPL"), "KILL_SWITCH_ACTIVE")
    desk.transcript.command(f"kill release account {desk.account}")
    release = risk_service_pb2.ReleaseKillSwitchRequest(scope=scope, scope_id=desk.account, comment="demo", request_id=new_key())
    desk.session.call(rpcs.RELEASE_KILL_SWITCH, release, desk.account)
    _await_switch(desk, kill_switch_pb2.KILL_SWITCH_STATUS_RELEASED, "released")
    desk.fill(desk.request("sell", "1", "AAPL"))


def _await_switch(desk: Desk, status: kill_switch_pb2.KillSwitchStatus.ValueType, words: str) -> None:
    def read() -> list[kill_switch_pb2.KillSwitch]:
        listed = desk.session.call(rpcs.LIST_KILL_SWITCHES, risk_service_pb2.ListKillSwitchesRequest(page_size=500), desk.account)
        return [item for item in listed.message.kill_switches if item.scope_id == desk.account]

    found = desk.until(read, lambda items: bool(items) and items[0].status == status)
    desk.transcript.check(bool(found) and found[0].status == status, words)


def _exposures(desk: Desk, bought: order_pb2.Order) -> list[execution_pb2.Execution]:
    desk.transcript.step("Exposures, against the fills and the open orders")
    price = _on_tick(average_price(bought) * Decimal("1.03"))
    resting = desk.rest(desk.request("sell", "3", "AAPL", price))
    executions = desk.executions()
    positions = _positions(executions)

    def matches(state: risk_service_pb2.GetRiskStateResponse) -> bool:
        seen = {item.instrument_id: Decimal(item.position_quantity) for item in state.instruments if Decimal(item.position_quantity)}
        return seen == positions and Decimal(state.open_sell_notional) == 3 * price and Decimal(state.open_buy_notional) == 0

    desk.transcript.command(f"risk {desk.account}")
    state = desk.risk_state(matches)
    for item in state.instruments:
        desk.transcript.tell(f"{item.instrument_id:8} position {item.position_quantity}, worth {item.position_notional} USD")
    desk.transcript.tell(f"open sells {state.open_sell_notional} USD in {state.reservation_count} reservation")
    desk.tally.exposures_match_orders = matches(state) and state.reservation_count == 1
    desk.transcript.check(desk.tally.exposures_match_orders, "positions are the sums of the fills, reservations those of the open orders")
    shown = desk.listener.executions()
    desk.tally.fills = sum(item.type == execution_pb2.EXECUTION_TYPE_TRADE for item in executions)
    counted_once = len(set(shown)) == len(shown) and set(shown) == {item.exec_id for item in executions}
    desk.transcript.check(counted_once, f"the stream showed each of the {desk.tally.fills} fills once, and missed none")
    desk.transcript.command(f"cancel-all --account {desk.account}")
    cancel = order_service_pb2.CancelAllOrdersRequest(account_id=desk.account, request_id=new_key())
    desk.session.call(rpcs.CANCEL_ALL_ORDERS, cancel, desk.account)
    desk.await_terminal(resting, order_pb2.ORDER_STATE_CANCELED)
    return executions


def _positions(executions: list[execution_pb2.Execution]) -> dict[str, Decimal]:
    """Sum the fills by instrument; a flat instrument is left out."""
    held: dict[str, Decimal] = defaultdict(lambda: _ZERO)
    for item in executions:
        sign = 1 if item.side == order_terms_pb2.SIDE_BUY else -1
        held[item.instrument_id] += sign * Decimal(item.last_quantity)
    return {instrument: quantity for instrument, quantity in held.items() if quantity}


def _on_tick(price: Decimal) -> Decimal:
    return price.quantize(_CENT, rounding=ROUND_DOWN)
