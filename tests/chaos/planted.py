"""Violations planted in records that agree: the auditor has to see each, as the kind that it is, or its silence means nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from decimal import Decimal

from tests.e2e.crash import agreeing_holdings, agreeing_orders
from tests.e2e.crash.client import Failure
from tests.e2e.crash.findings import AboveLimit, Doubled, Lost, Unresolved
from tests.e2e.crash.holdings_record import AVAILABLE
from tests.e2e.crash.order_record import OrderRecord
from tests.e2e.crash.read_back import Lookup, resolved
from tests.e2e.crash.risk_record import REFUSED
from trademesh.oms.v1 import order_pb2

Found = list[str]


@dataclass(frozen=True, slots=True)
class Plant:
    """One violation: what it is, how the auditor is led to it, and what its finding must be and say."""

    what: str
    audit: Callable[[], Found]
    kind: type[str]
    words: str

    @property
    def caught(self) -> bool:
        """Whether the auditor sees it."""
        return any(isinstance(finding, self.kind) and self.words in finding for finding in self.audit())


@dataclass(frozen=True, slots=True)
class SelfTests:
    """How many violations were planted, and how many of them were seen; `missed` names the others."""

    planted: int
    caught: int
    missed: tuple[str, ...]


def self_tests() -> SelfTests:
    """Plant every violation. Records without one must have no finding, or a finding would prove nothing.

    Raises:
        AssertionError: the auditor finds something where nothing is.
    """
    assert agreeing_orders.agreeing().audit() == []
    assert agreeing_holdings.agreeing().audit() == []
    assert _looked_up(lambda look: look) == []
    missed = tuple(plant.what for plant in PLANTS if not plant.caught)
    return SelfTests(len(PLANTS), len(PLANTS) - len(missed), missed)


def _lost_order() -> Found:
    records = agreeing_orders.agreeing()
    del records.orders.histories[agreeing_orders.RESTING], records.orders.snapshots[agreeing_orders.RESTING]
    return records.audit()


def _lost_cancel() -> Found:
    records = agreeing_orders.agreeing()
    records.orders.histories[agreeing_orders.RESTING].cancel_keys.clear()
    return records.audit()


def _doubled_fill() -> Found:
    records = agreeing_orders.agreeing()
    records.orders.histories[agreeing_orders.RESTING].told.append(agreeing_orders.fill("X-1"))
    return records.audit()


def _two_orders_of_one_key() -> Found:
    records = agreeing_orders.agreeing()
    again = agreeing_orders.history("o-again", ["OrderAccepted"], order_pb2.ORDER_STATE_PENDING_NEW, "10", 9)
    assert again.terms is not None
    again.terms.client_order_id = f"k-{agreeing_orders.RESTING}"
    records.orders.histories[again.order_id] = again
    return records.audit()


def _accepted_twice() -> Found:
    records = agreeing_orders.agreeing()
    records.orders.histories[agreeing_orders.RESTING].types[1] = "OrderAccepted"
    return records.audit()


def _sent_twice() -> Found:
    records = agreeing_orders.agreeing()
    records.venue.taken_twice.append(agreeing_orders.RESTING)
    return records.audit()


def _approval_above_limit() -> Found:
    records = agreeing_orders.agreeing()
    log = records.risk.log[agreeing_orders.ACCOUNT]
    log[1:] = [
        agreeing_orders.exposure(2, "ExposureReserved", "600", "1100"),
        agreeing_orders.exposure(3, "ExposureReleased", "-600", "500"),
    ]
    return records.audit()


def _position_off_by_a_lot() -> Found:
    records = agreeing_holdings.agreeing()
    held = records.portfolio.positions[agreeing_holdings.HOLDING]
    records.portfolio.positions[agreeing_holdings.HOLDING] = held._replace(quantity=held.quantity + 1)
    return records.audit()


def _custody_off_by_a_lot() -> Found:
    records = agreeing_holdings.agreeing()
    key = agreeing_holdings.ACCOUNT, agreeing_holdings.AAPL, AVAILABLE, ""
    records.custody.balances[key] += Decimal(1)
    return records.audit()


def _sent_without_approval() -> Found:
    records = agreeing_orders.agreeing()
    refused = replace(records.risk.reservations[agreeing_orders.RESTING], status=REFUSED)
    records.risk.reservations[agreeing_orders.RESTING] = refused
    return records.audit()


def _stays_unknown() -> Found:
    records = agreeing_orders.agreeing()
    records.orders.histories[agreeing_orders.RESTING].state = order_pb2.ORDER_STATE_UNKNOWN
    records.orders.snapshots[agreeing_orders.RESTING].state = order_pb2.ORDER_STATE_UNKNOWN
    return records.audit()


def _persisted_against_its_word() -> Found:
    records = agreeing_orders.agreeing()
    key = agreeing_orders.ACCOUNT, f"k-{agreeing_orders.RESTING}"
    del records.ledger.answers[key]
    records.ledger.lost[key] = Failure("UNAVAILABLE", "RISK_UNAVAILABLE", "")
    return records.audit()


def _looked_up(plant: Callable[[Lookup], Lookup]) -> Found:
    """Let the auditor judge what the RPCs said of an order whose answer was lost."""
    records = agreeing_orders.agreeing()
    orders: OrderRecord = records.orders
    stored = orders.snapshots[agreeing_orders.RESTING]
    command = records.ledger.commands[agreeing_orders.ACCOUNT, f"k-{agreeing_orders.RESTING}"]
    return list(resolved([plant(Lookup(command, agreeing_orders.RESTING, stored, stored, acknowledged=False))], orders))


def _not_told_by_key() -> Found:
    return _looked_up(lambda look: replace(look, by_key=None))


def _told_otherwise_by_key() -> Found:
    return _looked_up(lambda look: replace(look, by_key=order_pb2.Order(order_id=look.order_id, state=order_pb2.ORDER_STATE_FILLED)))


PLANTS = (
    Plant("an acknowledged order is gone", _lost_order, Lost, "was acknowledged and is gone"),
    Plant("an acknowledged cancel is gone", _lost_cancel, Lost, "is recorded 0 times"),
    Plant("a client's key has two orders", _two_orders_of_one_key, Doubled, "has 2 orders"),
    Plant("an order was accepted twice", _accepted_twice, Doubled, "begins 2 times"),
    Plant("a fill counts for two orders", _doubled_fill, Doubled, "counts for 2 orders"),
    Plant("the venue has an order twice", _sent_twice, Doubled, "the venue took"),
    Plant("an approval is above the limit", _approval_above_limit, AboveLimit, "approves 1100 above 1000"),
    Plant("a position is off by one lot", _position_off_by_a_lot, str, "portfolio has"),
    Plant("custody is off by one lot", _custody_off_by_a_lot, str, "custody has"),
    Plant("an order is at the venue without an approval", _sent_without_approval, str, "reached the venue without an approval"),
    Plant("an order stays unknown", _stays_unknown, str, "ORDER_STATE_UNKNOWN, and open at the venue"),
    Plant("an order exists whose client was told that nothing was persisted", _persisted_against_its_word, str, "nothing was persisted"),
    Plant("an unknown outcome is not told by its key", _not_told_by_key, Unresolved, "shown by key as None"),
    Plant("an unknown outcome is told otherwise by its key", _told_otherwise_by_key, Unresolved, "shown by key"),
)
