"""What an edge refuses to be made of: options, tables, routes and contracts that are wrong, each named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mesh.edge.access import AccessError, load
from mesh.edge.contract import Contract, ContractError, installed
from mesh.edge.descriptor import served_part
from mesh.edge.documents import documents
from mesh.edge.lua_tables import script
from mesh.edge.options import EdgeOptions, Limits
from mesh.edge.routes import RouteError

PUBLIC = {"kty": "EC", "crv": "P-256", "x": "a", "y": "b"}


def options(**changes: Any) -> EdgeOptions:
    fixed: dict[str, Any] = {"port": 8443, "issuer": "https://idp.test", "audience": "trademesh", "jwks": json.dumps({"keys": [PUBLIC]})}
    paths = {name: Path(name) for name in ("certificates", "configuration", "admin_socket")}
    return EdgeOptions(**{**fixed, **paths, **changes})


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"port": 0}, "port"),
        ({"port": 70_000}, "port"),
        ({"issuer": ""}, "issuer"),
        ({"origins": ("*",)}, "origins"),
        ({"origins": ("https://desk.test/",)}, "origins"),
        ({"jwks": "{"}, "jwks"),
        ({"jwks": "[]"}, "jwks"),
        ({"jwks": '{"keys":[]}'}, "jwks"),
        ({"jwks": json.dumps({"keys": [{**PUBLIC, "d": "private"}]})}, "jwks"),
        ({"jwks": json.dumps({"keys": [{"kty": "oct", "k": "shared"}]})}, "jwks"),
    ],
)
def test_wrong_options(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        options(**changes)


def test_wrong_limits() -> None:
    with pytest.raises(ValueError, match="body_bytes_max"):
        Limits(body_bytes_max=0)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[", "access.yaml"),
        ("x: 1", "needs `services`"),
        ("services: {a.B: {workload: svc-a}}", "needs `workload` and `methods`"),
        ("services: {a.B: {workload: svc-a, methods: {}}}", "no service a.B"),
        ("services: {trademesh.oms.v1.OrderService: {workload: 1, methods: {}}}", "workload"),
        ("services: {trademesh.oms.v1.OrderService: {workload: svc-oms, methods: {Nothing: {roles: any}}}}", "no such method"),
        ("services: {trademesh.oms.v1.OrderService: {workload: svc-oms, methods: {GetOrder: {}}}}", "needs `roles`"),
        ("services: {trademesh.oms.v1.OrderService: {workload: svc-oms, methods: {GetOrder: {roles: []}}}}", "`roles`"),
        ("services: {trademesh.oms.v1.OrderService: {workload: svc-oms, methods: {GetOrder: {roles: everybody}}}}", "`roles`"),
        ("services: {trademesh.oms.v1.OrderService: {workload: svc-oms, methods: {GetOrder: {roles: any, role: x}}}}", "needs `roles`"),
        (
            "services: {trademesh.oms.v1.OrderService: {workload: svc-oms, methods: {GetOrder: {roles: any, timeout_seconds: 0}}}}",
            "timeout",
        ),
        ("services: {trademesh.oms.v1.OrderService: {workload: svc-oms, methods: {GetOrder: {roles: any, priority: 1}}}}", "priority"),
    ],
)
def test_wrong_tables(tmp_path: Path, text: str, named: str) -> None:
    table = tmp_path / "access.yaml"
    table.write_text(text)
    with pytest.raises(AccessError, match=named):
        load(installed(), table)


@pytest.mark.parametrize(
    ("match", "named"),
    [
        (None, "no route to svc-oms"),
        ({"path": "/other"}, "no route of"),
        ({"prefix": "/", "headers": []}, "more than its path"),
        ({"safe_regex": {"regex": ".*"}}, "more than its path"),
    ],
)
def test_routes_that_cannot_be_followed(match: Any, named: str) -> None:
    contract = installed()
    grants = [grant for grant in load(contract) if grant.workload == "svc-oms"]
    routes = {"svc-oms.trading.svc.cluster.local:9000": [{"match": match, "route": {"cluster": "c"}}]} if match is not None else {}
    with pytest.raises(RouteError, match=named):
        documents(options(), contract, [], routes, grants)


def test_the_first_route_that_matches_is_followed() -> None:
    contract = installed()
    grants = [grant for grant in load(contract) if grant.workload == "svc-oms"]
    control = {"match": {"path": "/trademesh.oms.v1.OrderService/CancelOrder"}, "route": {"cluster": "control", "timeout": "3s"}}
    rest = {"match": {"prefix": "/"}, "route": {"cluster": "orders", "timeout": "0s"}}
    found = documents(options(), contract, [], {"svc-oms.trading.svc.cluster.local:9000": [control, rest]}, grants)
    manager = found.listeners[0]["filter_chains"][0]["filters"][0]["typed_config"]
    actions = {route["name"].rpartition("/")[2]: route["route"] for route in manager["route_config"]["virtual_hosts"][0]["routes"]}
    assert (actions["CancelOrder"]["cluster"], actions["CancelOrder"]["max_grpc_timeout"]) == ("control", "3s")
    assert (actions["CreateOrder"]["cluster"], actions["CreateOrder"]["max_grpc_timeout"]) == ("orders", "10s")
    assert (actions["StreamOrderEvents"]["timeout"], actions["StreamOrderEvents"]["idle_timeout"]) == ("0s", "90s")


def test_a_descriptor_without_its_imports_is_refused() -> None:
    from google.protobuf import descriptor_pb2

    lonely = descriptor_pb2.FileDescriptorProto(name="a.proto", dependency=["b.proto"])
    with pytest.raises(ContractError, match=r"b\.proto"):
        Contract(descriptor_pb2.FileDescriptorSet(file=[lonely]).SerializeToString())


def test_two_methods_of_one_door_are_refused() -> None:
    methods = installed().methods("trademesh.oms.v1.OrderService")
    with pytest.raises(ContractError, match="shares its door"):
        script([*methods, *methods], (), body_bytes_max=1, depth_max=1)


def test_the_transcoders_part_of_the_contract_has_bindings_and_no_rules() -> None:
    from google.protobuf import descriptor_pb2

    whole = installed()
    orders, operations = "trademesh.oms.v1.OrderService", "google.longrunning.Operations"
    wanted = {one.descriptor.full_name for service in (orders, operations) for one in whole.methods(service)}
    part = served_part(whole.descriptor_set, wanted)
    files = {file.name for file in descriptor_pb2.FileDescriptorSet.FromString(part).file}
    assert not files & {"buf/validate/validate.proto", "trademesh/oms/v1/events.proto", "trademesh/risk/v1/risk_service.proto"}
    assert {"google/rpc/error_details.proto", "google/protobuf/any.proto"} <= files
    found = Contract(part)
    for service in (orders, operations):
        assert [(one.path, one.bindings) for one in found.methods(service)] == [(one.path, one.bindings) for one in whole.methods(service)]


def test_the_transcoders_part_of_some_methods_has_their_types_alone() -> None:
    from google.protobuf import descriptor_pb2

    part = served_part(installed().descriptor_set, {"trademesh.reporting.v1.ReportingService.CreateReport"})
    files = {file.name: file for file in descriptor_pb2.FileDescriptorSet.FromString(part).file}
    (service,) = files["trademesh/reporting/v1/reporting_service.proto"].service
    assert [method.name for method in service.method] == ["CreateReport"]
    kinds = {f"{file.package}.{kind.name}" for file in files.values() for kind in file.message_type}
    # What the operation carries is named in no field.
    assert {f"trademesh.reporting.v1.{name}" for name in ("CreateReportRequest", "CreateReportMetadata", "Report")} <= kinds
    assert "google.longrunning.Operation" in kinds
    assert not kinds & {"google.longrunning.ListOperationsRequest", "trademesh.reporting.v1.GetReportRequest"}
    assert Contract(part).methods("trademesh.reporting.v1.ReportingService")
