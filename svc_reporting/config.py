"""The configuration of a replica of reporting: `TRADEMESH_*` of the environment."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from kernel.config import Dsn, Secret, setting


@dataclass(frozen=True, kw_only=True)
class ReportingConfig:
    """How one replica runs.

    Attributes:
        instance: the replica's name, such as `svc_reporting-0`.
        socket_path: its UNIX socket; the folder is its own, mode 0700.
        sidecar_secret: what its sidecar adds to every call.
        database_dsn: its schema, as the runtime role.
        token_key: seals page tokens; one for all replicas, at least 32 characters.
        oms_targets: svc_oms's replicas, such as `unix:/path`, or one authority of the mesh.
        risk_targets: svc_risk's.
        custody_targets: svc_custody's; unset leaves blotters without settlements.
        headers_file: headers to attach to outbound calls, by target; unset where a sidecar does.
        redis_url: the bus; unset leaves consumers to read the logs.
        report_rows_max: rows of one report.
        report_bytes_max: bytes of one report's content.
        reports_pending_max: reports of one principal that are not ended.
        report_retention_days: how long the content of a complete report is kept.
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
    custody_targets: tuple[str, ...] = ()
    headers_file: Path | None = None
    redis_url: Dsn | None = None
    report_rows_max: int = setting(1_000_000, minimum=1, maximum=50_000_000)
    report_bytes_max: int = setting(512 * 1024 * 1024, minimum=1_024, maximum=16 * 1024 * 1024 * 1024)
    reports_pending_max: int = setting(5, minimum=1, maximum=100)
    report_retention_days: int = setting(7, minimum=1, maximum=3_650)
    telemetry_folder: Path | None = None
    otlp_endpoint: str | None = None
    trace_ratio: int = setting(0, minimum=0, maximum=100)
