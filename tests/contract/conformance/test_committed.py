"""What Istio answered agrees with what is compiled; and each scalar of the manifests that is changed is noticed."""

from __future__ import annotations

import fnmatch
from pathlib import Path

import pytest
import yaml

from mesh.conformance.committed import istio_version, read
from mesh.conformance.differences import table
from mesh.conformance.render import ISTIO_VERSION, render
from mesh.conformance.run import compare, compiled
from mesh.conformance.workloads import shipped
from mesh.local.compiler import ManifestError, compile_outbound
from tests.contract.conformance.mutations import Leaf, Oracle, leaves, mutated

SILENT = Path(__file__).parent / "silent.yaml"


def test_what_is_compiled_is_what_istio_makes_of_it() -> None:
    answered = read()
    assert answered is not None
    rendered = render(shipped())
    compared = compare(answered, compiled(rendered), table())
    assert [str(item) for item in compared.judgement.unexplained] == []
    assert [str(item) for item in compared.judgement.unused] == []
    assert compared.workloads == len(rendered.proxies)


def test_the_answers_are_of_the_version_that_the_module_names() -> None:
    answered = read()
    assert answered is not None
    assert answered.inputs.istio == istio_version()
    # A workload presents itself as of the same line.
    assert ISTIO_VERSION.split(".")[:2] == ["1", "31"]


def test_the_edge_gets_the_clusters_and_routes_that_are_compared() -> None:
    """The edge is configured by another function of the compiler than sidecars are."""
    rendered = render(shipped())
    edge = next(proxy for proxy in rendered.proxies if proxy.service_account == "edge")
    outbound = compile_outbound(rendered.manifests, "edge", edge.certificates, locality=edge.locality)
    documents = compiled(rendered)[edge.instance]
    assert {item["name"]: item for item in outbound.clusters} == {item["name"]: item for item in documents.clusters}
    manager = documents.listeners[-1]["filter_chains"][0]["filters"][0]["typed_config"]
    hosts = {host["name"]: tuple(host["routes"]) for host in manager["route_config"]["virtual_hosts"] if host["name"] != "block_all"}
    assert dict(outbound.routes) == hosts


@pytest.fixture(scope="module")
def oracle() -> Oracle:
    return Oracle()


def test_every_scalar_that_changes_is_noticed_or_refused(oracle: Oracle, tmp_path: Path) -> None:
    excuses = yaml.safe_load(SILENT.read_text())
    unnoticed: list[str] = []
    excused: set[str] = set()
    for leaf in leaves():
        if _noticed(oracle, leaf, tmp_path):
            continue
        pattern = next((item["leaf"] for item in excuses if fnmatch.fnmatchcase(leaf.name, item["leaf"])), None)
        if pattern is None:
            unnoticed.append(leaf.name)
        else:
            excused.add(pattern)
    assert unnoticed == []
    assert [item["leaf"] for item in excuses if item["leaf"] not in excused] == []
    assert all(item["reason"] for item in excuses)


def _noticed(oracle: Oracle, leaf: Leaf, folder: Path) -> bool:
    try:
        return oracle.notices(mutated(leaf, folder), Path(leaf.file).stem)
    except ManifestError:
        return True
