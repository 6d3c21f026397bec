"""A replica that has just started decides at once: its driver has met every type that a check reads or writes."""

from __future__ import annotations

import asyncpg
import pytest

from mesh.local.provision import ServiceDatabase
from svc_risk.main import Stores
from svc_risk.store.ledger import ROW_TYPES
from tests.integration.risk.world import buy, populate


async def test_a_first_check_asks_for_no_types(stores: Stores, risk_database: ServiceDatabase, monkeypatch: pytest.MonkeyPatch) -> None:
    await populate(risk_database.owner_dsn)
    await stores.database.warm(ROW_TYPES)
    asked: list[object] = []
    introspect = asyncpg.Connection._introspect_types  # type: ignore[attr-defined]  # the driver's own question to the server

    async def introspected(self: asyncpg.Connection[asyncpg.Record], types: object, timeout: object) -> object:
        asked.append(types)
        return await introspect(self, types, timeout)

    monkeypatch.setattr(asyncpg.Connection, "_introspect_types", introspected)
    (answer,) = await stores.checks.decide([buy("1")])
    assert answer.result.HasField("approval")
    assert asked == []
