"""Reads over the wire: numbers, pages, places in the log, and who may ask."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest

from kernel.identity import User
from mesh.local.provision import ServiceDatabase
from svc_portfolio.domain.executions import PositionKey
from tests.unit.portfolio.make import bust, correction, execution
from tests.wire.oms.caller import details
from tests.wire.portfolio.conftest import PATIENCE_SECONDS, VIEWER, Caller, World, config_of, headers, running
from tests.wire.serving import user
from trademesh.portfolio.v1 import portfolio_service_pb2 as pb
from trademesh.portfolio.v1 import position_pb2
from trademesh.type.v1 import event_log_service_pb2, log_position_pb2

SHARES, EUROS = PositionKey("ACC-1", "AAPL"), PositionKey("ACC-1", "MSFT")


async def known(portfolio: Caller) -> None:
    """Wait until svc_risk's accounts have come."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while await _unknown(portfolio):
            pass


async def _unknown(portfolio: Caller) -> bool:
    try:
        await portfolio.call("GetPortfolio", pb.GetPortfolioRequest(account_id="ACC-1"))
    except grpc.aio.AioRpcError as error:
        return details(error)[0] == "ACCOUNT_NOT_FOUND"
    return False


async def refused(portfolio: Caller, method: str, request: Any, caller: User | None = VIEWER, peer: str = "edge") -> tuple[str, list[str]]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await portfolio.call(method, request, caller, peer)
    return details(caught.value)


async def marked(portfolio: Caller, instrument_id: str = "AAPL") -> position_pb2.Position:
    """Return a position once it has a fresh mark."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            request = pb.GetPositionRequest(account_id="ACC-1", instrument_id=instrument_id)
            position: position_pb2.Position = (await portfolio.call("GetPosition", request)).position
            if position.HasField("mark") and not position.mark.stale:
                return position


async def test_a_portfolio_with_its_marks_and_totals(portfolio: Caller) -> None:
    world = portfolio.world
    await known(portfolio)
    position = await world.execute(
        execution(1, "100", "10"),
        execution(2, "50", "13"),
        execution(3, "-120", "12"),
        execution(4, "-5", "20", position=EUROS, order_id="o2"),
    )
    await world.prices.say("AAPL", "14", "15")
    request = pb.GetPortfolioRequest(account_id="ACC-1", min_position=position)
    answer = await portfolio.call("GetPortfolio", request)
    assert answer.order_log_position == position
    shares = await marked(portfolio)
    assert (shares.quantity, shares.average_cost, shares.cost, shares.realised_pnl) == ("30", "13", "390", "180")
    assert (shares.currency, shares.mark.price, shares.mark.source) == ("USD", "14.5", position_pb2.MARK_SOURCE_MID)
    assert (shares.market_value, shares.unrealised_pnl, shares.version) == ("435", "45", 3)
    answer = await portfolio.call("GetPortfolio", request)
    euro, dollar = answer.totals
    assert (dollar.currency, dollar.cost, dollar.realised_pnl, dollar.market_value, dollar.unrealised_pnl) == (
        "USD",
        "390",
        "180",
        "435",
        "45",
    )
    assert (euro.currency, euro.cost, euro.unmarked_positions, euro.HasField("market_value")) == ("EUR", "-100", 1, False)
    short = answer.positions[1]
    assert (short.quantity, short.average_cost, short.HasField("mark"), short.HasField("unrealised_pnl")) == ("-5", "20", False, False)


async def test_a_dead_feed_leaves_the_last_mark_stale(portfolio: Caller) -> None:
    await known(portfolio)
    await portfolio.world.prices.say("AAPL", "14", "15")
    position = await marked(portfolio)
    assert position.quantity == "0", "a position that never was is flat, not missing"
    await portfolio.world.prices.server.stop()
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not position.mark.stale:
            position = (await portfolio.call("GetPosition", pb.GetPositionRequest(account_id="ACC-1", instrument_id="AAPL"))).position
    assert position.mark.price == "14.5"


async def test_as_of_gives_the_same_bytes_whenever_it_is_asked(portfolio: Caller) -> None:
    await known(portfolio)
    first, second = execution(1, "10", "10"), execution(2, "-4", "12", trade_date="2026-03-03")
    before = await portfolio.world.execute(first, second)
    closed: dict[str, Any] = {"account_id": "ACC-1", "as_of": before, "include_closed": True}
    asked = [
        ("GetPortfolio", pb.GetPortfolioRequest(**closed)),
        ("GetPosition", pb.GetPositionRequest(account_id="ACC-1", instrument_id="AAPL", as_of=before)),
        ("ListPositions", pb.ListPositionsRequest(**closed)),
        ("ListLots", pb.ListLotsRequest(**closed)),
        ("GetPnl", pb.GetPnlRequest(account_id="ACC-1", as_of=before)),
        ("ListPositionChanges", pb.ListPositionChangesRequest(account_id="ACC-1", as_of=before)),
    ]
    answers = [await portfolio.call(*question) for question in asked]
    after = await portfolio.world.execute(correction(3, first, "3", "11"), execution(4, "7", "9"))
    await portfolio.call("GetPortfolio", pb.GetPortfolioRequest(account_id="ACC-1", min_position=after))
    again = [await portfolio.call(*question) for question in asked]
    assert [answer.SerializeToString(deterministic=True) for answer in again] == [
        answer.SerializeToString(deterministic=True) for answer in answers
    ]
    assert {(answer.order_log_position.tx, answer.order_log_position.position) for answer in again} == {(before.tx, before.position)}
    (lot,) = answers[3].lots
    assert (lot.lot_id, lot.remaining_quantity, [match.realised_pnl for match in lot.matches]) == ("XSIM/2026-03-02/e1", "6", ["8"])
    now = await portfolio.call("GetPnl", pb.GetPnlRequest(account_id="ACC-1", min_position=after))
    (profit,) = now.instruments
    assert [(day.trade_date, day.realised_pnl) for day in profit.trade_dates] == [("2026-03-02", "3"), ("2026-03-03", "3")]
    only = await portfolio.call("GetPnl", pb.GetPnlRequest(account_id="ACC-1", from_trade_date="2026-03-03", to_trade_date="2026-03-03"))
    assert (only.instruments[0].realised_pnl, only.totals[0].realised_pnl) == ("3", "3")


async def test_lists_in_pages(portfolio: Caller) -> None:
    await known(portfolio)
    fills = [execution(number, "1", str(number)) for number in range(1, 8)]
    position = await portfolio.world.execute(*fills, bust(8, fills[2]), execution(9, "2", "5", position=EUROS, order_id="o2"))

    async def walk(method: str, request: Any, field: str) -> list[Any]:
        found: list[Any] = []
        while True:
            answer = await portfolio.call(method, request)
            found += getattr(answer, field)
            assert len(getattr(answer, field)) <= request.page_size
            if not answer.next_page_token:
                return found
            request.page_token = answer.next_page_token

    lots = await walk("ListLots", pb.ListLotsRequest(account_id="ACC-1", page_size=3, min_position=position), "lots")
    assert [lot.price for lot in lots] == ["1", "2", "4", "5", "6", "7", "5"]
    changes = await walk("ListPositionChanges", pb.ListPositionChangesRequest(account_id="ACC-1", page_size=4), "changes")
    assert [change.order_log_position.position for change in changes] == list(range(9, 0, -1))
    amended = changes[1]
    assert (amended.type, amended.amended_id) == (position_pb2.POSITION_CHANGE_TYPE_BUST, "XSIM/2026-03-02/e3")
    assert (amended.quantity_before, amended.quantity, amended.realised_pnl_delta) == ("7", "6", "0")
    positions = await walk("ListPositions", pb.ListPositionsRequest(account_id="ACC-1", page_size=1), "positions")
    assert [item.instrument_id for item in positions] == ["AAPL", "MSFT"]
    page = await portfolio.call("ListPositions", pb.ListPositionsRequest(account_id="ACC-1", page_size=1))
    stolen = pb.ListPositionsRequest(account_id="ACC-1", page_size=1, page_token=page.next_page_token, include_closed=True)
    assert await refused(portfolio, "ListPositions", stolen) == ("PAGE_TOKEN_INVALID", ["page_token"])


@pytest.mark.parametrize(
    ("caller", "reason"),
    [
        (user("viewer", accounts=()), "ACCOUNT_NOT_ALLOWED"),
        (user("trader", accounts=("ACC-2",)), "ACCOUNT_NOT_ALLOWED"),
        (user("viewer", tenant="south"), "ACCOUNT_NOT_ALLOWED"),
        (user("risk-officer", tenant="south", accounts=()), "ACCOUNT_NOT_ALLOWED"),
        (user("operations"), "ROLE_REQUIRED"),
        (None, "USER_UNAUTHENTICATED"),
    ],
)
async def test_whose_account_it_is(portfolio: Caller, caller: User | None, reason: str) -> None:
    await known(portfolio)
    for method, request in (
        ("GetPortfolio", pb.GetPortfolioRequest(account_id="ACC-1")),
        ("GetPosition", pb.GetPositionRequest(account_id="ACC-1", instrument_id="NOWHERE")),
        ("ListPositions", pb.ListPositionsRequest(account_id="ACC-1")),
        ("ListLots", pb.ListLotsRequest(account_id="ACC-1")),
        ("GetPnl", pb.GetPnlRequest(account_id="ACC-1")),
        ("ListPositionChanges", pb.ListPositionChangesRequest(account_id="ACC-1")),
    ):
        assert (await refused(portfolio, method, request, caller))[0] == reason


async def test_officers_see_their_tenants_accounts(portfolio: Caller) -> None:
    await known(portfolio)
    for role in ("risk-officer", "compliance"):
        await portfolio.call("GetPortfolio", pb.GetPortfolioRequest(account_id="ACC-1"), user(role, accounts=()))
        unknown = pb.GetPortfolioRequest(account_id="ACC-9")
        assert (await refused(portfolio, "GetPortfolio", unknown, user(role, accounts=())))[0] == "ACCOUNT_NOT_ALLOWED"


async def test_form_and_places_that_do_not_exist(portfolio: Caller) -> None:
    await known(portfolio)
    assert await refused(portfolio, "GetPortfolio", pb.GetPortfolioRequest(account_id="acc 1")) == ("FIELD_INVALID", ["account_id"])
    dates = pb.GetPnlRequest(account_id="ACC-1", from_trade_date="2026-03-03", to_trade_date="2026-03-02")
    assert (await refused(portfolio, "GetPnl", dates))[0] == "FIELD_INVALID"
    nowhere = pb.GetPositionRequest(account_id="ACC-1", instrument_id="NOWHERE")
    assert (await refused(portfolio, "GetPosition", nowhere))[0] == "INSTRUMENT_NOT_FOUND"
    ahead = pb.GetPortfolioRequest(account_id="ACC-1", min_position=log_position_pb2.LogPosition(tx=99, position=99))
    assert (await refused(portfolio, "GetPortfolio", ahead))[0] == "DEPENDENCY_UNAVAILABLE"
    mine = user("viewer", accounts=("ACC-1", "ACC-7"))
    assert (await refused(portfolio, "GetPortfolio", pb.GetPortfolioRequest(account_id="ACC-7"), mine))[0] == "ACCOUNT_NOT_FOUND"


async def test_other_services_may_read_the_log_and_nothing_else(portfolio: Caller) -> None:
    await known(portfolio)
    position = await portfolio.world.execute(execution(1, "10", "5"))
    await portfolio.call("GetPortfolio", pb.GetPortfolioRequest(account_id="ACC-1", min_position=position))
    request = event_log_service_pb2.ReadEventsRequest()
    records: list[Any] = []
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not records:
            records = (await portfolio.log.ReadEvents(request, metadata=headers(None, "svc-reporting"), timeout=10)).events
    assert [(record.stream_id, record.type) for record in records] == [("position-ACC-1/AAPL", "portfolio.v1.PositionChanged")]
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await portfolio.log.ReadEvents(request, metadata=headers(None, "svc-oms"), timeout=10)
    assert details(caught.value)[0] == "PEER_NOT_ALLOWED"
    assert (await refused(portfolio, "GetPortfolio", pb.GetPortfolioRequest(account_id="ACC-1"), VIEWER, "svc-oms"))[
        0
    ] == "PEER_NOT_ALLOWED"


async def test_two_replicas_show_the_same_and_one_folds_for_both(migrated: ServiceDatabase, world: World) -> None:
    async with running(config_of("svc_portfolio-0", migrated, world), world) as one:
        await known(one)
        first = await world.execute(execution(1, "10", "5"))
        async with running(config_of("svc_portfolio-1", migrated, world), world) as other:
            for replica in (one, other):
                request = pb.GetPortfolioRequest(account_id="ACC-1", min_position=first)
                answer = await replica.call("GetPortfolio", request)
                assert [position.quantity for position in answer.positions] == ["10"]
            second = await world.execute(execution(2, "-3", "6"))
            answers = [
                await replica.call("GetPortfolio", pb.GetPortfolioRequest(account_id="ACC-1", min_position=second))
                for replica in (one, other)
            ]
            assert answers[0] == answers[1]
            assert answers[0].totals[0].realised_pnl == "3"
