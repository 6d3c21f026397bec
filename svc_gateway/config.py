"""The configuration of a replica of the gateway: `TRADEMESH_*` of the environment."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from kernel.config import Dsn, Seconds, Secret, setting
from svc_gateway.domain.origins import ORIGIN_PATTERN


@dataclass(frozen=True, kw_only=True)
class GatewayConfig:
    """How one replica runs.

    Attributes:
        instance: the replica's name, such as `svc_gateway-0`.
        socket_path: the UNIX socket of gRPC health, for supervision; the folder is its own, mode 0700.
        http_socket_path: the UNIX socket of HTTP, in a folder of the same kind.
        sidecar_secret: what its sidecar adds to every call and request.
        token_key: seals tickets; one for all replicas, at least 32 characters.
        redis_url: where tickets are kept; unset, there are none, and only clients that send an Authorization header have sockets.
        allowed_origins: the web pages that may open sockets, such as `https://app.example.com`.
        oms_targets: svc_oms's replicas, such as `unix:/path`, or the sidecar's egress socket, `unix:/path?authority=host:9000`. So for each
            `*_targets`; calls to a service that is not configured are refused as UNAVAILABLE.
        headers_file: headers to attach to outbound calls, by target; unset where a sidecar does.
        openapi_file: the OpenAPI document; the one of the contracts that were installed unless given.
        token_url: where users get tokens, for the documentation page.
        call_seconds: the deadline of a unary call.
        ping_seconds: between pings to a client.
        sockets_max: open at a time.
        principal_sockets_max: open at a time for each user.
        calls_max: running at a time on each socket.
        telemetry_folder: where traces and metrics are written; unset writes none.
        otlp_endpoint: a collector; unset sends nothing.
    """

    instance: str = setting(pattern=r"[a-z][a-z0-9_-]{0,62}")
    socket_path: Path
    http_socket_path: Path
    sidecar_secret: Secret
    token_key: Secret
    redis_url: Dsn | None = None
    allowed_origins: tuple[str, ...] = setting((), pattern=ORIGIN_PATTERN)
    oms_targets: tuple[str, ...] = ()
    risk_targets: tuple[str, ...] = ()
    marketdata_targets: tuple[str, ...] = ()
    custody_targets: tuple[str, ...] = ()
    portfolio_targets: tuple[str, ...] = ()
    reporting_targets: tuple[str, ...] = ()
    headers_file: Path | None = None
    openapi_file: Path | None = None
    token_url: str | None = setting(None, pattern=r"https?://[\x21-\x7e]{1,512}")
    call_seconds: Seconds = setting(Seconds(5), minimum=0.1, maximum=60)
    ping_seconds: Seconds = setting(Seconds(20), minimum=1, maximum=300)
    sockets_max: int = setting(1_024, minimum=1, maximum=65_536)
    principal_sockets_max: int = setting(16, minimum=1, maximum=1_024)
    calls_max: int = setting(64, minimum=1, maximum=1_024)
    telemetry_folder: Path | None = None
    otlp_endpoint: str | None = None

    def targets(self) -> dict[str, tuple[str, ...]]:
        """Return the configured services by name, with their targets."""
        by_name = {
            "svc-oms": self.oms_targets,
            "svc-risk": self.risk_targets,
            "svc-marketdata": self.marketdata_targets,
            "svc-custody": self.custody_targets,
            "svc-portfolio": self.portfolio_targets,
            "svc-reporting": self.reporting_targets,
        }
        return {name: targets for name, targets in by_name.items() if targets}
