"""The configuration of a replica of custody: `TRADEMESH_*` of the environment."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from kernel.config import Dsn, Seconds, Secret, setting


@dataclass(frozen=True, kw_only=True)
class CustodyConfig:
    """How one replica runs.

    Attributes:
        instance: the replica's name, such as `svc_custody-0`.
        socket_path: its UNIX socket; the folder is its own, mode 0700.
        sidecar_secret: what its sidecar adds to every call.
        database_dsn: its schema, as the runtime role.
        token_key: seals page tokens; one for all replicas, at least 32 characters.
        firm_tenant: the tenant that runs the firm: it alone sees the trial balance of all tenants and moves the sandbox's date.
        oms_targets: svc_oms's replicas, such as `unix:/path`, or one authority of the mesh.
        risk_targets: svc_risk's replicas, likewise.
        headers_file: headers to attach to outbound calls, by target; unset where a sidecar does.
        redis_url: the bus; unset leaves consumers to read the logs.
        sandbox_clock: whether operations may advance the business date ahead of the wall clock. Never where money is real.
        affirm_seconds: from an instruction to its automatic affirmation.
        business_time_zone: IANA time zone in which the firm's days begin.
        business_currency: whose bank holidays are no business days of the firm.
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
    oms_targets: tuple[str, ...]
    risk_targets: tuple[str, ...]
    headers_file: Path | None = None
    redis_url: Dsn | None = None
    sandbox_clock: bool = False
    affirm_seconds: Seconds = setting(Seconds(5), minimum=0, maximum=86_400)
    business_time_zone: str = setting("America/New_York", pattern=r"[A-Za-z0-9_+/-]{1,64}")
    business_currency: str = setting("USD", pattern=r"[A-Z]{3,8}")
    telemetry_folder: Path | None = None
    otlp_endpoint: str | None = None
    trace_ratio: int = setting(0, minimum=0, maximum=100)
