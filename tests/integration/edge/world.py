"""A running edge: real Envoy with a certificate, an issuer's keys and tokens of this test run."""

from __future__ import annotations

import contextlib
import datetime
import http.client
import json
import shutil
import socket
import ssl
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import grpc
import jwt
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from kernel.identity import PEER_HEADER, SECRET_HEADER, xfcc
from mesh.edge.access import Grant, load
from mesh.edge.contract import Contract, installed
from mesh.edge.documents import CERTIFICATE_FILE, documents, server_certificate
from mesh.edge.launch import DRAIN_SECONDS, command, publish
from mesh.edge.options import EdgeOptions, Limits
from mesh.edge.routes import GATEWAY, ORDERS_SUBSET, authority
from mesh.local.ca import flip
from tests.chaos.administration import answered
from tests.integration.edge.backend import SECRET

ISSUER = "https://idp.test"
AUDIENCE = "trademesh"
START_SECONDS_MAX = 10.0

Json = dict[str, Any]


class Issuer:
    """Signs tokens (RFC 7519, ES256)."""

    def __init__(self, key_id: str = "k1") -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.key_id = key_id

    def jwk(self) -> Json:
        public: Json = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(self.key.public_key()))
        return {**public, "kid": self.key_id, "alg": "ES256", "use": "sig"}

    def token(self, **changes: Any) -> str:
        now = int(time.time())
        claims: Json = {"iss": ISSUER, "aud": AUDIENCE, "sub": "alice", "tenant": "acme", "roles": ["trader"], "accounts": ["ACC-1"]}
        claims |= {"iat": now, "exp": now + 600, **changes}
        kept = {name: value for name, value in claims.items() if value is not None}
        return jwt.encode(kept, self.key, algorithm="ES256", headers={"kid": self.key_id})


@dataclass
class Answer:
    """One HTTP answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def reason(self) -> str:
        """The reason of the ErrorInfo in a `google.rpc.Status`."""
        (info,) = [detail for detail in self.json["details"] if detail["@type"].endswith("google.rpc.ErrorInfo")]
        assert info["domain"] == "trademesh"
        return str(info["reason"])

    @property
    def violations(self) -> list[tuple[str, str]]:
        """Field and rule of each violation."""
        bad = [detail for detail in self.json["details"] if detail["@type"].endswith("google.rpc.BadRequest")]
        return [(item["field"], item["reason"]) for detail in bad for item in detail["field_violations"]]


@dataclass
class Edge:
    """A running edge."""

    port: int
    folder: Path
    issuer: Issuer
    options: EdgeOptions
    trust: Path
    process: subprocess.Popen[bytes]
    deploy: Callable[[EdgeOptions], None]
    _kept: list[http.client.HTTPSConnection] = field(default_factory=list)

    def tls(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.trust))

    def connection(self) -> http.client.HTTPSConnection:
        return http.client.HTTPSConnection("localhost", self.port, context=self.tls(), timeout=10)

    def call(self, method: str, path: str, body: Any = None, *, token: str | None = "", headers: Mapping[str, str] | None = None) -> Answer:
        """Make one request on a kept connection.

        `token` empty means a good one, None means none. A body that is no bytes is sent as JSON.
        """
        sent = dict(headers or {})
        if token is not None:
            sent.setdefault("authorization", f"Bearer {token or self.issuer.token()}")
        if body is not None:
            sent.setdefault("content-type", "application/json")
            body = body if isinstance(body, bytes) else json.dumps(body).encode()
        for attempt in (1, 2):
            connection = self._kept.pop() if self._kept else self.connection()
            try:
                connection.request(method, path, body=body, headers=sent)
                response = connection.getresponse()
                answer = Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
            except (http.client.RemoteDisconnected, ConnectionError):
                connection.close()
                if attempt == 2:
                    raise
                continue
            if response.will_close:
                connection.close()
            else:
                self._kept.append(connection)
            return answer
        raise AssertionError("unreachable")

    def raw(self, request: bytes) -> bytes:
        """Send bytes over TLS (HTTP/1.1) and read until the other side closes or is silent."""
        plain = socket.create_connection(("127.0.0.1", self.port), timeout=1.0)
        with self.tls().wrap_socket(plain, server_hostname="localhost") as tls:
            tls.sendall(request)
            found = b""
            with contextlib.suppress(TimeoutError):
                while part := tls.recv(65_536):
                    found += part
            return found

    @contextlib.contextmanager
    def channel(self) -> Iterator[Any]:
        credentials = grpc.ssl_channel_credentials(self.trust.read_bytes())
        options = (("grpc.use_local_subchannel_pool", 1),)
        with grpc.secure_channel(f"localhost:{self.port}", credentials, options=options) as channel:
            yield channel

    def metadata(self, token: str = "") -> tuple[tuple[str, str], ...]:
        return (("authorization", f"Bearer {token or self.issuer.token()}"),)

    def stat(self, pattern: str) -> int:
        """Return the sum of Envoy's numbers whose names match a pattern."""
        answer = answered(self.options.admin_socket, f"/stats?format=json&filter={quote(pattern)}")
        return sum(int(entry["value"]) for entry in answer["stats"] if "value" in entry)

    def log_lines(self) -> list[Json]:
        return [json.loads(line) for line in self.options.access_log.read_text().splitlines()]

    def close(self) -> None:
        """Close the kept connections; the next call opens one."""
        for connection in self._kept:
            connection.close()
        self._kept.clear()


def cluster(name: str, socket_path: Path, *, http2: bool = True, requests_max: int | None = None) -> Json:
    kind = "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    protocol: Json = {"http2_protocol_options": {}} if http2 else {"http_protocol_options": {}}
    endpoint = {"endpoint": {"address": {"pipe": {"path": str(socket_path)}}}}
    bounded: Json = {"circuit_breakers": {"thresholds": [{"max_requests": requests_max}]}} if requests_max is not None else {}
    return {
        **bounded,
        "name": name,
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]},
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {"@type": kind, "explicit_http_config": protocol}
        },
    }


def mesh_routes(grants: Sequence[Grant], sockets: Mapping[str, Path], timeout: str = "0s") -> tuple[list[Json], dict[str, list[Json]]]:
    """What the mesh's compiler would export: a cluster and a route for each workload; those without a socket get one where nobody is."""
    clusters, routes = [], {}
    for workload, port, http2 in [*sorted({(grant.workload, 9_000, True) for grant in grants}), (GATEWAY, 8_080, False)]:
        host = authority(workload, port)
        name = f"outbound|{port}||{host.rpartition(':')[0]}"
        clusters.append(cluster(name, sockets.get(workload, Path("/nowhere/at.sock")), http2=http2))
        routes[host] = [
            {"name": "default", "match": {"prefix": "/", "case_sensitive": True}, "route": {"cluster": name, "timeout": timeout}}
        ]
    return clusters, routes


@dataclass(frozen=True)
class Pool:
    """A pool of order entry: who is behind it, and how many requests it takes at a time."""

    socket: Path
    requests_max: int


def _entry(pool: Pool) -> tuple[Json, list[Json]]:
    """Return the pool's cluster, as a subset of the order service's, and the routes of single and many orders to it."""
    host = authority("svc-oms", 9_000)
    name = f"outbound|9000|{ORDERS_SUBSET}|{host.rpartition(':')[0]}"
    paths = [f"/trademesh.oms.v1.OrderService/{method}" for method in ("CreateOrder", "BatchCreateOrders")]
    routes = [{"name": path, "match": {"path": path}, "route": {"cluster": name, "timeout": "0s"}} for path in paths]
    return cluster(name, pool.socket, requests_max=pool.requests_max), routes


@contextlib.contextmanager
def running(
    sockets: Mapping[str, Path],
    *,
    contract: Contract | None = None,
    grants: Sequence[Grant] | None = None,
    limits: Limits | None = None,
    origins: tuple[str, ...] = (),
    issuer: Issuer | None = None,
    timeout: str = "0s",
    entry: Pool | None = None,
    drain_seconds: int = DRAIN_SECONDS,
    alter: Callable[[Json], None] = lambda manager: None,
) -> Iterator[Edge]:
    """Run an edge in front of workloads' sockets until the block ends."""
    folder = Path(tempfile.mkdtemp(prefix="tme-", dir="/tmp"))
    contract = contract or installed()
    grants = load(contract) if grants is None else grants
    issuer = issuer or Issuer()
    trust = write_certificate(folder)
    options = EdgeOptions(
        port=free_port(),
        certificates=folder / "tls",
        configuration=folder / "configuration",
        admin_socket=folder / "admin.sock",
        issuer=ISSUER,
        audience=AUDIENCE,
        jwks=json.dumps({"keys": [issuer.jwk()]}),
        access_log=folder / "access.log",
        origins=origins,
        limits=limits or Limits(),
    )
    clusters, routes = mesh_routes(grants, sockets, timeout)
    if entry is not None:
        pool, first = _entry(entry)
        clusters.append(pool)
        routes[authority("svc-oms", 9_000)][:0] = first

    def deploy(changed: EdgeOptions) -> None:
        found = documents(changed, contract, clusters, routes, grants)
        # What the services' own sidecars would add.
        peer = xfcc("edge", trust_domain="trademesh.local", namespace="trading")
        added = [{"header": {"key": key, "value": value}} for key, value in ((SECRET_HEADER, SECRET), (PEER_HEADER, peer))]
        manager = found.listeners[0]["filter_chains"][0]["filters"][0]["typed_config"]
        manager["route_config"]["virtual_hosts"][0]["request_headers_to_add"] = added
        alter(manager)
        publish(changed, found)

    deploy(options)
    with (folder / "envoy.log").open("wb") as log:
        process = subprocess.Popen(command(options.configuration, drain_seconds=drain_seconds), stdout=log, stderr=subprocess.STDOUT)
    edge = Edge(options.port, folder, issuer, options, trust, process, deploy)
    try:
        _await(edge)
        yield edge
    finally:
        edge.close()
        process.terminate()
        process.wait(10)
        shutil.rmtree(folder)


def _await(edge: Edge) -> None:
    deadline = time.monotonic() + START_SECONDS_MAX
    while time.monotonic() < deadline:
        if edge.process.poll() is not None:
            break
        with contextlib.suppress(OSError):
            edge.call("GET", "/v1/limits", token=None)
            return
        time.sleep(0.02)
    raise AssertionError(f"the edge did not start: {(edge.folder / 'envoy.log').read_text()[-4000:]}")


def write_certificate(folder: Path) -> Path:
    """Make a certificate for `localhost`, self-signed, and publish it for the edge; return the file that clients trust."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    tls = folder / "tls"
    tls.mkdir(mode=0o700, exist_ok=True)
    number = certificate.serial_number
    chain, private = tls / f"{number}.pem", tls / f"{number}.key"
    chain.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    flip(tls, {CERTIFICATE_FILE: server_certificate(chain.read_text(), private.read_text())})
    return chain


def until(condition: Callable[[], bool]) -> None:
    """Return once a condition holds; at most eight seconds."""
    deadline = time.monotonic() + 8
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
