"""A mesh from an empty directory: trades, loses parts and gets them back, ends without a trace, and goes on with its data."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

import psutil
import pytest

from kernel.errors import Reason, TrademeshError, UnavailableError
from kernel.ids import order_id
from mesh.local import commands, screens
from mesh.local.harness import LocalMesh
from mesh.local.layout import running_supervisor
from mesh.local.operator import Caller, Operator
from mesh.local.options import Options
from mesh.local.report import Phase, State
from mesh.local.seed_data import TENANT
from trademesh.oms.v1 import order_pb2, order_service_pb2
from trademesh.type.v1 import order_terms_pb2

pytestmark = pytest.mark.e2e

WAIT_SECONDS_MAX = 30.0
SIDECAR_BYTES_MAX = 80_000_000
ALL_ORDERS_SECONDS_MAX = 10.0
"""For two dozen of some milliseconds each. Half of them asking who does not answer would take two seconds each."""
ORDERS = "/trademesh.oms.v1.OrderService/"
ADA = Caller("ada", TENANT, ("trader", "viewer"), ("ACC-1",))


def buy(key: str, quantity: str = "1") -> order_service_pb2.CreateOrderRequest:
    return order_service_pb2.CreateOrderRequest(
        account_id="ACC-1",
        client_order_id=key,
        instrument_id="AAPL",
        side=order_terms_pb2.SIDE_BUY,
        type=order_terms_pb2.ORDER_TYPE_MARKET,
        time_in_force=order_terms_pb2.TIME_IN_FORCE_DAY,
        quantity=quantity,
    )


def place(operator: Operator, key: str, quantity: str = "1") -> order_pb2.Order:
    """Place an order, with the same key again while a part of the mesh is on its way back."""
    deadline = time.monotonic() + WAIT_SECONDS_MAX
    while True:
        try:
            answer = operator.call(
                "svc_oms", ORDERS + "CreateOrder", buy(key, quantity), order_service_pb2.CreateOrderResponse, repeatable=False
            )
        except UnavailableError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            order: order_pb2.Order = answer.message.order
            assert order.state == order_pb2.ORDER_STATE_PENDING_NEW, order.reject
            return order


def read(operator: Operator, key: str) -> order_pb2.Order:
    request = order_service_pb2.GetOrderRequest(account_id="ACC-1", order_id=order_id("ACC-1", key))
    answer = operator.call("svc_oms", ORDERS + "GetOrder", request, order_service_pb2.GetOrderResponse, repeatable=True)
    order: order_pb2.Order = answer.message.order
    return order


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_SECONDS_MAX
    while not condition():
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.05)


def filled(operator: Operator, key: str) -> Callable[[], bool]:
    def look() -> bool:
        try:
            return read(operator, key).state == order_pb2.ORDER_STATE_FILLED
        except TrademeshError:
            return False

    return look


def family(mesh: LocalMesh) -> list[int]:
    """Return every process of a mesh, the supervisor and PostgreSQL's own included."""
    supervisor = psutil.Process(mesh.report.supervisor_pid)
    return [supervisor.pid, *(child.pid for child in supervisor.children(recursive=True))]


def alive(pids: list[int]) -> list[int]:
    return [pid for pid in pids if _lives(pid)]


def _lives(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_an_order_is_filled_and_every_replica_is_ready(mesh: LocalMesh) -> None:
    report = mesh.await_ready()
    for service in ("svc_oms", "svc_risk"):
        assert [item.state for item in mesh.instances(service)] == [State.READY, State.READY]
    with mesh.operator(ADA) as operator:
        place(operator, "e2e-fill-1", "3")
        until(filled(operator, "e2e-fill-1"))
        assert read(operator, "e2e-fill-1").filled_quantity == "3"
    assert all(item.pid is not None or item.state is State.DONE for item in report.instances)


def test_a_second_start_says_that_the_mesh_runs(mesh: LocalMesh, capsys: pytest.CaptureFixture[str]) -> None:
    assert commands.up(mesh.layout, mesh.options, screens.console()) == 0
    assert f"already running (supervisor pid {mesh.report.supervisor_pid})" in capsys.readouterr().out
    assert commands.status(mesh.layout, screens.console(), as_json=False) == 0
    assert "svc_oms-1" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "quantity"),
    [
        ("svc_oms-0", "11"),
        ("svc_risk-1", "12"),
        ("exchange", "13"),
        ("redis", "14"),
        ("postgres", "15"),
        ("envoy-svc_oms-0", "16"),
        ("envoy-svc_risk-1", "17"),
        ("control", "18"),
    ],
)
def test_a_killed_part_comes_back_and_trading_goes_on(mesh: LocalMesh, name: str, quantity: str) -> None:
    mesh.await_ready()
    old = mesh.kill(name)
    mesh.await_restart(name, old)
    mesh.await_ready()
    with mesh.operator(ADA) as operator:
        # Each its own quantity: the same order twice within half a second is refused as a duplicate.
        place(operator, f"e2e-after-{name}", quantity)
        until(filled(operator, f"e2e-after-{name}"))
    assert mesh.instance(name).restarts >= 1


def test_services_speak_to_each_other_through_their_sidecars_alone(mesh: LocalMesh) -> None:
    """With its sidecar stopped, a replica of the order service cannot ask risk; with it running again, it can."""
    mesh.await_ready()
    [first, _] = mesh.instances("svc_oms")
    for item in mesh.instances("envoy"):
        assert item.pid is not None
        assert psutil.Process(item.pid).memory_info().rss <= SIDECAR_BYTES_MAX, item.name
    mesh.kill(f"envoy-{first.name}", signal.SIGSTOP)
    try:
        with mesh.operator(ADA) as operator, pytest.raises(TrademeshError) as refusal:
            # The operator asks the first replica first.
            operator.call("svc_oms", ORDERS + "CreateOrder", buy("cut-off", "19"), order_service_pb2.CreateOrderResponse, repeatable=False)
        assert refusal.value.reason is Reason.RISK_UNAVAILABLE
    finally:
        mesh.kill(f"envoy-{first.name}", signal.SIGCONT)
    with mesh.operator(ADA) as operator:
        place(operator, "cut-off", "19")


def test_a_replica_that_stands_still_is_left_out_until_it_goes_on(mesh: LocalMesh) -> None:
    mesh.await_ready()
    log = mesh.layout.log("control")
    name, orders = "svc_risk-0", 24

    def times(text: str) -> int:
        return log.read_text().count(f"{name} gets {text}")

    left_out, taken_back = times("no calls until it is ready"), times("calls again")
    mesh.kill(name, signal.SIGSTOP)
    try:
        until(lambda: times("no calls until it is ready") > left_out)
        assert mesh.instance(name).state is State.NOT_READY
        with mesh.operator(ADA) as operator:
            place(operator, "first-without-it", "29")
            began = time.monotonic()
            for number in range(orders):
                place(operator, f"without-it-{number}", str(30 + number))
            assert time.monotonic() - began < ALL_ORDERS_SECONDS_MAX
    finally:
        mesh.kill(name, signal.SIGCONT)
    until(lambda: times("calls again") > taken_back)
    mesh.await_ready()


def test_the_exchange_can_be_told_what_to_do(mesh: LocalMesh) -> None:
    mesh.exchange("flow.pause")
    assert mesh.exchange("status")["flow"]["paused"] is True
    mesh.exchange("flow.resume")


def test_a_mesh_ends_without_a_trace_and_goes_on_with_its_data() -> None:
    with LocalMesh() as own, own.operator(ADA) as operator:
        place(operator, "kept", "4")
        until(filled(operator, "kept"))
        for end in (own.stop, own.kill_supervisor):
            pids = family(own)
            assert len(pids) > 8
            end()
            until(lambda pids=pids: not alive(pids))  # type: ignore[misc]
            assert running_supervisor(own.layout) is None
            own.start()
            assert read(operator, "kept").filled_quantity == "4"
        supervisor = own.report.supervisor_pid
        os.kill(supervisor, signal.SIGTERM)
        until(lambda: running_supervisor(own.layout) is None)
        assert own.report.phase is Phase.STOPPED
        assert {item.last_end for item in own.report.instances if item.state is State.STOPPED} == {"stopped"}


def test_a_mesh_of_single_replicas_without_venue_bus_and_flow_takes_orders() -> None:
    bare = Options(replicas=1, venue_link=False, bus=False, exchange_flow=False, ephemeral_ports=True)
    with LocalMesh(bare) as own, own.operator(ADA) as operator:
        assert [item.name for item in own.instances("svc_oms")] == ["svc_oms-0"]
        place(operator, "alone")
        assert own.exchange("status")["members_connected"] == 0
