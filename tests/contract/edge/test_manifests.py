"""The edge on the mesh's own manifests: every method has a route, cancels keep theirs, and Envoy takes the whole."""

from __future__ import annotations

import datetime
import json
import subprocess
from pathlib import Path

from mesh.edge.access import load
from mesh.edge.contract import installed
from mesh.edge.documents import documents
from mesh.edge.filters import FULL
from mesh.edge.launch import command
from mesh.edge.options import EdgeOptions
from mesh.local.ca import Authority, publish_certificate
from mesh.local.compiler import compile_outbound
from mesh.local.compiler.documents import Documents
from mesh.local.compiler.proxies import NAMESPACE
from mesh.local.compiler.tls import spiffe_id
from mesh.local.operator import TRUST_DOMAIN
from tests.integration.edge.world import AUDIENCE, ISSUER, Issuer, write_certificate
from tests.unit.mesh.workloads import shipped, workloads


def made(folder: Path) -> Documents:
    """Return the edge's documents on the shipped manifests, with the files that they speak of."""
    authority = Authority.open(folder / "ca", trust_domain=TRUST_DOMAIN, now=lambda: datetime.datetime.now(datetime.UTC))
    publish_certificate(folder / "identity", authority.issue(spiffe_id(TRUST_DOMAIN, NAMESPACE, "edge"), seconds=60))
    write_certificate(folder)
    outbound = compile_outbound(shipped(workloads(folder)), "edge", folder / "identity")
    options = EdgeOptions(
        port=8443,
        certificates=folder / "tls",
        configuration=folder / "configuration",
        admin_socket=folder / "admin.sock",
        issuer=ISSUER,
        audience=AUDIENCE,
        jwks=json.dumps({"keys": [Issuer().jwk()]}),
        access_log=folder / "access.log",
    )
    contract = installed()
    served = [grant for grant in load(contract) if f"{grant.workload}.trading.svc.cluster.local:9000" in outbound.routes]
    assert {grant.workload for grant in served} == {grant.workload for grant in load(contract)}
    return documents(options, contract, outbound.clusters, outbound.routes, served)


def test_envoy_takes_the_edge_of_the_shipped_mesh(tmp_path: Path) -> None:
    path = tmp_path / "static.json"
    path.write_text(json.dumps(made(tmp_path).static()))
    program, *_ = command(tmp_path)
    result = subprocess.run([program, "--mode", "validate", "-c", str(path)], capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0, result.stderr[-2000:]


def test_methods_keep_what_the_mesh_says_of_them(tmp_path: Path) -> None:
    found = made(tmp_path)
    manager = found.listeners[0]["filter_chains"][0]["filters"][0]["typed_config"]
    routes = {route["name"].rpartition("/")[2]: route["route"] for route in manager["route_config"]["virtual_hosts"][0]["routes"]}
    names = {cluster["name"] for cluster in found.clusters}
    methods = [action for action in routes.values() if "cluster" in action]
    assert {action["cluster"] for action in methods} <= names
    assert "|control|" in routes["CancelOrder"]["cluster"]
    assert "|orders|" in routes["CreateOrder"]["cluster"]
    # A write is never sent twice by a proxy once it has left.
    retried = routes["CreateOrder"].get("retry_policy", {}).get("retry_on", "")
    assert set(retried.split(",")) <= {"", "connect-failure", "refused-stream"}
    # What adds to a full pool is refused at the door, and nothing else is.
    everything = manager["route_config"]["virtual_hosts"][0]["routes"]
    gated = {route["name"].rpartition("/")[2] for route in everything if FULL in route.get("typed_per_filter_config", {})}
    assert gated == {"CreateOrder", "BatchCreateOrders", "ReplaceOrder"}
    assert routes["StreamOrderEvents"]["timeout"] == "0s"
    assert float(routes["CreateOrder"]["max_grpc_timeout"].removesuffix("s")) >= 10
