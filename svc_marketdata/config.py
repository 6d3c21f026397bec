"""The configuration of a replica of market data: `TRADEMESH_*` of the environment."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path
from typing import NamedTuple

from kernel.config import ConfigError, Dsn, Secret, setting

_ADDRESS = r"[0-9.]{7,15}:[0-9]{1,5}"
_HOST = r"[0-9.]{7,15}"

Address = tuple[str, int]


class FeedAddresses(NamedTuple):
    """Where a feed comes from.

    Attributes:
        lines: where to bind for line A and line B.
        requests: the re-request server.
        snapshots: the snapshot server.
        sources: addresses whose datagrams are taken; all others are dropped and counted.
    """

    lines: tuple[Address, Address]
    requests: Address
    snapshots: Address
    sources: frozenset[str]


@dataclass(frozen=True, kw_only=True)
class MarketDataConfig:
    """How one replica runs.

    Attributes:
        instance: the replica's name, such as `svc_marketdata-0`.
        socket_path: its UNIX socket; the folder is its own, mode 0700.
        sidecar_secret: what its sidecar adds to every call.
        database_dsn: its schema, as the runtime role.
        token_key: seals page and resume tokens; one for all replicas, at least 32 characters.
        venue: the venue whose feed is received.
        itch_a: where to bind for the feed's line A, `host:port` with a numeric IPv4 address. Every replica has its own lines.
        itch_b: the same for line B.
        itch_rerequest: the MoldUDP64 re-request server.
        itch_snapshot: the SoupBinTCP snapshot server.
        itch_sources: numeric IPv4 addresses whose datagrams are taken.
        telemetry_folder: where traces and metrics are written; unset writes none.
        otlp_endpoint: a collector; unset sends nothing.
        trace_ratio: share of calls without a `traceparent` that are traced, in percent.
    """

    instance: str = setting(pattern=r"[a-z][a-z0-9_-]{0,62}")
    socket_path: Path
    sidecar_secret: Secret
    database_dsn: Dsn
    token_key: Secret
    venue: str = setting(pattern=r"[A-Z0-9][A-Z0-9-]{0,31}")
    itch_a: str = setting(pattern=_ADDRESS)
    itch_b: str = setting(pattern=_ADDRESS)
    itch_rerequest: str = setting(pattern=_ADDRESS)
    itch_snapshot: str = setting(pattern=_ADDRESS)
    itch_sources: tuple[str, ...] = setting(pattern=_HOST)
    telemetry_folder: Path | None = None
    otlp_endpoint: str | None = None
    trace_ratio: int = setting(0, minimum=0, maximum=100)


def feed_addresses(config: MarketDataConfig) -> FeedAddresses:
    """Return where the feed comes from.

    Raises:
        ConfigError: an address that is none, a port of 0 or above 65535, the same address twice, or no sources.
    """
    problems: list[str] = []
    lines = _address("ITCH_A", config.itch_a, problems), _address("ITCH_B", config.itch_b, problems)
    requests = _address("ITCH_REREQUEST", config.itch_rerequest, problems)
    snapshots = _address("ITCH_SNAPSHOT", config.itch_snapshot, problems)
    for source in config.itch_sources:
        if not _is_host(source):
            problems.append(f"TRADEMESH_ITCH_SOURCES: {source} is no IPv4 address")
    if not config.itch_sources:
        problems.append("TRADEMESH_ITCH_SOURCES: names at least one address")
    if lines[0] == lines[1]:
        problems.append("TRADEMESH_ITCH_B: is the same as TRADEMESH_ITCH_A")
    if problems:
        raise ConfigError(problems)
    return FeedAddresses(lines, requests, snapshots, frozenset(config.itch_sources))


def _address(key: str, text: str, problems: list[str]) -> Address:
    host, _, port = text.partition(":")
    if not _is_host(host) or not 0 < int(port) < 65_536:
        problems.append(f"TRADEMESH_{key}: must be host:port with a numeric IPv4 address and a port from 1 to 65535, not {text!r}")
    return host, int(port)


def _is_host(text: str) -> bool:
    try:
        IPv4Address(text)
    except ValueError:
        return False
    return True
