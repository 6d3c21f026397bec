"""The door itself: bounds, slow clients, smuggling, browsers, WebSockets, new certificates and keys, what is logged."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingUnixStreamServer
from typing import Any

import grpc
import pytest

from mesh.edge.filters import LUA
from mesh.edge.options import Limits
from tests.integration.edge.backend import Backend, Orders
from tests.integration.edge.test_rest import ORDER, PATH
from tests.integration.edge.world import Edge, Issuer, running, until, write_certificate
from trademesh.oms.v1 import order_service_pb2 as oms

ORIGIN = "https://desk.test"


class Pages(BaseHTTPRequestHandler):
    """Plays svc_gateway: pages, tickets, and the first step of a WebSocket."""

    protocol_version = "HTTP/1.1"
    seen: list[tuple[str, dict[str, str]]] = []  # noqa: RUF012 (shared by all requests on purpose)

    def do_GET(self) -> None:
        self.seen.append((self.path, {name.lower(): value for name, value in self.headers.items()}))
        if self.headers.get("upgrade", "").lower() == "websocket":
            self.send_response(101)
            self.send_header("connection", "Upgrade")
            self.send_header("upgrade", "websocket")
            self.end_headers()
            self.wfile.write(b"hello")
            self.close_connection = True
            return
        self._answer(b"page")

    def do_POST(self) -> None:
        self.seen.append((self.path, {name.lower(): value for name, value in self.headers.items()}))
        self.rfile.read(int(self.headers.get("content-length", "0")))
        self._answer(b"ticket")

    def _answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the base class's name)
        return


@pytest.fixture(scope="module")
def pages(sockets: Path) -> Iterator[Path]:
    """Return the socket of a running gateway."""
    path = sockets / "gateway.sock"
    with ThreadingUnixStreamServer(str(path), Pages) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        yield path
        server.shutdown()
        thread.join(5)


@pytest.fixture(scope="module")
def edge(backend: Backend, pages: Path) -> Iterator[Edge]:
    """Return an edge with short bounds."""
    limits = Limits(headers_seconds=0.5, body_seconds=0.6, connection_idle_seconds=5)
    with running({"svc-oms": backend.socket, "svc-gateway": pages}, limits=limits, origins=(ORIGIN,)) as found:
        yield found


def test_pages_are_open_and_tickets_are_not(edge: Edge) -> None:
    for path in ("/docs", "/openapi.json"):
        assert edge.call("GET", path, token=None).body == b"page"
    assert edge.call("POST", "/v1/ws/tickets", {}, token=None).status == 401
    assert edge.call("POST", "/v1/ws/tickets", {}).body == b"ticket"
    assert edge.call("GET", "/docs/", token=None).status == 401
    assert edge.call("GET", "/docs/x").status == 404


def upgrade(edge: Edge, path: str, *lines: str) -> bytes:
    fixed = (
        "host: a",
        "connection: Upgrade",
        "upgrade: websocket",
        "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==",
        "sec-websocket-version: 13",
    )
    return edge.raw("\r\n".join((f"GET {path} HTTP/1.1", *fixed, *lines, "", "")).encode())


def test_a_websocket_opens_in_one_place(edge: Edge) -> None:
    assert upgrade(edge, "/v1/ws?ticket=t").startswith(b"HTTP/1.1 101")
    _, headers = Pages.seen[-1]
    assert "authorization" not in headers
    assert "x-trademesh-claims" not in headers
    assert upgrade(edge, "/v1/ws", f"authorization: Bearer {edge.issuer.token()}").startswith(b"HTTP/1.1 101")
    assert upgrade(edge, "/v1/ws", "authorization: Bearer wrong").startswith(b"HTTP/1.1 401")
    for path in ("/docs", PATH, "/v1/ws/tickets"):
        answer = upgrade(edge, path, f"authorization: Bearer {edge.issuer.token()}")
        assert answer.startswith(b"HTTP/1.1 404"), path
        assert b"METHOD_NOT_FOUND" in answer


def test_a_browsers_page_calls_from_where_it_may(edge: Edge, orders: Orders) -> None:
    asked = {"origin": ORIGIN, "access-control-request-method": "POST", "access-control-request-headers": "authorization,content-type"}
    preflight = edge.call("OPTIONS", PATH, token=None, headers=asked)
    assert preflight.status == 200
    assert preflight.headers["access-control-allow-origin"] == ORIGIN
    assert "authorization" in preflight.headers["access-control-allow-headers"]
    answer = edge.call("POST", PATH, ORDER, headers={"origin": ORIGIN})
    assert answer.headers["access-control-allow-origin"] == ORIGIN
    refused = edge.call("POST", PATH, ORDER, token=None, headers={"origin": ORIGIN})
    assert (refused.status, refused.headers["access-control-allow-origin"]) == (401, ORIGIN)
    strange = edge.call("OPTIONS", PATH, token=None, headers={**asked, "origin": "https://evil.test"})
    assert "access-control-allow-origin" not in strange.headers


def test_every_answer_bears_the_safe_headers(edge: Edge, orders: Orders) -> None:
    for answer in (edge.call("GET", PATH), edge.call("GET", PATH, token=None), edge.call("GET", "/none")):
        assert answer.headers["strict-transport-security"].startswith("max-age=")
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-store"
        assert "server" not in answer.headers
        assert not [name for name in answer.headers if name.startswith("x-envoy")]


@pytest.mark.parametrize(
    "lines",
    [
        "content-length: 5\r\ncontent-length: 6\r\n\r\nabcde",
        "content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "transfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        "transfer-encoding: xchunked\r\n\r\n0\r\n\r\n",
        "content-length: -1\r\n\r\n",
        "content-length: 1, 2\r\n\r\nab",
        "a b: c\r\n\r\n",
        "content_type: application/json\r\n\r\n",
        " folded: x\r\n\r\n",
    ],
)
def test_a_request_of_two_readings_is_refused(edge: Edge, orders: Orders, lines: str) -> None:
    token = edge.issuer.token()
    answer = edge.raw(f"POST {PATH} HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {token}\r\n{lines}".encode())
    assert answer.split(b" ", 2)[1] in {b"400", b"401"}, answer
    assert answer.count(b"HTTP/1.1 ") == 1
    assert b'"code":' in answer
    assert not orders.requests


def test_headers_are_bounded(edge: Edge) -> None:
    long = edge.call("GET", PATH, headers={"x-long": "a" * 20_000})
    assert (long.status, long.reason) == (431, "MESSAGE_TOO_LARGE")
    many = edge.call("GET", PATH, headers={f"x-{number}": "a" for number in range(100)})
    assert (many.status, many.reason) == (431, "MESSAGE_TOO_LARGE")


def test_a_slow_client_is_not_waited_for(edge: Edge, orders: Orders) -> None:
    head = f"POST {PATH} HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {edge.issuer.token()}\r\ncontent-type: application/json\r\n"
    assert b"408" in edge.raw(head.encode()).split(b"\r\n", 1)[0]
    answer = edge.raw((head + 'content-length: 50\r\n\r\n{"quantity":').encode())
    assert b"408" in answer.split(b"\r\n", 1)[0], answer
    assert b"DEADLINE_EXPIRED" in answer
    assert not orders.requests


def test_one_json_line_a_request_without_secrets(edge: Edge, orders: Orders) -> None:
    token = edge.issuer.token(sub="carol")
    edge.call("GET", f"{PATH}?page_token=secret-in-query", token=token)
    until(lambda: any(line["principal"] == "carol" for line in edge.log_lines()))
    (line,) = [line for line in edge.log_lines() if line["principal"] == "carol"]
    assert (line["method"], line["path"], line["status"], line["tenant"]) == ("GET", PATH, 200, "acme")
    assert line["rpc"] == "/trademesh.oms.v1.OrderService/ListOrders"
    written = edge.options.access_log.read_text()
    assert token not in written
    assert "secret-in-query" not in written


def test_a_new_certificate_needs_no_restart(edge: Edge, orders: Orders) -> None:
    def serial() -> object:
        connection = edge.connection()
        connection.connect()
        certificate = connection.sock.getpeercert()
        assert certificate is not None
        found = certificate["serialNumber"]
        connection.close()
        return found

    before = serial()
    edge.trust = write_certificate(edge.folder)

    def renewed() -> bool:
        try:
            return serial() != before
        except OSError:
            # Still the old one, which the new trust does not know.
            return False

    until(renewed)
    edge.close()
    assert edge.call("GET", PATH).status == 200


def test_new_keys_need_no_restart(backend: Backend, orders: Orders) -> None:
    with running({"svc-oms": backend.socket}) as edge:
        old, new = edge.issuer.token(), Issuer("k2")
        assert edge.call("GET", PATH, token=new.token()).status == 401
        edge.deploy(replace(edge.options, jwks=json.dumps({"keys": [edge.issuer.jwk(), new.jwk()]})))

        def taken(token: str) -> bool:
            edge.close()
            return edge.call("GET", PATH, token=token).status == 200

        until(lambda: taken(new.token()))
        assert taken(old)
        edge.deploy(replace(edge.options, jwks=json.dumps({"keys": [new.jwk()]})))
        until(lambda: not taken(old))
        assert taken(new.token())
        assert edge.process.poll() is None


def test_an_open_stream_outlives_new_keys(backend: Backend, orders: Orders) -> None:
    drain_seconds, silent_seconds = 1, 3.0
    orders.events = [oms.StreamOrderEventsResponse(sequence=1), silent_seconds, oms.StreamOrderEventsResponse(sequence=2)]
    with running({"svc-oms": backend.socket}, drain_seconds=drain_seconds) as edge, edge.channel() as channel:
        stream = channel.unary_stream("/trademesh.oms.v1.OrderService/StreamOrderEvents")
        request = oms.StreamOrderEventsRequest(account_id="ACC-1").SerializeToString()
        open_stream = stream(request, metadata=edge.metadata())
        next(open_stream)
        withdrawn, new = edge.issuer.token(), Issuer("k2")
        edge.deploy(replace(edge.options, jwks=json.dumps({"keys": [new.jwk()]})))
        until(lambda: edge.call("GET", PATH, token=withdrawn).status == 401)
        assert edge.call("GET", PATH, token=new.token()).status == 200
        # It ends with its token, which the service minds.
        assert oms.StreamOrderEventsResponse.FromString(next(open_stream)).sequence == 2
        assert open_stream.code() is grpc.StatusCode.OK


def test_an_open_stream_ends_within_the_drain_time_of_a_new_listener_and_no_request_fails(backend: Backend, orders: Orders) -> None:
    drain_seconds, silent_seconds = 2, 30.0
    orders.events = [oms.StreamOrderEventsResponse(sequence=1), silent_seconds, oms.StreamOrderEventsResponse(sequence=2)]
    with running({"svc-oms": backend.socket}, drain_seconds=drain_seconds) as edge, edge.channel() as channel:
        stream = channel.unary_stream("/trademesh.oms.v1.OrderService/StreamOrderEvents")
        request = oms.StreamOrderEventsRequest(account_id="ACC-1").SerializeToString()
        open_stream = stream(request, metadata=edge.metadata())
        next(open_stream)
        ended = threading.Event()
        open_stream.add_callback(ended.set)
        edge.deploy(replace(edge.options, origins=("https://desk.test",)))
        changed = time.monotonic()
        while not ended.is_set():
            assert edge.call("GET", PATH).status == 200
            assert time.monotonic() - changed < drain_seconds + 5
        assert open_stream.code() is not grpc.StatusCode.OK
        assert edge.call("GET", PATH).status == 200


def test_too_many_requests_of_one_user(backend: Backend, orders: Orders) -> None:
    with running({"svc-oms": backend.socket}, limits=Limits(user_requests_per_second=10, user_priority_requests_per_second=10)) as edge:
        answers = [edge.call("GET", PATH) for _ in range(5)]
        limited = [answer for answer in answers if answer.status == 429]
        assert limited
        assert answers[0].status == 200
        assert (limited[0].json["code"], limited[0].reason, limited[0].headers["retry-after"]) == (8, "QUOTA_EXCEEDED", "1")
        assert any(detail["@type"].endswith("RetryInfo") for detail in limited[0].json["details"])
        # Another user, and the same user's cancels, have buckets of their own.
        cancel = {"request_id": "9b2f0000-0000-7000-8000-000000000000"}
        assert edge.call("POST", f"{PATH}/9b2f0000-0000-7000-8000-000000000000:cancel", cancel).status == 200
        assert edge.call("GET", PATH, token=edge.issuer.token(sub="bob")).status == 200


def test_an_edge_without_memory_sheds_before_it_asks_who_calls(backend: Backend) -> None:
    with running({"svc-oms": backend.socket}, limits=Limits(heap_bytes_max=1024 * 1024)) as edge:
        # Envoy looks at its memory from time to time, not at every request.
        until(lambda: edge.call("GET", PATH, token=None).status == 429)
        answer = edge.call("GET", PATH, token=None)
        assert (answer.status, answer.json["code"], answer.reason) == (429, 8, "OVERLOADED")
        assert answer.headers["retry-after"] in ("1", "2")
        assert any(detail["@type"].endswith("RetryInfo") for detail in answer.json["details"])
        with edge.channel() as channel:
            method = channel.unary_unary("/trademesh.oms.v1.OrderService/CreateOrder")
            with pytest.raises(grpc.RpcError) as caught:
                method(b"", timeout=5)
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        trailers: dict[str, Any] = dict(getattr(caught.value, "trailing_metadata")())  # noqa: B009 (gRPC's types do not know it)
        assert b"RetryInfo" in trailers["grpc-status-details-bin"]


def test_too_many_requests_of_one_connection(backend: Backend, orders: Orders) -> None:
    with running({"svc-oms": backend.socket}, limits=Limits(connection_requests_per_second=10)) as edge:
        statuses = [edge.call("GET", "/none").status for _ in range(4)]
        assert 429 in statuses
        with edge.channel() as channel:
            method = channel.unary_unary("/trademesh.oms.v1.OrderService/None")
            assert any(_exhausted(method) for _ in range(20))


def _exhausted(method: Any) -> bool:
    """Say whether the connection's bucket was empty for a call."""
    try:
        method(b"")
    except grpc.RpcError as error:
        return bool(error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED)
    return False


def test_a_defect_in_the_checks_shuts_the_door(backend: Backend, orders: Orders) -> None:
    """Envoy passes on what a script fails at; the rules behind it want to hear from the script that it has looked."""

    def broken(manager: dict[str, Any]) -> None:
        (lua,) = [entry for entry in manager["http_filters"] if entry["name"] == LUA]
        lua["typed_config"]["default_source_code"]["inline_string"] = "function envoy_on_request(handle) error('a defect') end"

    with running({"svc-oms": backend.socket}, alter=broken) as edge:
        assert edge.call("POST", PATH, ORDER).status == 403
        with edge.channel() as channel, pytest.raises(grpc.RpcError) as caught:
            channel.unary_unary("/trademesh.oms.v1.OrderService/ListOrders")(b"", metadata=edge.metadata())
        error: Any = caught.value
        assert error.code() is grpc.StatusCode.PERMISSION_DENIED
    assert not orders.requests


def test_the_documents_are_one_line_of_json_each(edge: Edge) -> None:
    for name in ("bootstrap.json", "current/listeners.json", "current/clusters.json"):
        assert json.loads((edge.options.configuration / name).read_text())
