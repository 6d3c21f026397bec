"""The words of the order domain as enums. Numbers equal those of the contract's enums of the same name (a contract test compares them)."""

from __future__ import annotations

from enum import IntEnum, StrEnum


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
    """Where an order stands (FIX 39), pending requests apart."""

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


class Action(IntEnum):
    """What a request to a venue asks for; 0 is the new order itself."""

    NEW = 0
    CANCEL = 1
    REPLACE = 2


class ExecutionType(IntEnum):
    """What an execution tells (FIX 150)."""

    TRADE = 1
    TRADE_CANCEL = 2
    TRADE_CORRECT = 3


class ReportKind(StrEnum):
    """What a venue's report says, as far as an order's life is concerned (FIX 35=8 by 150, and 35=9)."""

    PENDING = "PENDING"  # 150=A, 6, E: the venue has the request
    ACKNOWLEDGED = "ACKNOWLEDGED"  # 150=0
    REFUSED = "REFUSED"  # 150=8
    TRADE = "TRADE"  # 150=F
    TRADE_CANCEL = "TRADE_CANCEL"  # 150=H
    TRADE_CORRECT = "TRADE_CORRECT"  # 150=G
    CANCELED = "CANCELED"  # 150=4
    REPLACED = "REPLACED"  # 150=5
    EXPIRED = "EXPIRED"  # 150=C
    DONE_FOR_DAY = "DONE_FOR_DAY"  # 150=3
    SUSPENDED = "SUSPENDED"  # 150=9
    STOPPED = "STOPPED"  # 150=7
    RESTATED = "RESTATED"  # 150=D
    STATUS = "STATUS"  # 150=I
    UNKNOWN_ORDER = "UNKNOWN_ORDER"  # 150=I with 39=8 and 103=5: evidence, once the session is synchronised past our request
    REQUEST_REFUSED = "REQUEST_REFUSED"  # 35=9


TERMINAL = frozenset({OrderState.FILLED, OrderState.CANCELED, OrderState.REJECTED, OrderState.EXPIRED, OrderState.ABANDONED})
"""States in which nothing may trade any more. A bust, a correction or a replace upwards leaves FILLED; reinstatement leaves the others."""
