"""What manifests become: Istio's meaning and Istio's defaults, in Envoy's words."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mesh.local.compiler import Documents, compile_outbound
from mesh.local.compiler.schema import UINT32_MAX, duration
from tests.unit.mesh.golden import EXPECTED, texts
from tests.unit.mesh.test_manifests import DESTINATION, ROUTE, RULE
from tests.unit.mesh.workloads import MESH, compiled, egress_routes, inbound_filters, outbound_cluster, shipped, small, workloads

RISK = "svc-risk.trading.svc.cluster.local"
OMS = "svc-oms.trading.svc.cluster.local"


@pytest.mark.parametrize("name", sorted(texts()))
def test_the_sample_is_compiled_to_what_was_read_and_accepted(name: str) -> None:
    assert json.loads(texts()[name]) == json.loads((EXPECTED / name).read_text())


def test_the_same_manifests_make_the_same_bytes() -> None:
    first, second = compiled(), compiled()
    assert {name: json.dumps(item.static()) for name, item in first.items()} == {
        name: json.dumps(item.static()) for name, item in second.items()
    }


@pytest.mark.parametrize(
    ("written", "seconds"),
    [("1s", "1s"), ("1.50s", "1.5s"), ("100ms", "0.1s"), ("20m", "1200s"), ("1h", "3600s"), ("1ms", "0.001s"), ("0.5h", "1800s")],
)
def test_durations_are_written_in_seconds(written: str, seconds: str) -> None:
    problems: list[str] = []
    assert duration(written, "x", problems) == seconds
    assert not problems


@pytest.mark.parametrize("written", ["1", "0s", "0.5ms", "1.5ms", "-1s", "1d", "s", "1.s", "1e3s", "1 s", "1h30m", "", None, 1.5])
def test_other_durations_are_none(written: object) -> None:
    problems: list[str] = []
    duration(written, "x", problems)
    assert len(problems) == 1


def test_where_manifests_are_silent_istios_defaults_hold(tmp_path: Path) -> None:
    documents = small(tmp_path / "m")["svc_oms-0"]
    cluster = outbound_cluster(documents, f"outbound|9000||{RISK}")
    assert cluster["connect_timeout"] == "10s"
    assert cluster["lb_policy"] == "LEAST_REQUEST"
    [threshold] = cluster["circuit_breakers"]["thresholds"]
    assert threshold == {
        "max_connections": UINT32_MAX,
        "max_pending_requests": UINT32_MAX,
        "max_requests": UINT32_MAX,
        "max_retries": UINT32_MAX,
        "track_remaining": True,
    }
    assert "outlier_detection" not in cluster
    [route] = egress_routes(documents, f"{RISK}:9000")
    assert route["route"]["timeout"] == "0s"
    assert route["route"]["retry_policy"]["num_retries"] == 2
    assert "unavailable" in route["route"]["retry_policy"]["retry_on"]
    # No policy allows everything, and no rule about tokens looks at none.
    assert [item["name"] for item in inbound_filters(documents)] == ["envoy.filters.http.grpc_stats", "envoy.filters.http.router"]


def test_a_subset_replaces_whole_parts_of_the_hosts_policy(tmp_path: Path) -> None:
    text = f"""{RULE}    connectionPool: {{tcp: {{maxConnections: 5}}, http: {{http2MaxRequests: 7}}}}
    retryBudget: {{percent: 20}}
  subsets:
    - name: plain
    - {{name: own, trafficPolicy: {{connectionPool: {{tcp: {{maxConnections: 1}}}}}}}}
    - {{name: none, labels: {{version: "2"}}}}"""
    documents = small(tmp_path / "m", text)["svc_oms-0"]
    thresholds = {
        subset: outbound_cluster(documents, f"outbound|9000|{subset}|{RISK}")["circuit_breakers"]["thresholds"][0]
        for subset in ("", "plain", "own", "none")
    }
    assert thresholds["plain"] == thresholds[""]
    assert (thresholds["own"]["max_connections"], thresholds["own"]["max_requests"]) == (1, UINT32_MAX)
    assert thresholds["own"]["retry_budget"] == {"budget_percent": {"value": 20}, "min_retry_concurrency": 3}
    assert outbound_cluster(documents, f"outbound|9000|none|{RISK}")["load_assignment"]["endpoints"] == []


def test_retries_come_from_the_route_else_from_the_mesh(tmp_path: Path) -> None:
    text = f"""{ROUTE}    - {{name: none, match: [{{uri: {{exact: /a}}}}], retries: {{attempts: 0}}, {DESTINATION}}}}}]}}
    - {{name: own, match: [{{uri: {{prefix: /b}}}}], timeout: 1.5s, retries: {{attempts: 3, retryOn: unavailable}}, {DESTINATION}}}}}]}}
    - {{name: other, {DESTINATION}}}}}]}}"""
    documents = small(tmp_path / "m", text, mesh=f"{MESH}defaultHttpRetryPolicy: {{attempts: 1, retryOn: connect-failure}}\n")["svc_oms-0"]
    none, own, other = egress_routes(documents, f"{RISK}:9000")
    assert "retry_policy" not in none["route"]
    assert (own["match"]["prefix"], own["route"]["timeout"], own["route"]["max_grpc_timeout"]) == ("/b", "1.5s", "1.5s")
    assert (own["route"]["retry_policy"]["num_retries"], own["route"]["retry_policy"]["retry_on"]) == (3, "unavailable")
    assert (other["route"]["retry_policy"]["num_retries"], other["route"]["retry_policy"]["retry_on"]) == (1, "connect-failure")


def test_only_what_a_sidecar_lists_can_be_called(tmp_path: Path) -> None:
    documents = small(tmp_path / "m")
    authorities = [
        [domain for host in _virtual_hosts(documents[name]) for domain in host["domains"]] for name in ("svc_oms-0", "svc_risk-0")
    ]
    assert authorities == [[f"{RISK}:9000", "*"], [f"{OMS}:9000", f"{RISK}:9000", "*"]]
    assert egress_routes(documents["svc_oms-0"], "*")[0]["direct_response"] == {"status": 502}


def _virtual_hosts(documents: Documents) -> list[dict[str, list[str]]]:
    manager = documents.listeners[-1]["filter_chains"][0]["filters"][0]["typed_config"]
    found: list[dict[str, list[str]]] = manager["route_config"]["virtual_hosts"]
    return found


def test_tokens_come_before_policies_and_denials_before_permissions(tmp_path: Path) -> None:
    sample = json.loads(texts()["svc_oms-0.json"])
    listener = sample["listeners.json"]["resources"][0]
    filters = listener["filter_chains"][0]["filters"][0]["typed_config"]["http_filters"]
    assert [item["name"].rpartition(".")[2] for item in filters] == ["jwt_authn", "rbac", "rbac", "grpc_stats", "router"]
    assert [item["typed_config"]["rules"]["action"] for item in filters[1:3]] == ["DENY", "ALLOW"]


def test_deny_all_allows_nothing_and_takes_nothing_away(tmp_path: Path) -> None:
    text = """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: deny-all, namespace: trading}
spec: {}
"""
    rbac = inbound_filters(small(tmp_path / "m", text)["svc_oms-0"])[0]["typed_config"]
    assert rbac["rules"] == {"action": "ALLOW", "policies": {}}


def test_every_host_is_known_by_the_names_of_its_workloads() -> None:
    for documents in compiled().values():
        for cluster in documents.clusters:
            if cluster["name"].startswith("outbound|"):
                host = cluster["name"].rpartition("|")[2]
                context = cluster["transport_socket"]["typed_config"]["common_tls_context"]["validation_context"]
                names = context["match_typed_subject_alt_names"]
                expected = f"spiffe://trademesh.local/ns/trading/sa/{host.partition('.')[0]}"
                assert names == [{"san_type": "URI", "matcher": {"exact": expected}}]


def test_the_edge_gets_clusters_and_routes_of_what_it_may_call() -> None:
    found = compile_outbound(shipped(workloads()), "edge", Path("/run/mesh/edge/certificates"))
    names = {cluster["name"] for cluster in found.clusters}
    assert {f"outbound|9000|orders|{OMS}", f"outbound|9000|control|{OMS}", f"outbound|9000||{RISK}"} <= names
    by_name = {route["name"]: route["route"]["cluster"] for route in found.routes[f"{OMS}:9000"]}
    assert by_name["order-entry"] == f"outbound|9000|orders|{OMS}"
    assert by_name["cancels"] == f"outbound|9000|control|{OMS}"
    assert {route["route"]["cluster"] for routes in found.routes.values() for route in routes} <= names


def test_every_pool_says_how_much_of_it_may_be_taken_away_and_control_loses_none_to_answers() -> None:
    found = compile_outbound(shipped(workloads()), "edge", Path("/run/mesh/edge/certificates"))
    for cluster in found.clusters:
        detection = cluster["outlier_detection"]
        assert (detection["max_ejection_percent"], detection["interval"], detection["base_ejection_time"]) == (50, "1s", "1s")
        if "|control|" in cluster["name"]:
            assert detection["enforcing_consecutive_gateway_failure"] == 0
            assert detection["enforcing_consecutive_5xx"] == 0
