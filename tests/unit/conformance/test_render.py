"""What istiod is started with, and how its answers are kept."""

from __future__ import annotations

import http.client
import json
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from mesh.conformance.ads import CLUSTER, ENDPOINT, LISTENER, ROUTE
from mesh.conformance.cluster import empty_cluster
from mesh.conformance.committed import Committed, Inputs, Overlay, inputs, read, write
from mesh.conformance.pods import pods
from mesh.conformance.render import documents, node, render
from mesh.conformance.workloads import KEYS, shipped


def test_only_sidecars_differ_for_bound_sockets() -> None:
    rendered = render(shipped())
    for plain, bound in zip(rendered.objects, rendered.none_mode(), strict=True):
        assert (plain == bound) is (plain["kind"] != "Sidecar")
        if bound["kind"] == "Sidecar":
            (egress,) = bound["spec"]["egress"]
            assert egress["captureMode"] == "NONE"
            assert egress["hosts"] == [host for listener in plain["spec"]["egress"] for host in listener["hosts"]]


def test_files_are_passed_on_as_they_are_but_for_the_keys_of_tokens() -> None:
    rendered = render(shipped())
    written = list(documents(shipped()))
    for original, passed in zip(written, rendered.policies, strict=True):
        if original["kind"] == "RequestAuthentication":
            assert all(rule["jwks"] == KEYS and "jwksUri" not in rule for rule in passed["spec"]["jwtRules"])
        else:
            assert passed == original
    assert {item["kind"] for item in rendered.registered} == {"ServiceEntry", "WorkloadEntry"}


def test_every_workload_is_there_twice_at_addresses_of_their_own() -> None:
    rendered = render(shipped())
    accounts = [proxy.service_account for proxy in rendered.proxies]
    assert {"edge", "svc-gateway", "svc-oms"} <= set(accounts)
    assert all(accounts.count(account) == 2 for account in accounts)
    assert len({node(proxy, interception="NONE")["metadata"]["INSTANCE_IPS"] for proxy in rendered.proxies}) == len(accounts)


def test_pods_have_the_labels_that_selectors_look_for() -> None:
    rendered = render(shipped())
    labels = [item["metadata"]["labels"] for item in pods(rendered.manifests, rendered.proxies) if item["kind"] == "Pod"]
    assert {"app": "svc-oms"} in labels
    assert {"istio": "ingressgateway"} in labels


def test_another_manifest_is_another_question(tmp_path: Path) -> None:
    for path in shipped().glob("*.yaml"):
        (tmp_path / path.name).write_text(path.read_text())
    before = inputs(render(tmp_path), tmp_path)
    assert before == inputs(render(tmp_path), tmp_path)
    mesh = yaml.safe_load((tmp_path / "mesh.yaml").read_text())
    (tmp_path / "mesh.yaml").write_text(yaml.safe_dump({**mesh, "connectTimeout": "2s"}))
    after = inputs(render(tmp_path), tmp_path)
    assert (after.asked, after.sources) != (before.asked, before.sources)


def test_a_comment_is_no_other_question(tmp_path: Path) -> None:
    for path in shipped().glob("*.yaml"):
        (tmp_path / path.name).write_text(path.read_text())
    before = inputs(render(tmp_path), tmp_path)
    with (tmp_path / "trading.yaml").open("a") as file:
        file.write("# A remark.\n")
    after = inputs(render(tmp_path), tmp_path)
    assert after.asked == before.asked
    assert after.sources != before.sources


def test_answers_are_kept_whole_and_each_resource_once(tmp_path: Path) -> None:
    shared = {CLUSTER: [{"name": "c", "type": "EDS"}], ENDPOINT: [{"cluster_name": "c"}], LISTENER: [], ROUTE: []}
    other = {**shared, CLUSTER: [{"name": "c", "type": "STATIC"}]}
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "n"}}
    overlays = {name: Overlay({"findings": []}, [], [namespace]) for name in ("one", "two")}
    runs = {"sockets": {"a-0": shared, "a-1": shared, "b-0": other}, "redirect": {"a-0": shared}}
    answers = Committed(Inputs("v", "a", "s"), runs, {"findings": []}, overlays)
    write(answers, tmp_path / "expected")
    assert read(tmp_path / "expected") == answers
    assert len((tmp_path / "expected" / "resources" / f"{CLUSTER}.jsonl").read_text().splitlines()) == 2
    assert len((tmp_path / "expected" / "overlays.jsonl").read_text().splitlines()) == 1


def test_nothing_committed_is_said_so(tmp_path: Path) -> None:
    assert read(tmp_path) is None


def test_a_cluster_with_nothing_in_it_answers_lists_and_refuses_the_rest() -> None:
    with empty_cluster() as kubeconfig:
        place = urlsplit(json.loads(kubeconfig)["clusters"][0]["cluster"]["server"]).netloc
        for path in ("/api/v1/pods", "/api/v1/namespaces/x/pods", "/apis/apps/v1/deployments", "/apis/apps/v1/namespaces/x/deployments"):
            status, body = ask(place, "GET", path)
            assert (status, body["items"]) == (200, []), path
        for path in ("/api/v1/namespaces/x", "/api/v1/namespaces/x/pods/y", "/apis/apps/v1/namespaces/x/deployments/y"):
            assert ask(place, "GET", path)[0] == 404, path
        assert ask(place, "POST", "/api/v1/pods")[0] == 403


def ask(place: str, method: str, path: str) -> tuple[int, Any]:
    connection = http.client.HTTPConnection(place, timeout=5)
    connection.request(method, path, body=b"{}" if method == "POST" else None)
    answer = connection.getresponse()
    found = answer.status, json.loads(answer.read())
    connection.close()
    return found
