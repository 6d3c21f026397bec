"""Records of orders that agree: what the auditor is tested with, before a violation is planted."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from tests.e2e.crash.audit import audit
from tests.e2e.crash.client import Ledger
from tests.e2e.crash.load import Cancel, Command, Create
from tests.e2e.crash.order_record import OrderHistory, OrderRecord, Told
from tests.e2e.crash.risk_record import CLOSED, CONFIRMED, REFUSED, ExposureEvent, Reservation, RiskRecord
from tests.e2e.crash.venue_record import VenueFill, VenueOrder, VenueRecord
from trademesh.oms.v1 import events_pb2, execution_pb2, order_pb2
from trademesh.risk.v1 import events_pb2 as risk_events_pb2
from trademesh.type.v1 import order_terms_pb2

ACCOUNT, TODAY = "CRASH-0", "2026-11-22"
NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
RESTING, FILLED, REJECTED, ORPHAN = "o-resting", "o-filled", "o-rejected", "o-orphan"
CANCEL_KEY = "cancel-1"


@dataclass
class Records:
    """What the auditor is given."""

    ledger: Ledger
    orders: OrderRecord
    risk: RiskRecord
    venue: VenueRecord

    def audit(self) -> list[str]:
        return audit(self.ledger, self.orders, self.risk, self.venue)


def history(order_id: str, types: list[str], state: order_pb2.OrderState.ValueType, quantity: str, position: int) -> OrderHistory:
    terms = events_pb2.OrderTerms(
        order_id=order_id,
        client_order_id=f"k-{order_id}",
        account_id=ACCOUNT,
        instrument_id="AAPL",
        side=order_terms_pb2.SIDE_BUY,
        type=order_terms_pb2.ORDER_TYPE_LIMIT,
        time_in_force=order_terms_pb2.TIME_IN_FORCE_GTC,
        quantity=quantity,
        limit_price="50",
    )
    numbers = range(1, len(types) + 1)
    places = [(position, position + number) for number in numbers]
    return OrderHistory(order_id, types, list(numbers), places, terms, state, Decimal(quantity), Decimal(50))


def fill(exec_id: str) -> Told:
    return Told((2, 4), 4, execution_pb2.EXECUTION_TYPE_TRADE, "XSIM", TODAY, exec_id, "", Decimal(4), Decimal(49))


def shown(order: OrderHistory) -> order_pb2.Order:
    leaves = order.quantity - order.filled_quantity if order.is_open else Decimal(0)
    return order_pb2.Order(
        order_id=order.order_id,
        account_id=ACCOUNT,
        state=order.state,
        version=len(order.versions),
        quantity=f"{order.quantity:f}",
        limit_price="50",
        filled_quantity=f"{order.filled_quantity:f}",
        leaves_quantity=f"{leaves:f}",
    )


def reservation(order_id: str, status: int, quantity: str, filled: str = "0") -> Reservation:
    price, at = Decimal(50), NOW - timedelta(seconds=1)
    return Reservation(order_id, ACCOUNT, "AAPL", True, status, Decimal(quantity), price, Decimal(filled), None, at)


def exposure(version: int, kind: str, change: str, after: str) -> ExposureEvent:
    delta = risk_events_pb2.ExposureDelta(
        account_id=ACCOUNT, delta_notional=change, open_notional=after, gross_exposure=after, open_limit="1000", gross_limit="1000"
    )
    return ExposureEvent(version, f"risk.v1.{kind}", delta, None, NOW)


def agreeing() -> Records:
    """One order that rests and had a cancel refused, one that was filled, one that risk refused, one that was given up."""
    working = ["OrderAccepted", "OrderRouted", "OrderAcknowledged"]
    resting = history(RESTING, [*working, "CancelRequested", "OrderRouted", "CancelRefused"], order_pb2.ORDER_STATE_NEW, "10", 1)
    resting.routed, resting.cancel_keys = Counter({RESTING: 1, f"{RESTING}-c4": 1}), Counter({CANCEL_KEY: 1})
    filled = history(FILLED, [*working, "ExecutionRecorded"], order_pb2.ORDER_STATE_FILLED, "4", 2)
    filled.routed, filled.fills = Counter({FILLED: 1}), {(TODAY, "X-1"): (Decimal(4), Decimal(49))}
    filled.told = [fill("X-1")]
    rejected = history(REJECTED, ["OrderRejected"], order_pb2.ORDER_STATE_REJECTED, "999", 3)
    orphan = history(ORPHAN, ["OrderAbandoned"], order_pb2.ORDER_STATE_ABANDONED, "0", 4)
    orphan.terms = None
    histories = {order.order_id: order for order in (resting, filled, rejected, orphan)}
    execution = execution_pb2.Execution(
        exec_id="X-1", trade_date=TODAY, order_id=FILLED, account_id=ACCOUNT, last_quantity="4", last_price="49"
    )
    messages = [{"sequence": 1, "msg_type": "D", "order_id": RESTING}, {"sequence": 2, "msg_type": "D", "order_id": FILLED}]
    orders = OrderRecord(histories, {name: shown(order) for name, order in histories.items()}, [execution], messages, {})
    return Records(_ledger(orders), orders, _risk(), _venue())


def _ledger(orders: OrderRecord) -> Ledger:
    ledger = Ledger()
    for order_id in (RESTING, FILLED, REJECTED):
        terms = orders.histories[order_id].terms
        assert terms is not None
        request = Create(
            account_id=ACCOUNT,
            client_order_id=terms.client_order_id,
            instrument_id=terms.instrument_id,
            side=terms.side,
            type=terms.type,
            time_in_force=terms.time_in_force,
            quantity=terms.quantity,
            limit_price=terms.limit_price,
        )
        key = ACCOUNT, terms.client_order_id
        state = order_pb2.ORDER_STATE_REJECTED if order_id == REJECTED else order_pb2.ORDER_STATE_PENDING_NEW
        ledger.commands[key] = Command(*key, request)
        ledger.answers[key] = order_pb2.Order(order_id=order_id, state=state)
    cancel = Command(ACCOUNT, CANCEL_KEY, Cancel(account_id=ACCOUNT, order_id=RESTING, request_id=CANCEL_KEY))
    ledger.commands[ACCOUNT, CANCEL_KEY] = cancel
    ledger.answers[ACCOUNT, CANCEL_KEY] = order_pb2.Order(order_id=RESTING)
    return ledger


def _risk() -> RiskRecord:
    rows = [
        reservation(RESTING, CONFIRMED, "10"),
        reservation(FILLED, CLOSED, "4", "4"),
        reservation(REJECTED, REFUSED, "999"),
        reservation(ORPHAN, CLOSED, "1"),
    ]
    log = [
        exposure(1, "ExposureReserved", "500", "500"),
        exposure(2, "ExposureReserved", "200", "700"),
        exposure(3, "ExposureFilled", "-200", "500"),
    ]
    account = {"buy_notional": Decimal(500), "sell_notional": Decimal(0), "reservation_count": 1}
    position = {
        "position": Decimal(4),
        "buy_quantity": Decimal(10),
        "buy_notional": Decimal(500),
        "sell_quantity": Decimal(0),
        "sell_notional": Decimal(0),
    }
    return RiskRecord({row.order_id: row for row in rows}, {ACCOUNT: account}, {(ACCOUNT, "AAPL"): position}, {ACCOUNT: log}, set())


def _venue() -> VenueRecord:
    accepted_ns = int(NOW.timestamp()) * 10**9
    resting = VenueOrder([RESTING], ACCOUNT, "AAPL", True, Decimal(10), Decimal(50), accepted_ns)
    filled = VenueOrder([FILLED], ACCOUNT, "AAPL", True, Decimal(4), Decimal(50), accepted_ns, "filled")
    filled.fills.append(VenueFill("X-1", TODAY, Decimal(4), Decimal(49)))
    return VenueRecord({RESTING: resting, FILLED: filled})
