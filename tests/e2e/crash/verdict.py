"""Brings a mesh to rest after a crash and lets the auditor at it."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass

from mesh.local.parts import EXCHANGE
from tests.e2e.crash.audit import audit
from tests.e2e.crash.client import Clients, Ledger
from tests.e2e.crash.holdings_audit import Deposits, audit_holdings
from tests.e2e.crash.holdings_record import CANCELED, FAILED, SETTLED, HoldingsRecord, read_holdings_record
from tests.e2e.crash.order_record import OrderRecord, read_order_record
from tests.e2e.crash.read_back import read_back
from tests.e2e.crash.risk_record import RiskRecord, read_risk_record
from tests.e2e.crash.venue_record import VenueRecord, read_venue_record
from tests.e2e.crash.world import World
from trademesh.error.v1 import error_reason_pb2
from trademesh.oms.v1 import order_pb2

FINDINGS_SHOWN = 20


@dataclass(frozen=True)
class Evidence:
    """The records of a mesh at rest."""

    orders: OrderRecord
    risk: RiskRecord
    venue: VenueRecord
    holdings: HoldingsRecord


async def verified(world: World, clients: Clients, deposits: Deposits | None = None, *, timeout_seconds: float = 60.0) -> Evidence:
    """Return the evidence, once the mesh has come to rest and nothing in it contradicts anything.

    Args:
        world: the mesh.
        clients: who traded.
        deposits: what came into custody; nothing unless given.
        timeout_seconds: until it rests.

    Raises:
        TimeoutError: it does not come to rest.
        AssertionError: the auditor's findings.
    """
    evidence, findings = await examined(world, clients, clients.ledger, deposits or Deposits(), timeout_seconds=timeout_seconds)
    shown = "\n".join(findings[:FINDINGS_SHOWN])
    assert not findings, f"the auditor found {len(findings)} contradictions:\n{shown}"
    return evidence


async def examined(
    world: World, clients: Clients, ledger: Ledger, deposits: Deposits, *, timeout_seconds: float
) -> tuple[Evidence, list[str]]:
    """Return the evidence, once the mesh has come to rest, and every contradiction in it.

    Args:
        world: the mesh.
        clients: whose commands are asked again, under their keys.
        ledger: all that any client of this mesh was ever told.
        deposits: all that ever came into custody.
        timeout_seconds: until it rests.

    Raises:
        TimeoutError: it does not come to rest.
    """
    await asyncio.to_thread(world.mesh.await_ready)
    await world.settled(timeout_seconds=timeout_seconds)
    world.mesh.exchange("flow.pause")
    evidence = await _evidence(world)
    world.note(f"{len(ledger.answers)} answered, {len(ledger.refused)} refused, {len(ledger.lost)} lost, {ledger.retried} retries")
    world.note(_summary(evidence))
    findings = audit(ledger, evidence.orders, evidence.risk, evidence.venue)
    findings += audit_holdings(evidence.orders, evidence.holdings, deposits)
    findings += await read_back(clients, world.mesh, world.random, evidence.orders, evidence.risk)
    # Only what asking could change is read again: the venue's journal alone takes as long as everything else.
    async with world.database() as connection:
        orders, risk = await read_order_record(connection), await read_risk_record(connection)
    if orders.histories != evidence.orders.histories or risk.reservations != evidence.risk.reservations:
        findings.append("asking again changed something")
    world.mesh.exchange("flow.resume")
    return evidence, findings


async def _evidence(world: World) -> Evidence:
    async with world.database() as connection:
        orders = await read_order_record(connection)
        risk = await read_risk_record(connection)
        holdings = await read_holdings_record(connection)
    venue = await asyncio.to_thread(read_venue_record, world.mesh.layout.data(EXCHANGE) / "journal")
    return Evidence(orders, risk, venue, holdings)


def _summary(evidence: Evidence) -> str:
    """Say how much there was to contradict, so that a reader sees whether a run met what it was meant to."""
    histories = evidence.orders.histories.values()
    states = Counter(order_pb2.OrderState.Name(history.state).removeprefix("ORDER_STATE_") for history in histories)
    never_there = sum(order_id not in evidence.venue.orders for order_id in evidence.orders.histories)
    parts = [
        ", ".join(f"{count} {state}" for state, count in states.most_common()),
        f"{len(evidence.orders.executions)} fills",
        f"{sum(history.was_unknown for history in histories)} were unknown",
        f"{never_there} never reached the venue",
        f"{sum(item.reference != '' for history in histories for item in history.told)} busts and corrections",
        _at_limits(evidence.orders),
        _settlements(evidence.holdings),
    ]
    return "; ".join(parts)


def _at_limits(orders: OrderRecord) -> str:
    rejected = Counter(
        order.account_id
        for order in orders.snapshots.values()
        if any(breach.reason == error_reason_pb2.ERROR_REASON_OPEN_EXPOSURE_EXCEEDED for breach in order.reject.breaches)
    )
    who = ", ".join(f"{count} of {name}" for name, count in sorted(rejected.items()))
    return f"rejected at the limit of open exposure: {who or 'none'}"


def _settlements(holdings: HoldingsRecord) -> str:
    states = Counter(item.state for item in holdings.custody.instructions)
    taken_back = sum(bool(item.reverses) for item in holdings.custody.instructions)
    return (
        f"{states[SETTLED]} settled, {states[FAILED]} failed, {states[CANCELED]} canceled of {states.total()} instructions, "
        f"{taken_back} of them take back"
    )
