"""A Kubernetes API with nothing in it, on loopback: istiod starts no service registry without one.

Every list is empty, no object exists, nothing can be written, and a watch says nothing until it ends. What istiod configures comes from
its directory of files alone.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

_METADATA_LIST = "PartialObjectMetadataList"
_WATCH_SECONDS = 3600.0


@contextmanager
def empty_cluster() -> Iterator[str]:
    """Serve it; yields a kubeconfig."""
    server = _Server(("127.0.0.1", 0), _Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, name="empty-cluster")
    thread.start()
    try:
        yield _kubeconfig(f"http://127.0.0.1:{server.server_port}")
    finally:
        server.ended.set()
        server.shutdown()
        server.server_close()
        thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        super().__init__(address, handler)
        self.ended = threading.Event()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """istiod leaves in the middle of its watches."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        query = parse_qs(parts.query)
        if parts.path == "/version":
            self._answer(200, {"major": "1", "minor": "37", "gitVersion": "v1.37.0"})
        elif "watch" in query and "sendInitialEvents" in query:
            self._refuse(400, "BadRequest")
        elif "watch" in query:
            self._watch()
        elif _is_list(parts.path):
            kind = {"kind": _METADATA_LIST, "apiVersion": "meta.k8s.io/v1"} if _METADATA_LIST in self.headers.get("accept", "") else {}
            self._answer(200, {**kind, "metadata": {"resourceVersion": "1"}, "items": []})
        else:
            self._refuse(404, "NotFound")

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("content-length", "0")))
        self._refuse(403, "Forbidden")

    do_PUT = do_PATCH = do_DELETE = do_POST  # noqa: N815 (the base class's names)

    def log_message(self, *arguments: Any) -> None:
        """Nobody reads along."""

    def _answer(self, status: int, body: dict[str, Any]) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _refuse(self, status: int, reason: str) -> None:
        self._answer(status, {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "code": status})

    def _watch(self) -> None:
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("connection", "close")
        self.end_headers()
        self.wfile.flush()
        self.server.ended.wait(_WATCH_SECONDS)
        self.close_connection = True


def _is_list(path: str) -> bool:
    """Tell `…/pods` from `…/pods/name`: groups have a name more than the core, and objects in namespaces two."""
    names = path.strip("/").split("/")
    rest = names[2:] if names[0] == "api" else names[3:]
    return len(rest) == 1 or (len(rest) == 3 and rest[0] == "namespaces")


def _kubeconfig(address: str) -> str:
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "empty",
            "clusters": [{"name": "empty", "cluster": {"server": address}}],
            "users": [{"name": "nobody", "user": {}}],
            "contexts": [{"name": "empty", "context": {"cluster": "empty", "user": "nobody"}}],
        }
    )
