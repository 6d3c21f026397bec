"""The stream of order events: snapshot, contiguous changes, resume without gaps, and an end that says why."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest

from tests.integration.oms.world import STRANGER, order_request
from tests.wire.oms.caller import Caller, details, headers
from trademesh.oms.v1 import order_pb2, order_service_pb2


def opened(oms: Caller, **fields: Any) -> Any:
    request = order_service_pb2.StreamOrderEventsRequest(account_id="ACC-1", **fields)
    request.heartbeat_interval.seconds = 1
    return oms.orders.StreamOrderEvents(request, metadata=headers())


async def read(call: Any, count: int) -> list[order_service_pb2.StreamOrderEventsResponse]:
    """Return the next messages that are no heartbeats."""
    messages: list[order_service_pb2.StreamOrderEventsResponse] = []
    async with asyncio.timeout(15):
        while len(messages) < count:
            message = await call.read()
            assert message is not grpc.aio.EOF
            if message.WhichOneof("payload") != "heartbeat":
                messages.append(message)
    return messages


async def test_snapshot_then_every_change(oms: Caller) -> None:
    first = await oms.create(order_request())
    await oms.create(order_request(account_id="ACC-2"))
    call = opened(oms)
    (snapshot,) = await read(call, 1)
    assert [order.order_id for order in snapshot.snapshot.orders] == [first.order.order_id]
    assert snapshot.snapshot.complete
    second = await oms.create(order_request())
    await oms.cancel(second.order.order_id)
    created, requested, canceled = await read(call, 3)
    assert [message.sequence for message in (snapshot, created, requested, canceled)] == [1, 2, 3, 4]
    assert created.event.type == "oms.v1.OrderAccepted"
    assert created.event.order == second.order
    assert created.event.log_position == second.log_position
    assert requested.event.order.pending_action == order_pb2.PENDING_ACTION_CANCEL
    assert canceled.event.order.state == order_pb2.ORDER_STATE_CANCELED
    call.cancel()


async def test_resume_goes_on_without_a_gap(oms: Caller) -> None:
    call = opened(oms)
    (snapshot,) = await read(call, 1)
    seen = [await oms.create(order_request()) for _ in range(3)]
    messages = await read(call, 3)
    call.cancel()
    missed = [await oms.create(order_request()) for _ in range(5)]
    resumed = opened(oms, resume_token=messages[0].resume_token)
    rest = await read(resumed, 7)
    assert [message.sequence for message in rest] == list(range(3, 10))
    assert [message.event.order.order_id for message in rest] == [answer.order.order_id for answer in (*seen[1:], *missed)]
    live = await oms.create(order_request())
    (last,) = await read(resumed, 1)
    assert (last.sequence, last.event.order.order_id) == (10, live.order.order_id)
    resumed.cancel()
    assert snapshot.sequence == 1


async def test_a_resume_token_is_bound(oms: Caller) -> None:
    call = opened(oms)
    (snapshot,) = await read(call, 1)
    call.cancel()
    other = opened(oms, resume_token=snapshot.resume_token, instrument_id="MSFT")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await other.read()
    assert details(caught.value) == ("RESUME_TOKEN_INVALID", ["resume_token"])


async def test_heartbeats_carry_the_last_sequence(oms: Caller) -> None:
    call = opened(oms)
    await read(call, 1)
    async with asyncio.timeout(10):
        message = await call.read()
    assert message.heartbeat.last_sequence == 1
    call.cancel()


async def test_a_draining_service_ends_streams_in_band(oms: Caller) -> None:
    call = opened(oms)
    await read(call, 1)
    oms.stop.set()
    (end,) = await read(call, 1)
    assert end.end.status.code == grpc.StatusCode.UNAVAILABLE.value[0]
    assert end.sequence == 2


async def test_strangers_see_no_stream(oms: Caller) -> None:
    await oms.create(order_request())
    request = order_service_pb2.StreamOrderEventsRequest(account_id="ACC-1")
    call = oms.orders.StreamOrderEvents(request, metadata=headers(STRANGER))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call.read()
    assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
