"""The configuration of a service that has no settings of its own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from kernel.config import Secret

_SECRET = Secret("s" * 32)


@dataclass(frozen=True)
class Replica:
    """What `kernel.foundation` wants to know."""

    socket_path: Path
    telemetry_folder: Path | None = None
    instance: str = "svc_x-0"
    sidecar_secret: Secret = _SECRET
    otlp_endpoint: str | None = None
