"""What manifests say of single calls: faults, shares, headers, who calls, from which zone, and what is written down of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from mesh.local.compiler import Documents, compile_mesh, load, registry
from tests.unit.mesh.test_manifests import DESTINATION, ROUTE, RULE, TELEMETRY
from tests.unit.mesh.workloads import JWKS, MESH, PAIR, egress_routes, outbound_cluster, small, written

RISK = "svc-risk.trading.svc.cluster.local"
FAULT = "envoy.filters.http.fault"


def egress_filters(documents: Documents) -> list[str]:
    manager = documents.listeners[-1]["filter_chains"][0]["filters"][0]["typed_config"]
    return [item["name"].rpartition(".")[2] for item in manager["http_filters"]]


def test_a_fault_is_its_routes_and_brings_the_filter(tmp_path: Path) -> None:
    fault = "fault: {delay: {fixedDelay: 1.5s, percentage: {value: 12.5}}, abort: {grpcStatus: UNAVAILABLE, percentage: {value: 100}}}"
    documents = small(tmp_path / "m", f"{ROUTE}    - {{name: a, {fault}, {DESTINATION}}}}}]}}\n    - {{name: b, {DESTINATION}}}}}]}}")[
        "svc_oms-0"
    ]
    faulty, plain = egress_routes(documents, f"{RISK}:9000")
    assert faulty["typed_per_filter_config"][FAULT] == {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault",
        "delay": {"fixed_delay": "1.5s", "percentage": {"numerator": 125_000, "denominator": "MILLION"}},
        "abort": {"grpc_status": 14, "percentage": {"numerator": 1_000_000, "denominator": "MILLION"}},
    }
    assert "typed_per_filter_config" not in plain
    assert egress_filters(documents) == ["grpc_stats", "fault", "router"]
    assert egress_filters(small(tmp_path / "n")["svc_oms-0"]) == ["grpc_stats", "router"]


def test_shares_of_several_destinations(tmp_path: Path) -> None:
    shares = ", ".join(
        f"{{destination: {{host: {RISK}, subset: {name}}}, weight: {weight}}}" for name, weight in (("a", 90), ("b", 10), ("c", 0))
    )
    rule = f"{RULE}    {{}}\n  subsets: [{{name: a}}, {{name: b}}, {{name: c}}]\n---"
    documents = small(tmp_path / "m", f"{rule}{ROUTE}    - {{name: split, route: [{shares}]}}")["svc_oms-0"]
    [route] = egress_routes(documents, f"{RISK}:9000")
    assert route["route"]["weighted_clusters"] == {
        "clusters": [{"name": f"outbound|9000|a|{RISK}", "weight": 90}, {"name": f"outbound|9000|b|{RISK}", "weight": 10}]
    }
    assert "cluster" not in route["route"]


def test_headers_choose_a_route_in_the_order_of_their_names(tmp_path: Path) -> None:
    match = "match: [{headers: {x-b: {regex: 'v[0-9]+'}, x-a: {exact: one}}}]"
    documents = small(tmp_path / "m", f"{ROUTE}    - {{name: a, {match}, {DESTINATION}}}}}]}}")["svc_oms-0"]
    [route] = egress_routes(documents, f"{RISK}:9000")
    assert route["match"] == {
        "prefix": "/",
        "case_sensitive": True,
        "headers": [
            {"name": "x-a", "string_match": {"exact": "one"}},
            {"name": "x-b", "string_match": {"safe_regex": {"regex": "v[0-9]+"}}},
        ],
    }


def test_a_route_for_some_callers_is_seen_by_them_alone(tmp_path: Path) -> None:
    match = "match: [{sourceLabels: {app: svc-oms}}]"
    text = f"{ROUTE}    - {{name: own, {match}, {DESTINATION}}}}}]}}\n    - {{name: others, {DESTINATION}}}}}]}}"
    documents = small(tmp_path / "m", text)
    names = {name: [route["name"] for route in egress_routes(found, f"{RISK}:9000")] for name, found in documents.items()}
    assert names == {"svc_oms-0": ["own", "others"], "svc_risk-0": ["others"]}


DETECTION = "outlierDetection: {maxEjectionPercent: 50, interval: 1s, baseEjectionTime: 1s}"


def priorities(tmp_path: Path, policy: str, near: str, *zones: str) -> dict[str, int]:
    """Return the priority that a caller in a zone gives to one instance in each of some zones, by zone."""
    caller = replace(PAIR[0], locality=tuple(near.split("/")) if near else ())
    callees = [
        replace(PAIR[1], instance=f"svc_risk-{number}", address=f"127.77.1.{number}", locality=tuple(zone.split("/")) if zone else ())
        for number, zone in enumerate(zones)
    ]
    manifests = registry(load(written(tmp_path / "m", f"{RULE}    {policy}")), [caller, *callees])
    cluster = outbound_cluster(compile_mesh(manifests, [caller], JWKS)["svc_oms-0"], f"outbound|9000||{RISK}")
    groups: list[Any] = cluster["load_assignment"]["endpoints"]
    return {"/".join(group.get("locality", {}).values()): group.get("priority", 0) for group in groups}


def test_nearer_instances_come_first_and_priorities_have_no_gaps(tmp_path: Path) -> None:
    found = priorities(tmp_path, DETECTION, "eu/a/1", "eu/a/1", "eu/b/1", "us/a/1", "eu/a/2", "")
    assert found == {"eu/a/1": 0, "eu/a/2": 1, "eu/b/1": 2, "us/a/1": 3, "": 3}
    assert priorities(tmp_path, DETECTION, "us", "eu/a", "us/b") == {"us/b": 0, "eu/a": 1}
    assert priorities(tmp_path, DETECTION, "eu/a", "us/a", "us/b") == {"us/a": 0, "us/b": 0}


def test_without_outlier_detection_or_leave_to_all_instances_are_alike(tmp_path: Path) -> None:
    assert set(priorities(tmp_path, "loadBalancer: {simple: RANDOM}", "eu/a", "eu/a", "us/a").values()) == {0}
    off = f"loadBalancer: {{localityLbSetting: {{enabled: false}}}}\n    {DETECTION}"
    assert set(priorities(tmp_path, off, "eu/a", "eu/a", "us/a").values()) == {0}


PROVIDERS = f"""{MESH}
extensionProviders:
  - name: json
    envoyFileAccessLog: {{path: /dev/stdout, logFormat: {{labels: {{status: "%RESPONSE_CODE%", flags: "%RESPONSE_FLAGS%"}}}}}}
"""


def test_access_logs_of_both_directions_and_what_they_leave_out(tmp_path: Path) -> None:
    text = TELEMETRY.replace("{name: json}]", '{name: json}], filter: {expression: "response.code >= 500"}')
    for documents in small(tmp_path / "m", text, mesh=PROVIDERS).values():
        for listener in documents.listeners:
            manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
            [log] = manager["access_log"]
            assert log["typed_config"]["path"] == "/dev/stdout"
            assert log["typed_config"]["log_format"]["json_format"] == {"status": "%RESPONSE_CODE%", "flags": "%RESPONSE_FLAGS%"}
            assert log["filter"]["extension_filter"]["typed_config"]["expression"] == "response.code >= 500"


def test_a_gateway_and_its_routes_are_no_sidecars_matter(tmp_path: Path) -> None:
    text = """
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: edge, namespace: trading}
spec:
  selector: {istio: ingressgateway}
  servers: [{port: {number: 443, name: tls, protocol: TLS}, hosts: [api.example.com], tls: {mode: PASSTHROUGH}}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: edge, namespace: trading}
spec:
  hosts: [api.example.com]
  gateways: [edge]
  tls:
    - match: [{sniHosts: [api.example.com], port: 443}]
      route: [{destination: {host: edge.trading.svc.cluster.local, port: {number: 8443}}}]
"""
    assert small(tmp_path / "m", text) == small(tmp_path / "n")
