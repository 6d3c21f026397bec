"""The venue behind the FIX door: requests become commands, events become reports, faults bend both. No sessions, no sockets."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from kernel.fix import tags
from kernel.fix.message import Field
from kernel.fix.steps import AppMessage, Delivery
from kernel.ports import Clock
from sandbox.exchange import requests
from sandbox.exchange.engine import Engine, codec, commands, events
from sandbox.exchange.engine.events import Event
from sandbox.exchange.engine.vocabulary import CancelReason, CancelRejectReason, Order, RejectReason
from sandbox.exchange.faults import Action, FaultBook, Rule, Subject
from sandbox.exchange.flow import FLOW_OWNER, SyntheticFlow
from sandbox.exchange.holds import NEVER_NS, Hold, Holds, Kind
from sandbox.exchange.instruments import OffGridError
from sandbox.exchange.journal.records import Batch
from sandbox.exchange.reports import Report, ReportWriter
from sandbox.exchange.tap import BookTap

APP_TYPES = frozenset(
    {
        tags.NEW_ORDER_SINGLE,
        tags.ORDER_CANCEL_REQUEST,
        tags.ORDER_CANCEL_REPLACE_REQUEST,
        tags.ORDER_STATUS_REQUEST,
        tags.ORDER_MASS_STATUS_REQUEST,
    }
)
_REQUEST_NAMES = {tags.NEW_ORDER_SINGLE: "new", tags.ORDER_CANCEL_REQUEST: "cancel", tags.ORDER_CANCEL_REPLACE_REQUEST: "replace"}
_ALL_ORDERS, _ORDERS_OF_SYMBOL = "7", "1"
_MILLISECOND_NS = 1_000_000

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Parts:
    """What a venue is made of."""

    engine: Engine
    reports: ReportWriter
    faults: FaultBook
    holds: Holds
    tap: BookTap | None
    flow: SyntheticFlow
    clock: Clock


class Venue:
    """Carries out what members, the clock, the synthetic flow and the operator want.

    Args:
        parts: the pieces, already restored from the journal.
        batch: gives the journal's current batch, where facts are staged.
        send: takes messages for members; called in the order in which they must be sent.
    """

    def __init__(self, parts: Parts, batch: Callable[[], Batch], send: Callable[[str, AppMessage], None]) -> None:
        self._parts = parts
        self._engine = parts.engine
        self._state = parts.engine.state
        self._batch = batch
        self._send = send
        self._instruments = {symbol: market.instrument for symbol, market in self._state.markets.items()}
        self.flow_tick = 0

    # The engine's events.

    def observe(self, event: Event) -> None:
        """Stage an event, and report it; the engine calls this right after it folded it."""
        self._batch().events.append(codec.encode(event))
        if self._parts.tap is not None:
            self._parts.tap.observe(event)
        for report in self._parts.reports.reports(event):
            self._report(report)

    def _report(self, report: Report) -> None:
        rule = None
        if self._parts.faults.active and report.event is not None and not self._parts.holds.is_full:
            rule = self._parts.faults.for_report(self._subject_of(report), report.event)
        if rule is None:
            self._send(report.owner, report.message)
        else:
            self._bend(report, rule)
        if self._parts.holds and isinstance(report.event, events.Canceled | events.Expired | events.ChangeRejected) and report.order:
            for hold_id in self._parts.holds.awaiting_close_of(report.order.order_id):
                self._release(hold_id)

    def _subject_of(self, report: Report) -> Subject:
        order, event = report.order, report.event
        if order is not None:
            names = filter(None, (*order.client_order_ids, order.cancel_client_order_id))
            return Subject(order.owner, order.instrument, order.account, tuple(names))
        if isinstance(event, events.Rejected):
            return Subject(event.owner, event.instrument, event.account, (event.client_order_id,))
        assert isinstance(event, events.ChangeRejected)
        return Subject(event.owner, "", "", (event.client_order_id, event.orig_client_order_id))

    def _bend(self, report: Report, rule: Rule) -> None:
        """Do to a report what a fault rule says."""
        order_id = report.order.order_id if report.order else 0
        release_ns = self._now() + rule.delay_ms * _MILLISECOND_NS
        match rule.action:
            case Action.MUTE:
                pass
            case Action.DELAY:
                payload = [report.message.msg_type, [list(pair) for pair in report.message.body]]
                self._hold(self._parts.holds.new(report.owner, order_id, release_ns, Kind.MESSAGE, payload))
            case Action.HOLD_FILLS:
                assert isinstance(report.event, events.Traded)
                if rule.until_closed and not rule.delay_ms:
                    release_ns = NEVER_NS
                payload = Holds.fill_payload(report.event)
                self._hold(self._parts.holds.new(report.owner, order_id, release_ns, Kind.FILL, payload, until_closed=rule.until_closed))
            case Action.DUPLICATE:
                self._send(report.owner, report.message)
                self._send(report.owner, report.message)
            case Action.BUST | Action.CORRECT:
                assert isinstance(report.event, events.Traded)
                self._send(report.owner, report.message)
                self._hold(self._parts.holds.new(report.owner, order_id, release_ns, Kind.CORRECTION, self._terms(report.event, rule)))
            case _:
                raise AssertionError(f"{rule.action} is not about reports")

    def _terms(self, trade: events.Traded, rule: Rule) -> list[Any]:
        """The corrected terms of a trade: match id, price in ticks, quantity in lots."""
        instrument = self._instruments[trade.instrument]
        try:
            price = instrument.prices.count(rule.price) if rule.price else trade.price
            quantity = instrument.quantities.count(rule.quantity) if rule.quantity else trade.quantity
        except OffGridError as error:
            _log.warning("fault rule does not fit the instrument", extra={"fields": {"rule_id": rule.rule_id, "problem": str(error)}})
            price, quantity = trade.price, trade.quantity
        return [trade.sequence, price, 0 if rule.action is Action.BUST else quantity]

    # Holds.

    def _hold(self, hold: Hold) -> None:
        self._batch().notes.append(["hold", hold.dump()])
        self._parts.holds.add(hold)

    def _release(self, hold_id: int) -> None:
        if hold_id not in self._parts.holds:
            # Let go of meanwhile: a correction takes the fill that it corrects along.
            return
        hold = self._parts.holds.release(hold_id)
        self._batch().notes.append(["release", hold_id])
        if hold.kind is Kind.MESSAGE:
            msg_type, body = hold.payload
            self._send(hold.owner, AppMessage(msg_type, [(tag, text) for tag, text in body]))
        elif hold.kind is Kind.FILL:
            order = self._state.orders.get(hold.order_id)
            if order is not None:
                self._send(hold.owner, self._parts.reports.trade_report(order, hold.trade()).message)
        else:
            self._correct(*hold.payload)

    def _correct(self, match_id: int, price: int, quantity: int) -> bool:
        """Bust or correct a trade. Whoever was not told of it yet is told first: nobody can take back what he does not know."""
        exec_ids = frozenset(self._parts.reports.order_id(match_id + side) for side in range(2))
        for hold_id in self._parts.holds.about_trade(match_id, exec_ids):
            self._release(hold_id)
        return bool(self._engine.execute(commands.CorrectTrade(self._now(), match_id, price, quantity)))

    def release_all(self) -> None:
        """Let go of everything held, oldest first: what a restart does."""
        for hold in list(self._parts.holds):
            self._release(hold.hold_id)

    # Time.

    def _now(self) -> int:
        return self._parts.clock.now_ns()

    def advance(self) -> None:
        """Do what is due by now."""
        now = self._now()
        if now >= self._state.next_boundary_ns:
            self._engine.execute(commands.AdvanceTime(now))
        if self._parts.holds:
            for hold_id in self._parts.holds.due(now):
                self._release(hold_id)

    def step_flow(self) -> None:
        """Let the synthetic participants act once, on the instruments that are open."""
        now = self._now()
        open_symbols = [symbol for symbol, market in self._state.markets.items() if market.is_open]
        for command in self._parts.flow.commands(self.flow_tick, now, open_symbols):
            if isinstance(command, commands.CancelOrder) and self._state.find(FLOW_OWNER, command.orig_client_order_id) is None:
                continue
            self._engine.execute(command)
        self.flow_tick += 1
        self._batch().notes.append(["tick", self.flow_tick])

    # Requests.

    def request(self, owner: str, delivery: Delivery) -> bool:
        """Carry out one application message of a member. Returns whether a fault wants the connection dropped after it."""
        message = delivery.message
        if message.msg_type == tags.ORDER_STATUS_REQUEST:
            self._order_status(owner, delivery)
            return False
        if message.msg_type == tags.ORDER_MASS_STATUS_REQUEST:
            self._mass_status(owner, delivery)
            return False
        if message.msg_type not in _REQUEST_NAMES:
            fields = {"member": owner, "msg_type": message.msg_type, "text": message.get(tags.TEXT) or ""}
            _log.warning("member rejected a message", extra={"fields": fields})
            return False
        rule = self._request_rule(owner, delivery) if self._parts.faults.active else None
        if rule is None or rule.action is Action.DISCONNECT:
            self._execute(owner, delivery)
            return rule is not None
        if rule.action is Action.REJECT:
            self._refuse(owner, delivery, rule.text)
        return False

    def _request_rule(self, owner: str, delivery: Delivery) -> Rule | None:
        fields = delivery.message.first_by_tag
        chain = [fields[tags.CL_ORD_ID], fields.get(tags.ORIG_CL_ORD_ID, "")]
        account = fields.get(tags.ACCOUNT, "")
        order = self._state.find(owner, chain[1])
        if order is not None:
            chain += order.client_order_ids
            account = order.account
        subject = Subject(owner, fields[tags.SYMBOL], account, tuple(filter(None, chain)))
        return self._parts.faults.for_request(subject, _REQUEST_NAMES[delivery.message.msg_type])

    def _execute(self, owner: str, delivery: Delivery) -> None:
        message, now = delivery.message, self._now()
        if message.msg_type == tags.NEW_ORDER_SINGLE:
            known = self._state.by_client_order_id.get((owner, message.first_by_tag[tags.CL_ORD_ID])) if delivery.poss_resend else None
            if known is not None:
                self._send(owner, self._parts.reports.status(known, now, []))
                return
            self._engine.execute(requests.new_order(message, owner, now, self._instruments))
        elif message.msg_type == tags.ORDER_CANCEL_REQUEST:
            self._engine.execute(requests.cancel_request(message, owner, now))
        else:
            self._engine.execute(requests.replace_request(message, owner, now, self._instruments))

    def _refuse(self, owner: str, delivery: Delivery, text: str) -> None:
        message, now = delivery.message, self._now()
        if message.msg_type == tags.NEW_ORDER_SINGLE:
            self._engine.execute(requests.refusal_of_order(message, owner, now, RejectReason.VENUE_OPTION, text))
        else:
            self._engine.execute(requests.refusal_of_change(message, owner, now, CancelRejectReason.VENUE_OPTION, text))

    def _order_status(self, owner: str, delivery: Delivery) -> None:
        fields = delivery.message.first_by_tag
        request_id = fields.get(tags.ORD_STATUS_REQ_ID)
        extra: list[Field] = [(tags.ORD_STATUS_REQ_ID, request_id)] if request_id else []
        known = self._state.by_client_order_id.get((owner, fields[tags.CL_ORD_ID]))
        if known is not None:
            answer = self._parts.reports.status(known, self._now(), extra)
        else:
            answer = self._parts.reports.unknown_status(
                fields[tags.CL_ORD_ID], fields[tags.SYMBOL], fields[tags.SIDE], "unknown order", extra
            )
        self._send(owner, answer)

    def _mass_status(self, owner: str, delivery: Delivery) -> None:
        fields = delivery.message.first_by_tag
        request_id, wanted = fields[tags.MASS_STATUS_REQ_ID], fields[tags.MASS_STATUS_REQ_TYPE]
        symbol, account = fields.get(tags.SYMBOL, ""), fields.get(tags.ACCOUNT, "")
        if wanted not in (_ALL_ORDERS, _ORDERS_OF_SYMBOL) or (wanted == _ORDERS_OF_SYMBOL and not symbol):
            self._business_reject(owner, delivery, request_id, "MassStatusReqType 7, or 1 with Symbol, is supported")
            return

        def is_wanted(order: Order) -> bool:
            return (wanted == _ALL_ORDERS or order.instrument == symbol) and (not account or order.account == account)

        # An order whose fills are held back is open as far as its owner knows.
        held = [order for order_id in self._parts.holds.withheld if (order := self._state.orders.get(order_id)) and order.owner == owner]
        known = {order.order_id: order for order in (*self._state.open_orders_of(owner), *held) if is_wanted(order)}
        orders = sorted(known.values(), key=lambda order: order.order_id)
        header: list[Field] = [(tags.MASS_STATUS_REQ_ID, request_id), (tags.TOT_NUM_REPORTS, str(len(orders)))]
        if not orders:
            extra: list[Field] = [*header, (tags.LAST_RPT_REQUESTED, "Y")]
            self._send(owner, self._parts.reports.unknown_status("", symbol, "", "no open orders", extra))
        for position, order in enumerate(orders, start=1):
            last: Field = (tags.LAST_RPT_REQUESTED, "Y" if position == len(orders) else "N")
            self._send(owner, self._parts.reports.status(order, self._now(), [*header, last]))

    def _business_reject(self, owner: str, delivery: Delivery, reference: str, text: str) -> None:
        body: list[Field] = [
            (tags.REF_SEQ_NUM, str(delivery.sequence)),
            (tags.REF_MSG_TYPE, delivery.message.msg_type),
            (tags.BUSINESS_REJECT_REF_ID, reference),
            (tags.BUSINESS_REJECT_REASON, "0"),
            (tags.TEXT, text),
        ]
        self._send(owner, AppMessage(tags.BUSINESS_MESSAGE_REJECT, body))

    # The operator.

    def cancel_all(self, owner: str, reason: CancelReason) -> int:
        """Cancel every open order of a member; return how many."""
        return len(self._engine.execute(commands.CancelAll(self._now(), owner, reason)))

    def correct_trade(self, match_id: int, price: int | None, quantity: int | None) -> bool:
        """Correct a trade (ticks, lots; None for unchanged) or bust it (quantity 0); return whether anything changed."""
        trade = self._state.trades.get(match_id)
        if trade is None:
            return False
        return self._correct(match_id, trade.price if price is None else price, trade.quantity if quantity is None else quantity)
