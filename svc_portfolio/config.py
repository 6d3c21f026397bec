"""The configuration of a replica of portfolio: `TRADEMESH_*` of the environment."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from kernel.config import ConfigError, Dsn, Secret, setting


@dataclass(frozen=True, kw_only=True)
class PortfolioConfig:
    """How one replica runs.

    Attributes:
        instance: the replica's name, such as `svc_portfolio-0`.
        socket_path: its UNIX socket; the folder is its own, mode 0700.
        sidecar_secret: what its sidecar adds to every call.
        database_dsn: its schema, as the runtime role.
        token_key: seals page and resume tokens; one for all replicas, at least 32 characters.
        oms_targets: svc_oms's replicas, such as `unix:/path`, or one authority of the mesh.
        risk_targets: svc_risk's.
        marketdata_targets: svc_marketdata's; empty, no position has a mark.
        price_venues: the venues whose prices are followed, such as `XSIM`; a price counts for instruments of its own venue only.
        headers_file: headers to attach to outbound calls, by target; unset where a sidecar does.
        redis_url: the bus; unset leaves consumers to read the logs.
        telemetry_folder: where traces and metrics are written; unset writes none.
        otlp_endpoint: a collector; unset sends nothing.
        trace_ratio: share of calls without a `traceparent` that are traced, in percent.
    """

    instance: str = setting(pattern=r"[a-z][a-z0-9_-]{0,62}")
    socket_path: Path
    sidecar_secret: Secret
    database_dsn: Dsn
    token_key: Secret
    oms_targets: tuple[str, ...]
    risk_targets: tuple[str, ...]
    marketdata_targets: tuple[str, ...] = ()
    price_venues: tuple[str, ...] = setting((), pattern=r"[A-Z0-9][A-Z0-9-]{0,31}")
    headers_file: Path | None = None
    redis_url: Dsn | None = None
    telemetry_folder: Path | None = None
    otlp_endpoint: str | None = None
    trace_ratio: int = setting(0, minimum=0, maximum=100)


def check(config: PortfolioConfig) -> PortfolioConfig:
    """Return the configuration if market data is described whole.

    Raises:
        ConfigError: venues without anybody to ask, or the other way round.
    """
    if bool(config.marketdata_targets) is not bool(config.price_venues):
        missing = "PRICE_VENUES" if config.marketdata_targets else "MARKETDATA_TARGETS"
        raise ConfigError([f"TRADEMESH_{missing}: is required where the other is given"])
    return config
