"""The stream of a portfolio: snapshot, contiguous changes, the latest marks, resume without gaps."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest

from svc_portfolio.domain.executions import PositionKey
from tests.unit.portfolio.make import bust, execution
from tests.wire.oms.caller import details
from tests.wire.portfolio.conftest import PATIENCE_SECONDS, Caller, headers
from tests.wire.portfolio.test_reads import known
from tests.wire.serving import user
from trademesh.portfolio.v1 import portfolio_service_pb2 as pb
from trademesh.portfolio.v1 import position_pb2

EUROS = PositionKey("ACC-1", "MSFT")
FOREIGN = PositionKey("ACC-2", "AAPL")


def opened(portfolio: Caller, **fields: Any) -> Any:
    request = pb.StreamPortfolioRequest(account_id="ACC-1", **fields)
    request.heartbeat_interval.seconds = 1
    return portfolio.stub.StreamPortfolio(request, metadata=headers())


async def read(call: Any, count: int, *kinds: str) -> list[Any]:
    """Return the next messages of the given kinds: `snapshot`, `position`, `marks`, `resync`, `end`."""
    found: list[Any] = []
    async with asyncio.timeout(PATIENCE_SECONDS):
        while len(found) < count:
            message = await call.read()
            assert message is not grpc.aio.EOF
            kind = message.WhichOneof("payload")
            kind = message.event.WhichOneof("event") if kind == "event" else kind
            if kind in kinds:
                found.append(message)
    return found


async def shown(portfolio: Caller, position: Any) -> None:
    await portfolio.call("GetPortfolio", pb.GetPortfolioRequest(account_id="ACC-1", min_position=position))


async def test_snapshot_then_every_change_of_this_account(portfolio: Caller) -> None:
    await known(portfolio)
    first = execution(1, "10", "5")
    await shown(portfolio, await portfolio.world.execute(first, execution(2, "3", "7", position=FOREIGN, order_id="o9")))
    call = opened(portfolio)
    (snapshot,) = await read(call, 1, "snapshot")
    assert [(item.instrument_id, item.quantity) for item in snapshot.snapshot.positions] == [("AAPL", "10")]
    assert snapshot.snapshot.complete
    await portfolio.world.execute(
        execution(3, "-4", "6"),
        execution(4, "1", "1", position=FOREIGN, order_id="o9"),
        execution(5, "2", "9", position=EUROS, order_id="o2"),
        bust(6, first),
    )
    sold, bought, busted = await read(call, 3, "position")
    assert [message.sequence for message in (snapshot, sold, bought, busted)] == [1, 2, 3, 4]
    assert (sold.event.position.position.quantity, sold.event.position.change.realised_pnl_delta) == ("6", "4")
    assert (bought.event.position.position.currency, bought.event.position.position.average_cost) == ("EUR", "9")
    assert busted.event.position.change.type == position_pb2.POSITION_CHANGE_TYPE_BUST
    assert (busted.event.position.position.quantity, busted.event.position.position.realised_pnl) == ("-4", "0")
    call.cancel()


async def test_the_stream_and_the_reads_agree(portfolio: Caller) -> None:
    await known(portfolio)
    call = opened(portfolio)
    await read(call, 1, "snapshot")
    position = await portfolio.world.execute(execution(1, "3", "0.333333333333333333"), execution(2, "-1", "0.1"))
    *_, last = await read(call, 2, "position")
    answer = await portfolio.call("GetPosition", pb.GetPositionRequest(account_id="ACC-1", instrument_id="AAPL", min_position=position))
    assert last.event.position.position == answer.position
    call.cancel()


async def test_marks_come_conflated_and_changes_never(portfolio: Caller) -> None:
    await known(portfolio)
    await shown(portfolio, await portfolio.world.execute(execution(1, "10", "5")))
    call = opened(portfolio)
    await read(call, 1, "snapshot")
    await portfolio.world.prices.say("AAPL", "6", "8")
    (marks,) = await read(call, 1, "marks")
    (valuation,) = marks.event.marks.valuations
    assert (valuation.instrument_id, valuation.mark.price, valuation.market_value, valuation.unrealised_pnl) == ("AAPL", "7", "70", "20")
    for number in range(20):
        await portfolio.world.prices.say("AAPL", str(10 + number), str(10 + number))
    told: list[Any] = []
    while not told or told[-1].event.marks.valuations[0].mark.price != "29":
        told += await read(call, 1, "marks")
    assert len(told) < 20
    assert [message.sequence for message in told] == list(range(3, 3 + len(told)))
    call.cancel()


async def test_resume_goes_on_without_a_gap(portfolio: Caller) -> None:
    await known(portfolio)
    call = opened(portfolio)
    await read(call, 1, "snapshot")
    await portfolio.world.execute(*(execution(number, "1", str(number)) for number in range(1, 4)))
    messages = await read(call, 3, "position")
    call.cancel()
    await shown(portfolio, await portfolio.world.execute(*(execution(number, "1", str(number)) for number in range(4, 9))))
    resumed = opened(portfolio, resume_token=messages[0].resume_token)
    rest = await read(resumed, 7, "position")
    assert [message.event.position.change.version for message in rest] == list(range(2, 9))
    assert [message.sequence for message in rest] == list(range(3, 10))
    await portfolio.world.execute(execution(9, "1", "9"))
    (live,) = await read(resumed, 1, "position")
    assert (live.sequence, live.event.position.position.quantity) == (10, "9")
    resumed.cancel()


async def test_a_resume_token_is_bound_and_strangers_see_nothing(portfolio: Caller) -> None:
    await known(portfolio)
    call = opened(portfolio)
    (snapshot,) = await read(call, 1, "snapshot")
    call.cancel()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await opened(portfolio, resume_token=snapshot.resume_token, instrument_id="MSFT").read()
    assert details(caught.value) == ("RESUME_TOKEN_INVALID", ["resume_token"])
    request = pb.StreamPortfolioRequest(account_id="ACC-1")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await portfolio.stub.StreamPortfolio(request, metadata=headers(user("viewer", tenant="south"))).read()
    assert details(caught.value)[0] == "ACCOUNT_NOT_ALLOWED"
