"""The operator's calls over real sockets: which replica is asked, with which headers, and what is never asked twice."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import contextmanager
from typing import Any

import grpc
import pytest

from kernel.errors import NotFoundError, OutcomeUnknownError, Reason, TrademeshError, UnavailableError
from kernel.identity import CLAIMS_HEADER, PEER_HEADER, SECRET_HEADER
from kernel.server_context import REPLAYED_HEADER
from kernel.status import DETAILS_KEY, status_code, to_status
from mesh.local.layout import Layout, SupervisorLock
from mesh.local.operator import SECRET_FILE, Caller, Operator, endpoints
from mesh.local.report import InstanceReport, MeshReport, Phase, State
from mesh.local.sidecar import write_secrets
from trademesh.oms.v1 import order_service_pb2

PATH = "/trademesh.oms.v1.OrderService/GetOrder"
REPLICAS = ("svc_oms-0", "svc_oms-1")
ADA = Caller("ada", "demo", ("trader",), ("ACC-1",))
Behaviour = Callable[[Any, grpc.ServicerContext], order_service_pb2.GetOrderResponse]


@pytest.fixture
def mesh(layout: Layout) -> Iterator[Layout]:
    """Return the layout of a mesh that runs, as far as its lock and its status document say."""
    write_secrets(layout, REPLICAS)
    instances = tuple(
        InstanceReport(name, "svc_oms", State.READY, str(layout.socket(name)), str(layout.log(name)), os.getpid()) for name in REPLICAS
    )
    MeshReport(Phase.READY, os.getpid(), 0.0, instances).write(layout.status_file)
    lock = SupervisorLock(layout)
    lock.acquire()
    yield layout
    lock.release()


@contextmanager
def replica(layout: Layout, name: str, behaviour: Behaviour) -> Iterator[list[dict[str, Any]]]:
    """Serve GetOrder on a replica's socket; yield the metadata of the calls that came."""
    calls: list[dict[str, Any]] = []

    def serve(request: Any, context: grpc.ServicerContext) -> order_service_pb2.GetOrderResponse:
        calls.append(dict(context.invocation_metadata()))
        return behaviour(request, context)

    handler = grpc.unary_unary_rpc_method_handler(
        serve, order_service_pb2.GetOrderRequest.FromString, order_service_pb2.GetOrderResponse.SerializeToString
    )
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=2))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("trademesh.oms.v1.OrderService", {"GetOrder": handler}),))
    server.add_insecure_port(f"unix:{layout.socket(name)}")
    server.start()
    try:
        yield calls
    finally:
        server.stop(None).wait()


def found(request: Any, context: grpc.ServicerContext) -> order_service_pb2.GetOrderResponse:
    response = order_service_pb2.GetOrderResponse()
    response.order.order_id = request.order_id
    return response


def refusing(error: TrademeshError) -> Behaviour:
    def behaviour(request: Any, context: grpc.ServicerContext) -> order_service_pb2.GetOrderResponse:
        context.set_trailing_metadata(((DETAILS_KEY, to_status(error).SerializeToString()),))
        context.abort(status_code(error), error.message)
        raise AssertionError("abort raises")

    return behaviour


def get(operator: Operator, *, repeatable: bool = True) -> Any:
    request = order_service_pb2.GetOrderRequest(account_id="ACC-1", order_id="o-1")
    return operator.call("svc_oms", PATH, request, order_service_pb2.GetOrderResponse, repeatable=repeatable, timeout_seconds=5.0)


def test_the_replica_that_is_there_is_asked_with_its_own_secret_as_the_edge(mesh: Layout) -> None:
    with replica(mesh, "svc_oms-1", found) as calls, Operator(mesh, ADA) as operator:
        answer = get(operator)
    assert answer.message.order.order_id == "o-1"
    assert not answer.replayed
    [headers] = calls
    assert headers[SECRET_HEADER] == (mesh.private("svc_oms-1") / SECRET_FILE).read_text()
    assert headers[PEER_HEADER].endswith("/sa/edge")
    assert headers[CLAIMS_HEADER]


def test_a_replay_is_told_from_a_first_answer(mesh: Layout) -> None:
    def replayed(request: Any, context: grpc.ServicerContext) -> order_service_pb2.GetOrderResponse:
        context.send_initial_metadata(((REPLAYED_HEADER, "true"),))
        return found(request, context)

    with replica(mesh, "svc_oms-0", replayed), Operator(mesh, ADA) as operator:
        assert get(operator).replayed


def test_a_services_own_refusal_is_final_and_typed(mesh: Layout) -> None:
    busy = refusing(UnavailableError(Reason.RISK_UNAVAILABLE, "risk cannot be asked", retry_after_seconds=0.25))
    with replica(mesh, "svc_oms-0", busy) as first, replica(mesh, "svc_oms-1", found) as second, Operator(mesh, ADA) as operator:
        with pytest.raises(UnavailableError) as refusal:
            get(operator, repeatable=False)
        assert (refusal.value.reason, refusal.value.retry_after_seconds) == (Reason.RISK_UNAVAILABLE, 0.25)
    assert (len(first), len(second)) == (1, 0)
    absent = refusing(NotFoundError(Reason.ORDER_NOT_FOUND, "no such order"))
    with replica(mesh, "svc_oms-0", absent), Operator(mesh, ADA) as operator, pytest.raises(NotFoundError, match="no such order"):
        get(operator)


def test_a_write_whose_answer_was_lost_is_not_sent_to_the_next_replica(mesh: Layout) -> None:
    def lost(request: Any, context: grpc.ServicerContext) -> order_service_pb2.GetOrderResponse:
        context.abort(grpc.StatusCode.UNAVAILABLE, "upstream connect error or disconnect")
        raise AssertionError("abort raises")

    with replica(mesh, "svc_oms-0", lost) as first, replica(mesh, "svc_oms-1", found) as second, Operator(mesh, ADA) as operator:
        with pytest.raises(OutcomeUnknownError):
            get(operator, repeatable=False)
        assert (len(first), len(second)) == (1, 0)
        assert get(operator, repeatable=True).message.order.order_id == "o-1"
    assert len(second) == 1


def test_with_nobody_there_it_says_so(mesh: Layout, layout: Layout) -> None:
    with Operator(mesh, ADA) as operator, pytest.raises(UnavailableError):
        get(operator)
    with pytest.raises(UnavailableError, match="no instance of svc_custody runs"):
        endpoints(layout, "svc_custody")
    layout.status_file.unlink()
    with pytest.raises(UnavailableError, match="no mesh runs in"):
        endpoints(layout, "svc_oms")
