"""The words of reports, with the contracts' numbers."""

from __future__ import annotations

from enum import IntEnum


class ReportKind(IntEnum):
    """What a report shows."""

    TRADE_BLOTTER = 1
    ORDER_AUDIT_TRAIL = 2


class ReportFormat(IntEnum):
    """How a report is written."""

    CSV = 1
    JSON = 2


class ReportState(IntEnum):
    """Where a report stands."""

    PENDING = 1
    RUNNING = 2
    COMPLETED = 3
    FAILED = 4
    CANCELLED = 5


ENDED = frozenset({ReportState.COMPLETED, ReportState.FAILED, ReportState.CANCELLED})


class Side(IntEnum):
    """The side of an order (FIX 54)."""

    UNSPECIFIED = 0
    BUY = 1
    SELL = 2


class OrderType(IntEnum):
    """How an order is priced (FIX 40)."""

    UNSPECIFIED = 0
    MARKET = 1
    LIMIT = 2


class TimeInForce(IntEnum):
    """How long an order lives (FIX 59)."""

    UNSPECIFIED = 0
    DAY = 1
    GTC = 2
    IOC = 3
    FOK = 4


class OrderState(IntEnum):
    """Where an order stands (FIX 39)."""

    UNSPECIFIED = 0
    PENDING_NEW = 1
    NEW = 2
    PARTIALLY_FILLED = 3
    FILLED = 4
    DONE_FOR_DAY = 5
    CANCELED = 6
    STOPPED = 7
    REJECTED = 8
    SUSPENDED = 9
    EXPIRED = 10
    UNKNOWN = 11
    ABANDONED = 12


TERMINAL = frozenset({OrderState.FILLED, OrderState.CANCELED, OrderState.REJECTED, OrderState.EXPIRED, OrderState.ABANDONED})
DEAD = TERMINAL - {OrderState.FILLED}
HALTED = frozenset({OrderState.DONE_FOR_DAY, OrderState.STOPPED, OrderState.SUSPENDED})


class ExecutionType(IntEnum):
    """What an execution report tells (FIX 150)."""

    UNSPECIFIED = 0
    TRADE = 1
    TRADE_CANCEL = 2
    TRADE_CORRECT = 3


def name_of(kind: type[IntEnum], number: int) -> str:
    """Return the word for a contract's number; empty for 0, the number itself for one that is newer than these rules."""
    try:
        return kind(number).name if number else ""
    except ValueError:
        return str(number)
