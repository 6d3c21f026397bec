"""What the edge says where a service does not answer: never more than is known of the outcome."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_status import rpc_status

from kernel.errors import OutcomeUnknownError
from kernel.status import from_status
from tests.integration.edge.world import Edge, running

LIMITS = "/v1/limits"
BUSINESS_DATE = "/v1/businessDate"


@pytest.fixture(scope="module")
def edge(sockets: Path) -> Iterator[Edge]:
    """Return an edge: risk takes connections and says nothing, custody hangs up once it has a request."""
    with socket.socket(socket.AF_UNIX) as silent, socket.socket(socket.AF_UNIX) as rude:
        for listener, name in ((silent, "silent"), (rude, "rude")):
            listener.bind(str(sockets / name))
            listener.listen(16)
        thread = threading.Thread(target=_hang_up, args=(rude,), daemon=True)
        thread.start()
        with running({"svc-risk": sockets / "silent", "svc-custody": sockets / "rude"}, timeout="0.3s") as found:
            yield found
        rude.shutdown(socket.SHUT_RDWR)
        thread.join(5)


def _hang_up(listener: socket.socket) -> None:
    """Answer the preface of HTTP/2, and close where the first request's headers come."""
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        with connection, contextlib.suppress(OSError):
            connection.settimeout(5)
            connection.sendall(b"\0\0\0\4\0\0\0\0\0")
            found = b""
            while b"\x01\x04\0\0\0\x01" not in found and (part := connection.recv(65_536)):
                found += part


def test_silence_leaves_the_outcome_unknown(edge: Edge) -> None:
    answer = edge.call("GET", LIMITS, token=edge.issuer.token(roles=["admin"]))
    assert (answer.status, answer.json["code"], answer.reason) == (504, 4, "OUTCOME_UNKNOWN"), answer.body
    assert "retry-after" not in answer.headers


def test_a_lost_connection_leaves_the_outcome_unknown(edge: Edge) -> None:
    answer = edge.call("GET", BUSINESS_DATE)
    # Not 14, which clients may take for "nothing was done".
    assert (answer.status, answer.json["code"], answer.reason) == (503, 2, "OUTCOME_UNKNOWN"), answer.body
    assert "retry-after" not in answer.headers


@pytest.mark.parametrize(
    ("path", "roles"),
    [("/trademesh.custody.v1.CustodyService/GetBusinessDate", ["trader"]), ("/trademesh.risk.v1.RiskService/ListLimits", ["admin"])],
)
def test_grpc_clients_hear_the_same(edge: Edge, path: str, roles: list[str]) -> None:
    with edge.channel() as channel, pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary(path)(b"", metadata=edge.metadata(edge.issuer.token(roles=roles)))
    error: Any = caught.value
    if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
        return
    assert error.code() is grpc.StatusCode.UNKNOWN
    found = rpc_status.from_call(error)
    assert found is not None
    assert isinstance(from_status(found), OutcomeUnknownError)
