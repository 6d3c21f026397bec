"""The words of the risk domain as enums. Numbers equal those of the contract's enums of the same name (a test compares them)."""

from __future__ import annotations

from enum import IntEnum


class Side(IntEnum):
    """The side of an order (FIX 54)."""

    BUY = 1
    SELL = 2


class OrderType(IntEnum):
    """How an order is priced (FIX 40)."""

    MARKET = 1
    LIMIT = 2


class TimeInForce(IntEnum):
    """How long an order lives (FIX 59)."""

    DAY = 1
    GTC = 2
    IOC = 3
    FOK = 4


class CheckKind(IntEnum):
    """What a check is for."""

    NEW = 1
    REPLACE = 2


class AccountStatus(IntEnum):
    """Whether an account may trade."""

    ACTIVE = 1
    SUSPENDED = 2
    CLOSED = 3


class AssetClass(IntEnum):
    """What kind of thing an instrument is."""

    EQUITY = 1
    CRYPTO = 2


class InstrumentStatus(IntEnum):
    """Whether an instrument may be traded."""

    ACTIVE = 1
    SUSPENDED = 2


class LimitType(IntEnum):
    """What a limit bounds; units as in the contract."""

    MAX_QUANTITY = 1
    MAX_NOTIONAL = 2
    PRICE_COLLAR = 3
    PRICE_COLLAR_PRIOR_CLOSE = 4
    OPEN_EXPOSURE = 5
    GROSS_EXPOSURE = 6
    MESSAGE_RATE = 7
    DUPLICATE_WINDOW = 8


class LimitScope(IntEnum):
    """Whom a limit binds."""

    ACCOUNT = 1
    TRADER = 2
    INSTRUMENT = 3


class KillSwitchScope(IntEnum):
    """What a kill switch covers."""

    FIRM = 1
    ACCOUNT = 2
    TRADER = 3
    INSTRUMENT = 4
    TENANT = 5


class KillSwitchStatus(IntEnum):
    """Where a kill switch stands."""

    PENDING = 1
    ACTIVE = 2
    RELEASE_PENDING = 3
    RELEASED = 4


class OrderState(IntEnum):
    """Where an order stands at svc_oms (FIX 39)."""

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
"""States in which nothing may trade any more, unless the venue busts, corrects or reinstates."""

ANY = "*"
"""The scope id of a default limit, and of the firm-wide kill switch."""
