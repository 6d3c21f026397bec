"""The order service's configuration: `TRADEMESH_*` of the environment, and the file that names its venues."""

from __future__ import annotations

import json
import re
import stat
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from kernel.config import TARGET_PATTERN, ConfigError, Dsn, Seconds, Secret, setting

VENUES_FILE_BYTES_MAX = 256 * 1024
VENUES_MAX = 64

_NAME = re.compile(r"[A-Z0-9][A-Z0-9._-]{0,31}", re.ASCII)
_TEXT = re.compile(r"[\x21-\x7e]{1,64}", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class OmsConfig:
    """How one replica runs.

    Attributes:
        instance: the replica's name, such as `svc_oms-0`.
        socket_path: its UNIX socket; the folder is its own, mode 0700.
        sidecar_secret: what its sidecar adds to every call.
        database_dsn: its schema, as the runtime role.
        token_key: seals page and resume tokens; one for all replicas, at least 32 characters.
        risk_targets: svc_risk's replicas, such as `unix:/path`, or the sidecar's egress socket, `unix:/path?authority=host:9000`.
        headers_file: headers to attach to outbound calls, by target; unset where a sidecar does.
        redis_url: the bus; unset leaves consumers to read the log.
        venues_file: venue sessions (`Venue`), mode 0600; unset routes nothing, and orders end NOT_SENT_IN_TIME.
        telemetry_folder: where traces and metrics are written; unset writes none.
        otlp_endpoint: a collector; unset sends nothing.
        trace_ratio: share of calls without a `traceparent` that are traced, in percent.
        risk_timeout_seconds: how long a batch waits for risk.
        order_flushes_max: batches of new orders under way at once; above 1, orders of two batches may change places.
        order_batch_max: new orders in one batch; a BatchCreateOrders has up to 500.
    """

    instance: str = setting(pattern=r"[a-z][a-z0-9_-]{0,62}")
    socket_path: Path
    sidecar_secret: Secret
    database_dsn: Dsn
    token_key: Secret
    risk_targets: tuple[str, ...] = setting(pattern=TARGET_PATTERN)
    headers_file: Path | None = None
    redis_url: Dsn | None = None
    venues_file: Path | None = None
    telemetry_folder: Path | None = None
    otlp_endpoint: str | None = None
    trace_ratio: int = setting(0, minimum=0, maximum=100)
    risk_timeout_seconds: Seconds = setting(Seconds(1.5), minimum=0.05, maximum=30)
    order_flushes_max: int = setting(1, minimum=1, maximum=8)
    order_batch_max: int = setting(500, minimum=500, maximum=1000)


@dataclass(frozen=True, slots=True)
class Venue:
    """A venue and our FIX session there.

    Attributes:
        venue: its name, which risk gives to orders of its instruments.
        host: where its FIX port listens.
        port: of TCP.
        sender: our CompID.
        target: the venue's CompID.
        username: of the Logon (553), empty for none.
        password: of the Logon (554), empty for none.
        heartbeat_seconds: proposed in the Logon (108).
    """

    venue: str
    host: str
    port: int
    sender: str
    target: str
    username: str = ""
    password: str = field(default="", repr=False)
    heartbeat_seconds: int = 10

    def problems(self) -> list[str]:
        """Return what is wrong with it, in sentences without secrets."""
        found = [
            f"{name}: must be 1 to 64 printable characters" for name in ("host", "sender", "target") if not _is_text(getattr(self, name))
        ]
        found += [
            f"{name}: must be printable text"
            for name in ("username", "password")
            if getattr(self, name) and not _is_text(getattr(self, name))
        ]
        if not _is_text(self.venue) or _NAME.fullmatch(self.venue) is None:
            found.append(f"venue: must match {_NAME.pattern}")
        if not _is_integer(self.port, 1, 65_535):
            found.append("port: must be 1 to 65535")
        if not _is_integer(self.heartbeat_seconds, 1, 300):
            found.append("heartbeat_seconds: must be 1 to 300")
        return found


def load_venues(path: Path | None) -> tuple[Venue, ...]:
    """Read `{"venues": [{"venue", "host", "port", "sender", "target", "username"?, "password"?, "heartbeat_seconds"?}, …]}`.

    Raises:
        ConfigError: not readable, readable by others, or not of that form; names venue and field, never a secret.
    """
    if path is None:
        return ()
    try:
        mode = path.stat().st_mode
        content = path.read_bytes()[: VENUES_FILE_BYTES_MAX + 1]
    except OSError as error:
        raise ConfigError([f"TRADEMESH_VENUES_FILE: cannot be read: {path} ({error.strerror})"]) from error
    if stat.S_IMODE(mode) & 0o077:
        raise ConfigError([f"TRADEMESH_VENUES_FILE: holds passwords and may be read by others: {path} must have mode 0600"])
    try:
        document = json.loads(content) if len(content) <= VENUES_FILE_BYTES_MAX else None
    except (ValueError, RecursionError):
        document = None
    listed = document.get("venues") if isinstance(document, dict) and set(document) == {"venues"} else None
    if not isinstance(listed, list) or len(listed) > VENUES_MAX:
        raise ConfigError([f'TRADEMESH_VENUES_FILE: must be an object {{"venues": [...]}} with at most {VENUES_MAX} venues'])
    problems: list[str] = []
    venues = [venue for number, item in enumerate(listed) if (venue := _venue(item, f"venues[{number}]", problems)) is not None]
    if len({venue.venue for venue in venues}) != len(venues):
        problems.append("TRADEMESH_VENUES_FILE: a venue is named twice")
    if problems:
        raise ConfigError(problems)
    return tuple(venues)


def _venue(item: Any, where: str, problems: list[str]) -> Venue | None:
    known = {entry.name for entry in fields(Venue)}
    required = {"venue", "host", "port", "sender", "target"}
    if not isinstance(item, dict) or not required <= set(item) <= known:
        problems.append(
            f"TRADEMESH_VENUES_FILE: {where} must have {', '.join(sorted(required))} and may have {', '.join(sorted(known - required))}"
        )
        return None
    venue = Venue(**item)
    problems.extend(f"TRADEMESH_VENUES_FILE: {where}.{problem}" for problem in venue.problems())
    return venue


def _is_text(value: object) -> bool:
    return isinstance(value, str) and _TEXT.fullmatch(value) is not None


def _is_integer(value: object, least: int, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most
