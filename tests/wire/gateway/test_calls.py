"""Reads and streams over one socket: the answers, the refusals, the user's token with every call."""

from __future__ import annotations

import json

import pytest

from kernel.errors import NotFoundError, Reason
from svc_gateway.servicer import bridge
from svc_gateway.servicer.bridge import SocketLimits
from tests.wire.gateway.world import GET, LIST, ORDER_ID, STREAM, Replica, World, bearer, headers, reason, until
from tests.wire.kernel_net.serving import user


async def test_a_read_is_answered_as_rest_would(replica: Replica, gateway_world: World) -> None:
    caller = user()
    async with replica.open(caller) as socket:
        await socket.call("1", GET, account_id="ACC-1", order_id=ORDER_ID)
        message = await socket.message("1")
        assert message["order"]["order_id"] == ORDER_ID
        assert await socket.end("1") == {"code": 0, "message": "", "details": []}
        await socket.call("1", LIST, account_id="ACC-1", page_token="t")
        message = await socket.message("1")
        assert (message["orders"][0]["state"], message["orders"][0]["version"]) == ("ORDER_STATE_NEW", str(1 << 60))
        assert message["next_page_token"] == "t"
        assert (await socket.end("1"))["code"] == 0
    assert gateway_world.orders.authorizations == [bearer(caller)] * 2
    assert len({trace[3:35] for trace in gateway_world.orders.traces}) == 2
    assert all(deadline is not None and 0 < deadline < 6 for deadline in gateway_world.orders.deadlines)


async def test_a_stream_goes_on_until_it_is_cancelled(replica: Replica, gateway_world: World) -> None:
    caller = user()
    events = gateway_world.orders.events
    async with replica.open(caller) as socket:
        await socket.call("s", STREAM, account_id="ACC-1")
        assert (await socket.message("s"))["snapshot"]["complete"] is True
        events.append(3)
        messages = [await socket.message("s") for _ in range(3)]
        assert [message["event"]["order"]["order_id"] for message in messages] == ["1", "2", "3"]
        assert [message["sequence"] for message in messages] == ["2", "3", "4"]
        await socket.send(id="s", cancel=True)
        assert (await socket.end("s"))["code"] == 1
        await until(lambda: gateway_world.orders.streams == 0)
        await socket.send(id="s", cancel=True)
        await socket.call("s", GET, account_id="ACC-1", order_id=ORDER_ID)
        assert (await socket.message("s"))["order"]["order_id"] == ORDER_ID
    assert gateway_world.orders.authorizations[0] == bearer(caller)


async def test_a_stream_resumes_after_the_token_on_another_socket_without_a_gap(replica: Replica, gateway_world: World) -> None:
    events, caller = gateway_world.orders.events, user()
    async with replica.open(caller) as socket:
        await socket.call("s", STREAM, account_id="ACC-1")
        await socket.message("s")
        events.append(2)
        first = [await socket.message("s") for _ in range(2)]
    events.append(2)
    async with replica.open(caller) as socket:
        await socket.call("t", STREAM, account_id="ACC-1", resume_token=first[0]["resume_token"])
        rest = [await socket.message("t") for _ in range(3)]
    assert [message["event"]["order"]["order_id"] for message in rest] == ["2", "3", "4"]
    assert [message["sequence"] for message in rest] == ["3", "4", "5"]


async def test_a_resume_token_of_somebody_else_is_refused_by_its_service(replica: Replica) -> None:
    async with replica.open(user()) as socket:
        await socket.call("s", STREAM, account_id="ACC-1")
        token = (await socket.message("s"))["resume_token"]
    async with replica.open(user(principal="mallory")) as socket:
        await socket.call("s", STREAM, account_id="ACC-1", resume_token=token)
        assert (await socket.end("s"))["code"] != 0


async def test_many_streams_share_a_socket_each_in_order(replica: Replica, gateway_world: World) -> None:
    async with replica.open(user()) as socket:
        for number in range(20):
            await socket.call(f"s{number}", STREAM, account_id="ACC-1")
        for _ in range(20):
            assert "snapshot" in (await socket.frame())["message"]
        gateway_world.orders.events.append(10)
        seen: dict[str, list[str]] = {}
        for _ in range(200):
            frame = await socket.frame()
            seen.setdefault(frame["id"], []).append(frame["message"]["event"]["order"]["order_id"])
    assert len(seen) == 20
    assert all(orders == [str(number) for number in range(1, 11)] for orders in seen.values())
    await until(lambda: gateway_world.orders.streams == 0)


async def test_a_services_refusal_comes_back_whole(replica: Replica, gateway_world: World) -> None:
    gateway_world.orders.refusal = NotFoundError(
        Reason.ORDER_NOT_FOUND, "no such order", metadata={"resource_type": "order", "resource_name": ORDER_ID}
    )
    async with replica.open(user()) as socket:
        for method in (GET, STREAM):
            await socket.call("1", method, account_id="ACC-1")
            status = await socket.end("1")
            assert (status["code"], status["message"], reason(status)) == (5, "no such order", "ORDER_NOT_FOUND")
            assert status["details"][0]["@type"] == "type.googleapis.com/google.rpc.ErrorInfo"


@pytest.mark.parametrize(
    ("method", "request_fields", "code", "why"),
    [
        ("trademesh.oms.v1.OrderService/CreateOrder", {}, 12, "METHOD_NOT_FOUND"),
        ("trademesh.oms.v1.OrderService/CancelOrder", {}, 12, "METHOD_NOT_FOUND"),
        ("trademesh.oms.v1.OrderService/EnterOrders", {}, 12, "METHOD_NOT_FOUND"),
        ("trademesh.risk.v1.RiskService/ActivateKillSwitch", {}, 12, "METHOD_NOT_FOUND"),
        ("trademesh.type.v1.EventLogService/ReadEvents", {}, 12, "METHOD_NOT_FOUND"),
        ("trademesh.oms.v1.OrderControlService/ResolveOrder", {}, 12, "METHOD_NOT_FOUND"),
        ("nonsense", {}, 12, "METHOD_NOT_FOUND"),
        (GET, {"acount_id": "ACC-1"}, 3, "FIELD_UNKNOWN"),
        (GET, {"account_id": 1}, 3, "FIELD_INVALID"),
        (GET, {"account_id": "a", "accountId": "b"}, 3, "FIELD_INVALID"),
        ("trademesh.custody.v1.CustodyService/ListBalances", {}, 14, "DEPENDENCY_UNAVAILABLE"),
    ],
)
async def test_what_is_not_bridged_is_refused_by_its_id(
    replica: Replica, gateway_world: World, method: str, request_fields: dict[str, object], code: int, why: str
) -> None:
    async with replica.open(user()) as socket:
        await socket.call("1", method, **request_fields)
        status = await socket.end("1")
        assert (status["code"], reason(status)) == (code, why)
        await socket.call("2", GET, account_id="ACC-1", order_id=ORDER_ID)
        await socket.message("2")
    assert len(gateway_world.orders.authorizations) == 1


async def test_a_wrong_field_is_named(replica: Replica) -> None:
    async with replica.open(user()) as socket:
        await socket.call("1", LIST, account_id="ACC-1", states=["NEW"])
        bad = (await socket.end("1"))["details"][1]
        assert bad["@type"] == "type.googleapis.com/google.rpc.BadRequest"
        assert bad["field_violations"][0]["field"] == "states[0]"
        await socket.send(id="2", method=LIST, reqest={})
        assert (await socket.end("2"))["details"][1]["field_violations"][0]["field"] == "reqest"


async def test_a_unary_call_has_a_deadline(gateway_world: World) -> None:
    gateway_world.orders.hangs = True
    replica = await gateway_world.replica(call_seconds=0.2)
    async with replica.open(user()) as socket:
        await socket.call("1", GET, account_id="ACC-1", order_id=ORDER_ID)
        status = await socket.end("1")
        assert (status["code"], reason(status)) == (4, "DEADLINE_EXPIRED")


async def test_a_call_that_is_cancelled_before_it_began_ends_once(replica: Replica, gateway_world: World) -> None:
    gateway_world.orders.hangs = True
    async with replica.open(user()) as socket:
        for number in range(20):
            await socket.call(str(number), GET, account_id="ACC-1", order_id=ORDER_ID)
            await socket.send(id=str(number), cancel=True)
        frames = [await socket.frame() for _ in range(20)]
        assert sorted(frame["id"] for frame in frames) == sorted(str(number) for number in range(20))
        assert {frame["end"]["status"]["code"] for frame in frames} == {1}


@pytest.mark.parametrize(
    "text", ["not json", "[]", "{}", '{"id":1}', '{"id":"1","id":"2"}', '{"id":"1","method":"a","request":{"b":1,"b":2}}']
)
async def test_a_frame_that_names_no_call_ends_the_socket(replica: Replica, text: str) -> None:
    async with replica.open(user()) as socket:
        await socket.socket.send_str(text)
        frame = await socket.frame()
        assert set(frame) == {"error"}
        assert reason(frame["error"]) in ("JSON_INVALID", "FIELD_INVALID")
        assert await socket.closed() == 1008


async def test_an_id_that_is_in_use_ends_the_socket(replica: Replica) -> None:
    async with replica.open(user()) as socket:
        await socket.call("1", STREAM, account_id="ACC-1")
        await socket.message("1")
        await socket.call("1", GET, account_id="ACC-1", order_id=ORDER_ID)
        assert reason((await socket.frame())["error"]) == "FIELD_INVALID"
        assert await socket.closed() == 1008


async def test_frames_are_texts_of_a_bounded_length(replica: Replica) -> None:
    async with replica.open(user()) as socket:
        await socket.socket.send_bytes(b"{}")
        assert await socket.closed() == 1003
    async with replica.open(user()) as socket:
        await socket.socket.send_str(json.dumps({"id": "1", "method": "x" * 70_000}))
        assert await socket.closed() == 1009


async def test_a_defect_ends_the_socket_with_its_own_code(replica: Replica, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(text: str) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(bridge, "parse_frame", broken)
    async with replica.open(user()) as socket:
        await socket.socket.send_str("{}")
        assert await socket.closed() == 1011


async def test_calls_and_frames_of_a_socket_are_bounded(gateway_world: World) -> None:
    replica = await gateway_world.replica(limits=SocketLimits(calls_max=2, call_interval_ms=1_000_000, calls_burst=4))
    async with replica.open(user()) as socket:
        for call_id in ("1", "2"):
            await socket.call(call_id, STREAM, account_id="ACC-1")
            await socket.message(call_id)
        await socket.call("3", STREAM, account_id="ACC-1")
        assert reason(await socket.end("3")) == "QUOTA_EXCEEDED"
        await socket.send(id="1", cancel=True)
        assert (await socket.end("1"))["code"] == 1
        await socket.call("4", STREAM, account_id="ACC-1")
        await socket.message("4")
        await socket.call("5", STREAM, account_id="ACC-1")
        status = await socket.end("5")
        assert (status["code"], reason(status)) == (8, "QUOTA_EXCEEDED")


async def test_sockets_of_a_user_are_bounded_and_come_free_again(gateway_world: World) -> None:
    replica = await gateway_world.replica(principal_sockets_max=2, sockets_max=3)
    caller = user()
    async with replica.open(caller), replica.open(caller):
        status, body = await replica.knock(headers(caller))
        assert (status, reason(body)) == (429, "QUOTA_EXCEEDED")
        async with replica.open(user(principal="bob")):
            status, body = await replica.knock(headers(user(principal="carol")))
            assert (status, reason(body)) == (429, "OVERLOADED")
    await until(lambda: not any(sample.value for sample in replica.sockets.samples() if sample.name == "gateway_sockets_open"))
    async with replica.open(caller):
        pass
