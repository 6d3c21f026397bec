"""The words of custody. Numbers are the contract's (`trademesh.custody.v1`, `trademesh.oms.v1`, `trademesh.risk.v1`)."""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple


class AssetType(IntEnum):
    """What kind of asset an entry moves."""

    CASH = 1
    SECURITY = 2


class LedgerAccount(IntEnum):
    """The chart of accounts. Every client account's ledger has all of them; a credit, what custody owes, is positive."""

    CLIENT_AVAILABLE = 1
    CLIENT_HELD = 2
    CLIENT_PENDING_IN = 3
    CLIENT_PENDING_OUT = 4
    VENUE_SETTLEMENT = 5
    OMNIBUS = 6
    SUSPENSE = 7


NEVER_NEGATIVE = frozenset({LedgerAccount.CLIENT_AVAILABLE, LedgerAccount.CLIENT_HELD, LedgerAccount.CLIENT_PENDING_IN})
NEVER_POSITIVE = frozenset({LedgerAccount.CLIENT_PENDING_OUT})


class SettlementState(IntEnum):
    """Where an instruction stands."""

    INSTRUCTED = 1
    AFFIRMED = 2
    SETTLED = 3
    FAILED = 4
    CANCELED = 5


class FailureReason(IntEnum):
    """Why a settlement failed (ISO 20022 `FailingReason`)."""

    LACK_OF_SECURITIES = 1  # PENF//LACK
    LACK_OF_CASH = 2  # PENF//MONY


class HoldState(IntEnum):
    """Where a hold stands."""

    ACTIVE = 1
    CAPTURED = 2
    RELEASED = 3


class Side(IntEnum):
    """The side of an order (FIX 54)."""

    BUY = 1
    SELL = 2


class ExecutionType(IntEnum):
    """What an execution report tells (FIX 150)."""

    TRADE = 1
    TRADE_CANCEL = 2
    TRADE_CORRECT = 3


class AssetClass(IntEnum):
    """What kind of thing an instrument is."""

    EQUITY = 1
    CRYPTO = 2


class Asset(NamedTuple):
    """Something that an account owns: a currency, or an instrument by its id."""

    type: AssetType
    asset_id: str


def cash(currency: str) -> Asset:
    """Return a currency as an asset."""
    return Asset(AssetType.CASH, currency)


def security(instrument_id: str) -> Asset:
    """Return an instrument as an asset; crypto assets are kept under their instrument's id too."""
    return Asset(AssetType.SECURITY, instrument_id)
