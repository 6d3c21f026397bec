"""Entries, and the postings that trades, settlements and movements consist of. Every posting sums to zero for each asset.

What a trade moves is a flow: an asset and a signed amount, positive into the account. A buy is securities in and cash out.

| posting | CLIENT_* | counterpart |
| --- | --- | --- |
| trade, flow in | PENDING_IN + | VENUE_SETTLEMENT − |
| trade, flow out | PENDING_OUT − | VENUE_SETTLEMENT + |
| settlement | PENDING_* back, AVAILABLE ± | VENUE_SETTLEMENT back, OMNIBUS ∓ |
| deposit, withdrawal | AVAILABLE ± | OMNIBUS ∓ |
| hold, release | AVAILABLE ∓, HELD ± | – |
| capture | HELD − | SUSPENSE + |
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from decimal import Decimal
from typing import NamedTuple

from kernel.values import ZERO, total
from svc_custody.domain.vocabulary import Asset, LedgerAccount

AVAILABLE, HELD = LedgerAccount.CLIENT_AVAILABLE, LedgerAccount.CLIENT_HELD
VENUE, OMNIBUS = LedgerAccount.VENUE_SETTLEMENT, LedgerAccount.OMNIBUS


class Entry(NamedTuple):
    """One line: credit (positive) or debit of a ledger account. `venue` names the other side of a VENUE_SETTLEMENT line, else empty."""

    ledger_account: LedgerAccount
    asset: Asset
    amount: Decimal
    venue: str = ""


class Flow(NamedTuple):
    """What comes into the account (positive) or goes out (negative)."""

    asset: Asset
    amount: Decimal


Entries = tuple[Entry, ...]


def sums(entries: Iterable[Entry]) -> dict[Asset, Decimal]:
    """Return the sum of the lines of each asset."""
    by_asset: dict[Asset, list[Decimal]] = defaultdict(list)
    for entry in entries:
        by_asset[entry.asset].append(entry.amount)
    return {asset: total(amounts) for asset, amounts in by_asset.items()}


def balanced(entries: Iterable[Entry]) -> bool:
    """Say whether the lines of every asset sum to zero."""
    return not any(sums(entries).values())


def reversed_entries(entries: Entries) -> Entries:
    """Return the lines that take a posting back."""
    return tuple(entry._replace(amount=-entry.amount) for entry in entries)


def pending(flows: Iterable[Flow], venue: str) -> Entries:
    """Return the posting of a trade that is not settled."""
    lines: list[Entry] = []
    for asset, amount in flows:
        if amount:
            lines += [Entry(_pending_account(amount), asset, amount), Entry(VENUE, asset, -amount, venue)]
    return tuple(lines)


def settled(flows: Iterable[Flow], venue: str) -> Entries:
    """Return the posting that settles what `pending` posted: both legs, in one."""
    lines: list[Entry] = []
    for asset, amount in flows:
        if amount:
            lines += [
                Entry(_pending_account(amount), asset, -amount),
                Entry(AVAILABLE, asset, amount),
                Entry(VENUE, asset, amount, venue),
                Entry(OMNIBUS, asset, -amount),
            ]
    return tuple(lines)


def moved_in(asset: Asset, amount: Decimal) -> Entries:
    """Return the posting of a deposit; with a negative amount, of a withdrawal."""
    return (Entry(AVAILABLE, asset, amount), Entry(OMNIBUS, asset, -amount))


def held(asset: Asset, amount: Decimal) -> Entries:
    """Return the posting of a hold; with a negative amount, of its release."""
    return (Entry(AVAILABLE, asset, -amount), Entry(HELD, asset, amount))


def captured(asset: Asset, amount: Decimal) -> Entries:
    """Return the posting that takes a held amount out of the account; it waits in suspense for its payee."""
    return (Entry(HELD, asset, -amount), Entry(LedgerAccount.SUSPENSE, asset, amount))


def lacking(flow: Flow, available: Decimal) -> Decimal:
    """Return what is missing of an outgoing flow, zero for nothing."""
    return max(-flow.amount - available, ZERO)


def _pending_account(amount: Decimal) -> LedgerAccount:
    return LedgerAccount.CLIENT_PENDING_IN if amount > 0 else LedgerAccount.CLIENT_PENDING_OUT
