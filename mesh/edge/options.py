"""What the operator of an edge decides."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path

_ORIGIN = re.compile(r"https?://[a-z0-9.-]+(:[0-9]{1,5})?")
_SECRET_JWK_MEMBERS = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds on what clients may ask of an edge; every one holds for one Envoy.

    Attributes:
        body_bytes_max: of a JSON request; gRPC messages are bounded by the services.
        response_bytes_max: of a unary answer that becomes JSON.
        json_depth_max: objects and arrays within each other.
        headers_kilobytes_max: of a request.
        headers_max: of a request, in number.
        connections_max: at the same time.
        heap_bytes_max: of the edge; near it, requests are refused before anything is known of them, until memory is free again.
        streams_max: requests at the same time on one HTTP/2 connection.
        connection_requests_per_second: of one connection, before anything is known of its user.
        user_requests_per_second: of one user, counted by the token's `sub`.
        user_priority_requests_per_second: of one user, for methods with priority (cancels, kill switches).
        users_max: whose rates are remembered at a time.
        headers_seconds: within which a request's headers have to be there.
        body_seconds: within which a JSON body has to be there.
        stream_idle_seconds: after which a silent stream ends; above the longest heartbeat interval, 60 seconds.
        connection_idle_seconds: after which a connection without requests is closed.
        drain_seconds: between telling a client that its connection ends (after new routes or limits) and taking no more requests on it.
    """

    body_bytes_max: int = 1024 * 1024
    response_bytes_max: int = 8 * 1024 * 1024
    json_depth_max: int = 32
    headers_kilobytes_max: int = 16
    headers_max: int = 64
    connections_max: int = 4_096
    heap_bytes_max: int = 512 * 1024 * 1024
    streams_max: int = 256
    connection_requests_per_second: int = 20_000
    user_requests_per_second: int = 10_000
    user_priority_requests_per_second: int = 5_000
    users_max: int = 1_024
    headers_seconds: float = 5.0
    body_seconds: float = 10.0
    stream_idle_seconds: float = 90.0
    connection_idle_seconds: float = 300.0
    drain_seconds: float = 10.0

    def __post_init__(self) -> None:
        wrong = [name for name in self.__slots__ if not getattr(self, name) > 0]
        if wrong:
            raise ValueError(f"limits must be above zero: {', '.join(wrong)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class EdgeOptions:
    """Where and for whom an edge serves.

    Attributes:
        address: to listen on.
        port: of TCP.
        certificates: directory of the server certificate: Envoy reads `current/edge.json` (see `documents.server_certificate`), again
            whenever something is moved into the directory.
        configuration: directory of the edge's own documents in `current`, watched likewise.
        admin_socket: Envoy's administration, a UNIX socket of mode 0600.
        issuer: of tokens, compared with `iss`.
        audience: that tokens are for, one of `aud`.
        jwks: the issuer's public keys (RFC 7517), as JSON text.
        access_log: a file for one JSON line a request.
        origins: of browsers' pages that may call, such as `https://desk.example.com`; none by default.
        source_address: from which it calls services; the system's choice by default.
        limits: bounds on what clients may ask.

    Raises:
        ValueError: an origin, the key set, the port or a name is malformed; the key set holds a private key.
    """

    address: str = "127.0.0.1"
    port: int
    certificates: Path
    configuration: Path
    admin_socket: Path
    issuer: str
    audience: str
    jwks: str
    access_log: Path = Path("/dev/stdout")
    origins: tuple[str, ...] = ()
    source_address: str | None = None
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        if not 0 < self.port < 65_536:
            raise ValueError(f"port: not a port of TCP: {self.port}")
        if not self.issuer or not self.audience:
            raise ValueError("issuer and audience: must not be empty")
        wrong = [origin for origin in self.origins if _ORIGIN.fullmatch(origin) is None]
        if wrong:
            raise ValueError(f"origins: not of the form scheme://host[:port]: {', '.join(wrong)}")
        _check_jwks(self.jwks)


def _check_jwks(text: str) -> None:
    try:
        document = json.loads(text)
    except ValueError:
        raise ValueError("jwks: not JSON") from None
    keys = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(keys, list) or not keys or not all(isinstance(key, dict) and "kty" in key for key in keys):
        raise ValueError("jwks: needs `keys` with at least one key")
    # A symmetric key would make every verifier an issuer, and a private one has no business here.
    if any(key["kty"] == "oct" or _SECRET_JWK_MEMBERS & key.keys() for key in keys):
        raise ValueError("jwks: holds a secret; public keys only")
