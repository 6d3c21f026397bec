"""The replicas behind a client: one gRPC channel each, picked in turn among those that are ready, each with the headers it demands."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import grpc

HEADERS_BYTES_MAX = 64 * 1024

_AUTHORITY = "?authority="

Headers = tuple[tuple[str, str], ...]


def split_target(target: str) -> tuple[str, str | None]:
    """Return gRPC's target and the authority to ask it for: `unix:/path?authority=host:9000` names a sidecar's egress socket and a host.

    Raises:
        ValueError: the authority is empty or no `host:port`.
    """
    address, found, authority = target.partition(_AUTHORITY)
    if not found:
        return target, None
    host, colon, port = authority.rpartition(":")
    if not address or not host or not colon or not port.isdecimal():
        raise ValueError(f"{target}: must be unix:/path?authority=host:port")
    return address, authority


def read_headers(path: Path) -> dict[str, Headers]:
    """Return the headers that a file names by target: `{"unix:/run/x.sock": {"header": "value"}}`; target `*` stands for every other one.

    It stands in for the sidecars where there are none. It holds secrets, so it must be readable by its owner alone.

    Raises:
        ValueError: the file is open to others, too large or not of this form.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        if stat.S_IMODE(os.fstat(file.fileno()).st_mode) & 0o077:
            raise ValueError(f"{path} holds secrets and must be readable by its owner alone (mode 0600)")
        content = file.read(HEADERS_BYTES_MAX + 1)
    if len(content) > HEADERS_BYTES_MAX:
        raise ValueError(f"{path} is longer than {HEADERS_BYTES_MAX} bytes")
    try:
        parsed = json.loads(content)
    except ValueError:
        parsed = None
    if not isinstance(parsed, dict) or not all(_is_text_map(headers) for headers in parsed.values()):
        raise ValueError(f'{path} must be {{"target": {{"header": "value"}}}}')
    return {target: tuple(headers.items()) for target, headers in parsed.items()}


def _is_text_map(value: object) -> bool:
    return isinstance(value, dict) and all(isinstance(key, str) and isinstance(text, str) for key, text in value.items())


class Endpoint:
    """One replica: its channel, its channel for traced calls (same connections, made when first needed) and its headers."""

    def __init__(self, target: str, options: Sequence[tuple[str, Any]], interceptors: Sequence[grpc.aio.ClientInterceptor]) -> None:
        self.target = target
        self.headers: Headers = ()
        self._address, authority = split_target(target)
        self._options = options if authority is None else [*options, ("grpc.default_authority", authority)]
        self._interceptors = interceptors
        self.channel = grpc.aio.insecure_channel(self._address, options=self._options)
        self._traced: grpc.aio.Channel | None = None
        self.calls: dict[tuple[str, bool], Any] = {}

    @property
    def ready(self) -> bool:
        """Return whether the replica is connected and says that it serves; begins to connect when it is not."""
        return self.channel.get_state(try_to_connect=True) is grpc.ChannelConnectivity.READY

    def channel_for(self, *, traced: bool) -> grpc.aio.Channel:
        """Return the channel; with client spans for traced calls."""
        if not traced:
            return self.channel
        if self._traced is None:
            self._traced = grpc.aio.insecure_channel(self._address, options=self._options, interceptors=self._interceptors)
        return self._traced

    async def close(self, grace: float | None) -> None:
        """Close the channels."""
        await self.channel.close(grace)
        if self._traced is not None:
            await self._traced.close(grace)


class Endpoints:
    """The replicas in rotation.

    Args:
        targets: gRPC targets, `unix:/path` of replicas, or a sidecar's egress socket with an authority (`split_target`).
        options: channel options of each.
        interceptors: for traced calls.
        headers_file: see `read_headers`; None where sidecars add what is needed.
    """

    def __init__(
        self,
        targets: Sequence[str],
        options: Sequence[tuple[str, Any]],
        interceptors: Sequence[grpc.aio.ClientInterceptor],
        headers_file: Path | None,
    ) -> None:
        if not targets:
            raise ValueError("a client needs at least one target")
        self._headers_file = headers_file
        by_target = self._read()
        self._all = [Endpoint(target, options, interceptors) for target in targets]
        self._next = 0
        self._assign(by_target)

    def __len__(self) -> int:
        return len(self._all)

    def pick(self, avoid: Endpoint | None = None) -> Endpoint:
        """Return the next replica that is ready, else the next one at all; `avoid` only where it is the only one."""
        first: Endpoint | None = None
        for _ in self._all:
            endpoint = self._all[self._next % len(self._all)]
            self._next += 1
            if endpoint is avoid:
                continue
            if endpoint.ready:
                return endpoint
            first = first or endpoint
        return first or self._all[0]

    def reload_headers(self) -> bool:
        """Read the headers file again, because a restarted replica may have a new secret; return whether anything changed."""
        return self._assign(self._read())

    def _read(self) -> Mapping[str, Headers]:
        return {} if self._headers_file is None else read_headers(self._headers_file)

    def _assign(self, by_target: Mapping[str, Headers]) -> bool:
        changed = False
        for endpoint in self._all:
            headers = by_target.get(endpoint.target, by_target.get("*", ()))
            changed = changed or headers != endpoint.headers
            endpoint.headers = headers
        return changed

    def ready_count(self) -> int:
        """Return how many replicas are ready."""
        return sum(endpoint.ready for endpoint in self._all)

    async def close(self, grace: float | None) -> None:
        """Close every channel."""
        for endpoint in self._all:
            await endpoint.close(grace)
