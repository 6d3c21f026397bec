"""What must hold of custody's schema at any time, read with SQL alone, and from the event log alone."""

from __future__ import annotations

from collections import defaultdict
from decimal import Decimal

from svc_custody.codec.events import LEDGER_PREFIX, read_event
from svc_custody.domain.book import Book
from svc_custody.domain.evolve import evolve
from tests.integration.custody.world import Custodian


async def audit(custody: Custodian) -> dict[tuple[str, int, str], Decimal]:
    """Check the ledger and return the client positions by account and asset: settled + pending in − pending out."""
    database = custody.stores.database
    unbalanced = await database.fetch(
        "SELECT account_id, asset_id FROM ledger_balance GROUP BY account_id, asset_type, asset_id HAVING sum(balance) <> 0"
    )
    assert unbalanced == []
    assert await custody.stores.reads.mismatches(None) == 0
    negative = await database.fetchval(
        "SELECT count(*) FROM ledger_balance WHERE (ledger_account <= 3 AND balance < 0) OR (ledger_account = 4 AND balance > 0)"
    )
    assert negative == 0
    books = await refolded(custody)
    kept = {
        (row["account_id"], row["asset_type"], row["asset_id"], row["ledger_account"], row["venue"]): row["balance"]
        for row in await database.fetch("SELECT * FROM ledger_balance WHERE balance <> 0")
    }
    told = {
        (book.account_id, int(key.asset.type), key.asset.asset_id, int(key.ledger_account), key.venue): balance
        for book in books.values()
        for key, balance in book.balances.items()
        if balance
    }
    assert kept == told, "balances derive from events"
    states = {str(row["settlement_id"]): row["state"] for row in await database.fetch("SELECT settlement_id, state FROM settlement")}
    assert states == {key: int(made.state) for book in books.values() for key, made in book.settlements.items()}
    positions: dict[tuple[str, int, str], Decimal] = defaultdict(Decimal)
    for (account_id, asset_type, asset_id, ledger_account, _), balance in kept.items():
        if ledger_account <= 4:
            positions[account_id, asset_type, asset_id] += balance
    return positions


async def refolded(custody: Custodian) -> dict[str, Book]:
    """Return the ledgers as a consumer would fold them from custody's log."""
    rows = await custody.stores.database.fetch(
        "SELECT stream_id, type, payload FROM event WHERE stream_id LIKE 'ledger-%' ORDER BY stream_id, version"
    )
    books: dict[str, Book] = {}
    for row in rows:
        account_id = row["stream_id"].removeprefix(LEDGER_PREFIX)
        event = read_event(row["type"], row["payload"])
        assert event is not None, row["type"]
        books[account_id] = evolve(books.get(account_id, Book(account_id)), event)
    return books
