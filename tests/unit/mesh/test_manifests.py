"""What is refused before anything is compiled, and in which words: file, object, field."""

from __future__ import annotations

from pathlib import Path

import pytest

from mesh.local.compiler import ManifestError, compile_mesh, load, registry
from mesh.local.sidecar import MANIFESTS
from tests.unit.mesh.workloads import BASE, JWKS, MESH, PAIR, small, written

RULE = """
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: svc-risk, namespace: trading}
spec:
  host: svc-risk.trading.svc.cluster.local
  trafficPolicy:
"""
ROUTE = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: svc-risk, namespace: trading}
spec:
  hosts: [svc-risk.trading.svc.cluster.local]
  http:
"""
TELEMETRY = """
apiVersion: telemetry.istio.io/v1
kind: Telemetry
metadata: {name: failures, namespace: trading}
spec:
  accessLogging: [{providers: [{name: json}]}]
"""
DESTINATION = "route: [{destination: {host: svc-risk.trading.svc.cluster.local"
OTHER = "{destination: {host: svc-oms.trading.svc.cluster.local}"


@pytest.mark.parametrize(
    ("text", "finding"),
    [
        (f"{RULE}    tls: {{mode: SIMPLE}}", "DestinationRule/svc-risk: spec.trafficPolicy.tls.mode: must be ISTIO_MUTUAL, not 'SIMPLE'"),
        (f"{RULE}    tlz: {{mode: ISTIO_MUTUAL}}", "DestinationRule/svc-risk: spec.trafficPolicy.tlz: is not in the subset"),
        (
            f"{RULE}    connectionPool: {{tcp: {{connectTimeout: 5}}}}",
            "DestinationRule/svc-risk: spec.trafficPolicy.connectionPool.tcp.connectTimeout: must be a duration such as",
        ),
        (
            f"{RULE}    connectionPool: {{tcp: {{connectTimeout: 0.1ms}}}}",
            "spec.trafficPolicy.connectionPool.tcp.connectTimeout: must be at least 1ms, in whole milliseconds",
        ),
        (
            f"{RULE}    outlierDetection: {{interval: 1s, baseEjectionTime: 1s}}",
            "spec.trafficPolicy.outlierDetection.maxEjectionPercent: is required",
        ),
        (f"{RULE}    connectionPool: {{http: {{http2MaxRequests: true}}}}", "http2MaxRequests: must be a whole number from 1"),
        (f"{RULE}    retryBudget: {{percent: 101}}", "spec.trafficPolicy.retryBudget.percent: must be a whole number from 0 to 100"),
        (
            f"{ROUTE}    - {{name: a, {DESTINATION}, subset: blue}}}}]}}",
            "VirtualService/svc-risk: spec.http[0].route[0].destination.subset: svc-risk.trading.svc.cluster.local has no subset blue",
        ),
        (
            f"{ROUTE}    - {{name: a, {DESTINATION}, port: {{number: 9001}}}}}}]}}",
            "spec.http[0].route[0].destination.port.number: svc-risk.trading.svc.cluster.local has no port 9001",
        ),
        (
            f"{ROUTE}    - {{name: a, match: [{{uri: {{exact: /a, prefix: /b}}}}], {DESTINATION}}}}}]}}",
            "spec.http[0].match[0].uri: must have exactly one of exact, prefix",
        ),
        (f"{ROUTE}    - {{name: a, mirror: {{}}, {DESTINATION}}}}}]}}", "spec.http[0].mirror: is not in the subset"),
        (f"{ROUTE}    - {{name: a, fault: {{}}, {DESTINATION}}}}}]}}", "spec.http[0].fault: must have one or more of delay, abort"),
        (
            f"{ROUTE}    - {{name: a, fault: {{abort: {{httpStatus: 503, percentage: {{value: 0.00001}}}}}}, {DESTINATION}}}}}]}}",
            "spec.http[0].fault.abort.percentage.value: must be a percentage from 0 to 100 with at most four decimals, not 1e-05",
        ),
        (
            f"{ROUTE}    - {{name: a, fault: {{abort: {{grpcStatus: GONE, percentage: {{value: 1}}}}}}, {DESTINATION}}}}}]}}",
            "spec.http[0].fault.abort.grpcStatus: must be OK or CANCELLED or",
        ),
        (
            f"{ROUTE}    - {{name: a, fault: {{abort: {{percentage: {{value: 1}}}}}}, {DESTINATION}}}}}]}}",
            "spec.http[0].fault.abort: must have exactly one of httpStatus, grpcStatus",
        ),
        (
            f"{ROUTE}    - {{name: a, {DESTINATION}}}}}, {OTHER}, weight: 1}}]}}",
            "spec.http[0].route: of several destinations each needs a weight",
        ),
        (
            f"{ROUTE}    - {{name: a, {DESTINATION}}}, weight: 0}}, {OTHER}, weight: 0}}]}}",
            "spec.http[0].route: the weights add up to nothing",
        ),
        (f"{ROUTE}    - {{name: a, match: [{{}}], {DESTINATION}}}}}]}}", "spec.http[0].match[0]: must have one or more of uri, headers"),
        (f"{ROUTE}    - {{name: a, {DESTINATION}}}}}]}}\n  tls: []", "spec.tls: must be a list of at least 1"),
        (
            f"{ROUTE}    - {{name: a, {DESTINATION}}}}}]}}\n  gateways: [edge]",
            "VirtualService/svc-risk: spec.http: is not in the subset for gateways",
        ),
        (
            f"{ROUTE}    - {{name: a, {DESTINATION}}}}}]}}\n  gateways: [edge]",
            "VirtualService/svc-risk: spec.gateways[0]: no Gateway is called edge",
        ),
        (ROUTE.removesuffix("  http:\n"), "VirtualService/svc-risk: spec.http: is required"),
        (
            TELEMETRY,
            "case.yaml: Telemetry/failures: spec.accessLogging[0].providers[0].name: no extension provider is called json",
        ),
        (
            f"{TELEMETRY}---{TELEMETRY.replace('failures', 'others')}",
            "case.yaml: Telemetry/others: spec: failures applies to the same workload; merging is not in the subset",
        ),
        (RULE.replace("DestinationRule", "EnvoyFilter"), "case.yaml: EnvoyFilter/svc-risk: kind: must be one of AuthorizationPolicy"),
        (f"{RULE.replace('io/v1', 'io/v1beta1')}    {{}}", "DestinationRule/svc-risk: apiVersion: must be networking.istio.io/v1"),
        ("kind: Sidecar", "case.yaml: object.metadata: is required"),
        ("- 1", "case.yaml: object: must be a mapping, not [1]"),
        (f"{RULE}    {{}}\n---{RULE}    {{}}", "DestinationRule/svc-risk: metadata.name: stands in case.yaml already"),
        (f"{RULE.replace('svc-risk.', 'svc-x.')}    {{}}", "DestinationRule/svc-risk: spec.host: no service is called svc-x."),
        (f"{RULE}    {{}}\n  host: again", "case.yaml: cannot be read: key 'host' stands twice"),
        ("a: [", "case.yaml: cannot be read: while parsing"),
        ("a: !!python/object/apply:os.getcwd []", "case.yaml: cannot be read: could not determine a constructor"),
    ],
)
def test_a_manifest_outside_the_subset_is_refused_with_file_object_and_field(tmp_path: Path, text: str, finding: str) -> None:
    with pytest.raises(ManifestError) as refusal:
        small(tmp_path / "m", text)
    assert finding in str(refusal.value)
    assert all(problem.startswith("case.yaml: ") for problem in refusal.value.problems)


def test_everything_that_is_wrong_is_named_at_once(tmp_path: Path) -> None:
    text = f"{RULE}    tls: {{mode: OFF}}\n    loadBalancer: {{simple: RANDOMLY}}\n    surprise: 1"
    with pytest.raises(ManifestError) as refusal:
        small(tmp_path / "m", text, mesh=MESH.replace("REGISTRY_ONLY", "ALLOW_ANY"))
    assert len(refusal.value.problems) == 4
    assert any(problem.startswith("mesh.yaml: MeshConfig.outboundTrafficPolicy.mode: ") for problem in refusal.value.problems)


def test_a_mesh_without_its_configuration_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"has no mesh\.yaml"):
        load(tmp_path)


def test_plaintext_is_never_what_comes_of_silence(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="PERMISSIVE, is not in the subset"):
        small(tmp_path / "m", base=BASE.partition("---")[2])


def test_ports_of_manifest_and_workload_agree(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"Sidecar/svc-oms: spec\.ingress: opens ports \[9001\], and svc_oms-0 serves \[9000\]"):
        small(tmp_path / "m", base=BASE.replace("9000", "9001", 1))


def test_two_sidecars_for_one_workload_are_one_too_many(tmp_path: Path) -> None:
    second = BASE.split("---")[1].replace("name: svc-oms,", "name: second,")
    second = "\n".join(line for line in second.splitlines() if "ingress" not in line)
    with pytest.raises(ManifestError, match=r"Sidecar/svc-oms: spec\.workloadSelector: second selects the same workload"):
        small(tmp_path / "m", second)


def test_tokens_need_keys(tmp_path: Path) -> None:
    text = """
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: users, namespace: trading}
spec: {jwtRules: [{issuer: "https://unknown", audiences: [trademesh], fromHeaders: [{name: Authorization}]}]}
"""
    with pytest.raises(
        ManifestError, match=r"RequestAuthentication/users: spec\.jwtRules\[0\]\.issuer: no keys are known of https://unknown"
    ):
        small(tmp_path / "m", text)


def test_another_issuer_takes_the_named_ones_place_everywhere(tmp_path: Path) -> None:
    local = registry(load(MANIFESTS).with_issuer("https://issuer.trademesh.local", "http://127.0.0.1:9"), PAIR)
    text = str([item.spec for item in local.objects if item.kind != "DestinationRule"])
    assert "https://issuer.trademesh.local'" not in text
    assert "https://issuer.trademesh.local/*" not in text
    assert "http://127.0.0.1:9/*" in text
    assert compile_mesh(local, PAIR, {"http://127.0.0.1:9": JWKS["https://issuer.trademesh.local"]})


def test_a_manifest_of_any_length_is_bounded(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="is longer than"):
        load(written(tmp_path / "m", "#" * 300_000))
