"""What a caller meets at a service's door, over real gRPC."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import stat
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from kernel.errors import FailedPreconditionError, Reason, ResourceExhaustedError, TrademeshError
from kernel.identity import CLAIMS_HEADER, PEER_HEADER, SECRET_HEADER
from kernel.server_policy import ServiceBinding, outside
from kernel.status import from_rpc_error
from tests.wire.kernel_net.serving import (
    POLICIES,
    SERVICE,
    ScriptedOrders,
    Served,
    forever,
    headers,
    order_request,
    serving,
    until,
)
from tests.wire.serving import USER_SECONDS, insecure
from trademesh.oms.v1 import order_service_pb2, order_service_pb2_grpc

GET = order_service_pb2.GetOrderRequest(account_id="ACC-1", order_id="0" * 8 + "-0000-4000-8000-" + "0" * 12)
CANCEL = order_service_pb2.CancelOrderRequest


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    async with serving() as running:
        yield running


@pytest.fixture
async def channel(served: Served) -> AsyncIterator[grpc.aio.Channel]:
    async with insecure(served.target) as opened:
        yield opened


@pytest.fixture
def stub(channel: grpc.aio.Channel) -> order_service_pb2_grpc.OrderServiceStub:
    return order_service_pb2_grpc.OrderServiceStub(channel)


Stub = order_service_pb2_grpc.OrderServiceStub


def raw(thing: Any) -> Any:
    """Use an object as it is at run time, where its stubs know less."""
    return thing


async def refusal(call: Any) -> tuple[grpc.StatusCode, TrademeshError]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value.code(), from_rpc_error(caught.value, dependency="svc-oms", repeatable=True)


async def test_a_call_reaches_the_handler_with_its_identity_and_leaves_one_line(served: Served, stub: Stub) -> None:
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    metadata = (*headers(), ("traceparent", f"00-{trace}-00f067aa0ba902b7-00"))
    response = await stub.CreateOrder(order_request(), metadata=metadata, timeout=5)
    assert response.order.client_order_id == "c-1"
    context = served.orders.calls[0]
    assert (context.identity.peer, context.user.principal, context.user.accounts) == ("edge", "alice", frozenset({"ACC-1"}))
    # gRPC rounds a timeout up to the next 10 ms on the wire, and takes it from a clock that it reads once a turn.
    assert 4 < context.remaining_seconds() <= 5.02
    [line] = served.log_lines()
    assert line["method"] == "/trademesh.oms.v1.OrderService/CreateOrder"
    assert (line["principal"], line["tenant"], line["peer"], line["code"], line["trace_id"]) == ("alice", "acme", "edge", "OK", trace)
    assert 0 <= line["duration_ms"] < 5000
    assert "a-secret" not in json.dumps(line)


async def test_without_the_secret_only_health_answers(served: Served, channel: grpc.aio.Channel, stub: Stub) -> None:
    health = raw(health_pb2_grpc.HealthStub(raw(channel)))
    assert (await health.Check(health_pb2.HealthCheckRequest(), timeout=5)).status
    for metadata in ((), headers()[1:], headers(secret="b-secret-of-this-test-run"), headers(secret="")):
        code, error = await refusal(stub.CreateOrder(order_request(), metadata=metadata, timeout=5))
        assert (code, error.reason) == (grpc.StatusCode.UNAUTHENTICATED, Reason.PEER_UNAUTHENTICATED)
    reflection = raw(reflection_pb2_grpc.ServerReflectionStub(raw(channel)))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async for _ in reflection.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(list_services="")]), timeout=5):
            pass
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
    code, _ = await refusal(raw(channel).unary_unary("/no.Such/Method")(b"", timeout=5))
    assert code is grpc.StatusCode.UNAUTHENTICATED
    assert served.orders.calls == []


@pytest.mark.parametrize(
    "peer",
    [
        "",
        "By=spiffe://trademesh.local/ns/trading/sa/svc-oms",
        "URI=spiffe://trademesh.local/ns/trading/sa/edge,URI=spiffe://trademesh.local/ns/trading/sa/edge",
        "URI=spiffe://trademesh.local/ns/trading/sa/edge;URI=spiffe://trademesh.local/ns/trading/sa/svc-risk",
        "URI=spiffe://elsewhere.example/ns/trading/sa/edge",
        "URI=spiffe://trademesh.local/ns/other/sa/edge",
        'URI="spiffe://trademesh.local/ns/trading/sa/edge',
        "URI=spiffe://trademesh.local/ns/trading/sa/edge/more",
    ],
)
async def test_a_peer_is_exactly_one_workload_of_the_mesh(stub: Stub, peer: str) -> None:
    metadata = [(key, peer if key == PEER_HEADER else value) for key, value in headers()]
    code, error = await refusal(stub.CreateOrder(order_request(), metadata=metadata, timeout=5))
    assert (code, error.reason) == (grpc.StatusCode.UNAUTHENTICATED, Reason.PEER_UNAUTHENTICATED)


async def test_envoys_quoted_form_is_read(served: Served, stub: Stub) -> None:
    peer = 'By=spiffe://x/y;Hash=00;Subject="CN=a\\"b,O=c;d";URI=spiffe://trademesh.local/ns/trading/sa/svc-gateway'
    await stub.CreateOrder(order_request(), metadata=[(k, peer if k == PEER_HEADER else v) for k, v in headers()], timeout=5)
    assert served.orders.calls[0].identity.peer == "svc-gateway"


@pytest.mark.parametrize("header", [SECRET_HEADER, PEER_HEADER, CLAIMS_HEADER])
async def test_a_second_identity_header_is_refused(stub: Stub, header: str) -> None:
    doubled = (*headers(), (header, dict(headers())[header]))
    code, error = await refusal(stub.CreateOrder(order_request(), metadata=doubled, timeout=5))
    assert (code, error.reason) == (grpc.StatusCode.UNAUTHENTICATED, Reason.PEER_UNAUTHENTICATED)


def _claims(claims: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(claims).encode()).decode()


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ("", Reason.USER_UNAUTHENTICATED),
        ("not base64!", Reason.USER_UNAUTHENTICATED),
        (_claims([]), Reason.USER_UNAUTHENTICATED),
        (_claims({"sub": "a", "tenant": "t", "roles": ["trader"]}), Reason.USER_UNAUTHENTICATED),
        (_claims({"sub": "a", "tenant": "t", "roles": "trader", "exp": 9999999999}), Reason.USER_UNAUTHENTICATED),
        (_claims({"sub": "a\n", "tenant": "t", "roles": [], "exp": 9999999999}), Reason.USER_UNAUTHENTICATED),
        (_claims({"sub": "a", "tenant": "t", "roles": [], "accounts": ["acc"], "exp": 9999999999}), Reason.USER_UNAUTHENTICATED),
        (_claims({"sub": "a", "tenant": "t", "roles": ["trader"], "exp": 1_700_000_000}), Reason.TOKEN_EXPIRED),
        (_claims({"sub": "a", "tenant": "t", "roles": ["viewer"], "exp": 9999999999}), Reason.ROLE_REQUIRED),
    ],
)
async def test_users_prove_who_they_are(stub: Stub, claims: str, reason: Reason) -> None:
    metadata = [(key, claims if key == CLAIMS_HEADER else value) for key, value in headers()]
    code, error = await refusal(stub.CreateOrder(order_request(), metadata=metadata, timeout=5))
    assert error.reason is reason
    expected = grpc.StatusCode.PERMISSION_DENIED if reason is Reason.ROLE_REQUIRED else grpc.StatusCode.UNAUTHENTICATED
    assert code is expected


async def test_expiry_counts_on_every_call_of_a_cached_identity(served: Served, stub: Stub) -> None:
    metadata = headers()
    await stub.CreateOrder(order_request(), metadata=metadata, timeout=5)
    served.clock_skew_seconds = USER_SECONDS + 1
    code, error = await refusal(stub.CreateOrder(order_request(), metadata=metadata, timeout=5))
    assert (code, error.reason) == (grpc.StatusCode.UNAUTHENTICATED, Reason.TOKEN_EXPIRED)


async def test_methods_for_services_refuse_users_and_the_other_way_round(stub: Stub) -> None:
    request = order_service_pb2.CancelAllOrdersRequest(account_id="ACC-1", request_id="0" * 8 + "-0000-4000-8000-" + "0" * 12)
    code, error = await refusal(stub.CancelAllOrders(request, metadata=headers("edge"), timeout=5))
    assert (code, error.reason) == (grpc.StatusCode.PERMISSION_DENIED, Reason.PEER_NOT_ALLOWED)
    await stub.CancelAllOrders(request, metadata=headers("svc-risk")[:2], timeout=5)
    code, error = await refusal(stub.CreateOrder(order_request(), metadata=headers("svc-risk"), timeout=5))
    assert (code, error.reason) == (grpc.StatusCode.PERMISSION_DENIED, Reason.PEER_NOT_ALLOWED)


async def test_broken_rules_come_back_with_field_and_rule(stub: Stub) -> None:
    request = order_request(quantity="-0", limit_price="1.0000000000000000001", account_id="acc")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.CreateOrder(request, metadata=headers(), timeout=5)
    error = from_rpc_error(caught.value, dependency="", repeatable=True)
    assert (caught.value.code(), error.reason) == (grpc.StatusCode.INVALID_ARGUMENT, Reason.FIELD_INVALID)
    assert {(item.field, item.rule) for item in error.field_violations} == {
        ("account_id", "account_id"),
        ("quantity", "decimal.positive"),
        ("limit_price", "decimal.positive"),
    }


async def test_a_rule_across_fields_names_the_field_to_blame(stub: Stub) -> None:
    request = order_request()
    request.ClearField("limit_price")
    _, error = await refusal(stub.CreateOrder(request, metadata=headers(), timeout=5))
    assert [(item.field, item.rule) for item in error.field_violations] == [("limit_price", "order.limit_price.required")]


async def test_unknown_fields_are_refused_in_writes_and_tolerated_in_reads(served: Served, channel: grpc.aio.Channel) -> None:
    unknown = b"\xf8\x7f\x07"
    path = "/trademesh.oms.v1.OrderService/"
    code, error = await refusal(
        raw(channel).unary_unary(f"{path}CreateOrder")(order_request().SerializeToString() + unknown, metadata=headers(), timeout=5)
    )
    assert (code, error.reason) == (grpc.StatusCode.INVALID_ARGUMENT, Reason.FIELD_UNKNOWN)
    await raw(channel).unary_unary(f"{path}GetOrder")(GET.SerializeToString() + unknown, metadata=headers(), timeout=5)
    assert len(served.orders.calls) == 1


@pytest.mark.parametrize("data", [b"\x0a\xff", b"\xff\xff\xff\xff", b"\x0a\x02\xff\xfe"])
async def test_bytes_that_are_no_message_are_the_callers_fault(channel: grpc.aio.Channel, data: bytes) -> None:
    call = raw(channel).unary_unary("/trademesh.oms.v1.OrderService/CreateOrder")(data, metadata=headers(), timeout=5)
    code, error = await refusal(call)
    assert (code, error.reason) == (grpc.StatusCode.INVALID_ARGUMENT, Reason.FIELD_INVALID)


async def test_a_message_beyond_the_methods_bound_is_named(stub: Stub) -> None:
    code, error = await refusal(stub.CreateOrder(order_request(labels={"k": "x" * 5000}), metadata=headers(), timeout=5))
    assert (code, error.reason) == (grpc.StatusCode.INVALID_ARGUMENT, Reason.MESSAGE_TOO_LARGE)


async def test_an_unknown_method_is_unimplemented_for_the_mesh(channel: grpc.aio.Channel) -> None:
    code, error = await refusal(raw(channel).unary_unary("/trademesh.oms.v1.OrderService/Nope")(b"", metadata=headers(), timeout=5))
    assert (code, error.reason) == (grpc.StatusCode.UNIMPLEMENTED, Reason.METHOD_NOT_FOUND)


async def test_a_domain_refusal_travels_whole(served: Served, stub: Stub) -> None:
    served.orders.script = lambda *_: FailedPreconditionError(Reason.ORDER_TERMINAL, "the order is filled", metadata={"state": "FILLED"})
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.CreateOrder(order_request(), metadata=headers(), timeout=5)
    error = from_rpc_error(caught.value, dependency="", repeatable=False)
    assert isinstance(error, FailedPreconditionError)
    assert (error.reason, error.message, error.metadata) == (Reason.ORDER_TERMINAL, "the order is filled", {"state": "FILLED"})
    assert served.log_lines()[-1]["reason"] == "ORDER_TERMINAL"


async def test_a_defect_leaks_nothing_but_its_trace_id(served: Served, stub: Stub, caplog: pytest.LogCaptureFixture) -> None:
    served.orders.script = lambda *_: RuntimeError("password=hunter2")
    code, error = await refusal(stub.CreateOrder(order_request(), metadata=headers(), timeout=5))
    assert (code, error.reason, error.message) == (grpc.StatusCode.INTERNAL, Reason.INTERNAL, "internal error")
    assert "hunter2" in caplog.text
    line = served.log_lines()[-1]
    assert line["code"] == "INTERNAL"
    assert line["trace_id"] == error.metadata["trace_id"]
    assert len(line["trace_id"]) == 32


async def test_initial_metadata_reaches_the_caller(served: Served, stub: Stub) -> None:
    served.orders.script = lambda _, context: context.set_initial_metadata("idempotency-replayed", "true")
    call = stub.CreateOrder(order_request(), metadata=headers(), timeout=5)
    assert dict(await call.initial_metadata())["idempotency-replayed"] == "true"
    await call


async def test_overload_is_shed_with_a_time_to_come_back_and_spares_priority_calls() -> None:
    async with serving(calls_max=1) as served, insecure(served.target) as channel:
        stub = order_service_pb2_grpc.OrderServiceStub(channel)
        release = asyncio.Event()

        async def hold() -> None:
            await release.wait()

        served.orders.script = lambda request, _: hold() if isinstance(request, order_service_pb2.CreateOrderRequest) else None
        held = asyncio.ensure_future(stub.CreateOrder(order_request(), metadata=headers(), timeout=5))
        await until(lambda: served.orders.calls)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.CreateOrder(order_request(), metadata=headers(), timeout=5)
        error = from_rpc_error(caught.value, dependency="", repeatable=False)
        assert isinstance(error, ResourceExhaustedError)
        assert error.reason is Reason.OVERLOADED
        assert error.retry_after_seconds is not None
        assert 0.25 <= error.retry_after_seconds < 0.5
        assert dict(caught.value.trailing_metadata() or ())["retry-after"] == "1"
        cancel = CANCEL(account_id="ACC-1", order_id=GET.order_id, request_id=GET.order_id)
        await stub.CancelOrder(cancel, metadata=headers(), timeout=5)
        release.set()
        await held
        await stub.CreateOrder(order_request(), metadata=headers(), timeout=5)


async def test_a_caller_without_a_deadline_gets_a_bounded_one(served: Served, stub: Stub) -> None:
    served.orders.script = lambda *_: forever()
    replace = order_service_pb2.ReplaceOrderRequest(account_id="ACC-1", order_id=GET.order_id, request_id=GET.order_id, quantity="5")
    code, error = await refusal(stub.ReplaceOrder(replace, metadata=headers()))
    assert (code, error.reason) == (grpc.StatusCode.UNKNOWN, Reason.OUTCOME_UNKNOWN)
    lookup = order_service_pb2.LookupOrderRequest(account_id="ACC-1", client_order_id="c-1")
    code, error = await refusal(stub.LookupOrder(lookup, metadata=headers()))
    assert (code, error.reason) == (grpc.StatusCode.DEADLINE_EXCEEDED, Reason.DEADLINE_EXPIRED)


async def test_a_cancelled_call_stops_its_handler_and_is_logged(served: Served, stub: Stub) -> None:
    stopped = asyncio.Event()

    async def work() -> None:
        try:
            await forever()
        finally:
            stopped.set()

    served.orders.script = lambda *_: work()
    call = stub.CreateOrder(order_request(), metadata=headers(), timeout=5)
    await until(lambda: served.orders.calls)
    call.cancel()
    async with asyncio.timeout(5):
        await stopped.wait()
    await until(lambda: any(line["code"] == "CANCELLED" for line in served.log_lines()))


async def test_stream_items_are_checked_one_by_one(served: Served, stub: Stub) -> None:
    good = order_service_pb2.EnterOrdersRequest(correlation_id=1, create=order_request())
    bad = order_service_pb2.EnterOrdersRequest(correlation_id=2, create=order_request(quantity="NaN"))
    answers = [answer async for answer in stub.EnterOrders(iter([good, bad, good]), metadata=headers(), timeout=5)]
    assert [(answer.correlation_id, answer.WhichOneof("result")) for answer in answers] == [(1, "order"), (2, "error"), (1, "order")]
    info = error_details_pb2.ErrorInfo()
    assert answers[1].error.details[0].Unpack(info)
    assert info.reason == "FIELD_INVALID"


async def test_garbage_on_a_stream_ends_it(served: Served, channel: grpc.aio.Channel) -> None:
    call = raw(channel).stream_stream("/trademesh.oms.v1.OrderService/EnterOrders")(iter([b"\xff"]), metadata=headers(), timeout=5)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async for _ in call:
            pass
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    async with asyncio.timeout(5):
        await served.orders.stream_ended.wait()


async def test_a_stream_that_the_caller_leaves_is_cleaned_up(served: Served, stub: Stub) -> None:
    call = stub.StreamOrderEvents(order_service_pb2.StreamOrderEventsRequest(account_id="ACC-1"), metadata=headers())
    assert dict(await call.initial_metadata())["x-stream"] == "yes"
    assert raw(await call.read()).sequence == 1
    call.cancel()
    async with asyncio.timeout(5):
        await served.orders.stream_ended.wait()


async def test_draining_tells_streams_and_refuses_new_calls() -> None:
    async with serving(drain_seconds=0.01) as served, insecure(served.target) as channel:
        stub = order_service_pb2_grpc.OrderServiceStub(channel)
        stream = stub.StreamOrderEvents(order_service_pb2.StreamOrderEventsRequest(account_id="ACC-1"), metadata=headers())
        assert raw(await stream.read()).sequence == 1
        health = raw(health_pb2_grpc.HealthStub(raw(channel))).Watch(health_pb2.HealthCheckRequest(service=SERVICE.full_name))
        statuses = health.__aiter__()
        await until_serving(statuses)
        stopping = asyncio.create_task(served.server.stop())
        assert (await anext(statuses)).status == health_pb2.HealthCheckResponse.NOT_SERVING
        assert raw(await stream.read()).sequence == 2
        health.cancel()
        await stopping
        assert not served.socket.exists()


async def until_serving(statuses: AsyncIterator[Any]) -> None:
    async with asyncio.timeout(5):
        while (await anext(statuses)).status != health_pb2.HealthCheckResponse.SERVING:
            pass


async def test_health_follows_readiness(served: Served, channel: grpc.aio.Channel) -> None:
    watch = raw(health_pb2_grpc.HealthStub(raw(channel))).Watch(health_pb2.HealthCheckRequest(service=SERVICE.full_name), timeout=10)
    statuses = watch.__aiter__()
    await until_serving(statuses)
    served.ready = False
    assert (await anext(statuses)).status == health_pb2.HealthCheckResponse.NOT_SERVING
    served.ready = True
    assert (await anext(statuses)).status == health_pb2.HealthCheckResponse.SERVING
    watch.cancel()


async def test_reflection_lists_the_services(channel: grpc.aio.Channel) -> None:
    stub = raw(reflection_pb2_grpc.ServerReflectionStub(raw(channel)))
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    answers = [answer async for answer in stub.ServerReflectionInfo(iter([request]), metadata=headers("svc-risk")[:2], timeout=5)]
    names = {service.name for service in answers[0].list_services_response.service}
    assert {"trademesh.oms.v1.OrderService", "grpc.health.v1.Health"} <= names


async def test_the_socket_belongs_to_its_user_alone(served: Served) -> None:
    assert stat.S_IMODE(os.stat(served.socket).st_mode) == 0o600


async def test_a_folder_open_to_others_is_refused() -> None:
    with tempfile.TemporaryDirectory(prefix="tmk-", dir="/tmp") as folder:
        os.chmod(folder, 0o710)  # noqa: S103 (too open is the point)
        with pytest.raises(ValueError, match="0700"):
            async with serving(socket_path=Path(folder) / "grpc.sock"):
                pass


def test_a_binding_must_be_complete() -> None:
    with pytest.raises(ValueError, match="policies and methods differ"):
        ServiceBinding(SERVICE, ScriptedOrders(), {"CreateOrder": outside(write=True)})
    with pytest.raises(ValueError, match="does not serve"):
        ServiceBinding(SERVICE, object(), POLICIES)
