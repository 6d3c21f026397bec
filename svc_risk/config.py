"""The configuration of a replica of risk: `TRADEMESH_*` of the environment."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from kernel.config import TARGET_PATTERN, ConfigError, Dsn, Seconds, Secret, setting


@dataclass(frozen=True, kw_only=True)
class RiskConfig:
    """How one replica runs.

    Attributes:
        instance: the replica's name, such as `svc_risk-0`.
        socket_path: its UNIX socket; the folder is its own, mode 0700.
        sidecar_secret: what its sidecar adds to every call.
        database_dsn: its schema, as the runtime role.
        token_key: seals page tokens; one for all replicas, at least 32 characters.
        firm_tenant: the tenant that runs the firm: it alone sets default, trader and instrument limits, firm-wide switches and instruments.
        oms_targets: svc_oms's replicas, such as `unix:/path`, or the sidecar's egress socket, `unix:/path?authority=host:9000`.
        headers_file: headers to attach to outbound calls, by target; unset where a sidecar does.
        redis_url: the bus; unset leaves consumers to read the log.
        marketdata_targets: svc_marketdata's replicas, likewise; without them no price is ever fresh, and no order is approved.
        price_venue: the venue whose reference prices are followed there; they count for instruments of this venue only.
        orphan_seconds: how long a reservation may stay unconfirmed before svc_oms is asked; above three times the longest transaction.
        telemetry_folder: where traces and metrics are written; unset writes none.
        otlp_endpoint: a collector; unset sends nothing.
        trace_ratio: share of calls without a `traceparent` that are traced, in percent.
    """

    instance: str = setting(pattern=r"[a-z][a-z0-9_-]{0,62}")
    socket_path: Path
    sidecar_secret: Secret
    database_dsn: Dsn
    token_key: Secret
    firm_tenant: str = setting(pattern=r"[\x21-\x7e]{1,64}")
    oms_targets: tuple[str, ...] = setting(pattern=TARGET_PATTERN)
    headers_file: Path | None = None
    redis_url: Dsn | None = None
    marketdata_targets: tuple[str, ...] = setting((), pattern=TARGET_PATTERN)
    price_venue: str | None = setting(None, pattern=r"[A-Z0-9][A-Z0-9-]{0,31}")
    orphan_seconds: Seconds = setting(Seconds(30), minimum=30, maximum=3_600)
    telemetry_folder: Path | None = None
    otlp_endpoint: str | None = None
    trace_ratio: int = setting(0, minimum=0, maximum=100)


def check(config: RiskConfig) -> RiskConfig:
    """Return the configuration if the source of prices is described whole.

    Raises:
        ConfigError: a venue without anybody to ask, or the other way round.
    """
    if bool(config.marketdata_targets) is not (config.price_venue is not None):
        missing = "PRICE_VENUE" if config.marketdata_targets else "MARKETDATA_TARGETS"
        raise ConfigError([f"TRADEMESH_{missing}: is required where the other is given"])
    return config
