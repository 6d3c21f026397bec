"""What every replica stands on: log lines, telemetry, a clock, ids, and one stack that closes in reverse whatever was opened on it.

    async with foundation("svc-oms", config) as base:
        database = await open_database(base, config.database_dsn, MIGRATIONS)
        risk = base.channel(ClientConfig(dependency="svc-risk", targets=config.risk_targets))
        await until_stopped(base.server(bindings, ready=database_answers(database)), background, stop)

What needs a database is in `kernel.foundation_stores`.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from kernel import logs
from kernel.clock import SystemClock
from kernel.config import Secret
from kernel.grpc_client import ClientConfig, MeshChannel
from kernel.grpc_server import GrpcServer, ServerConfig
from kernel.ids import Uuid7Source
from kernel.server_policy import ServiceBinding
from kernel.telemetry import Telemetry, TelemetryConfig


class ReplicaConfig(Protocol):
    """What the configuration of every service has."""

    @property
    def instance(self) -> str:
        """The replica's name."""
        ...

    @property
    def socket_path(self) -> Path:
        """Its UNIX socket."""
        ...

    @property
    def sidecar_secret(self) -> Secret:
        """What its sidecar adds to every call."""
        ...

    @property
    def telemetry_folder(self) -> Path | None:
        """Where traces and metrics are written."""
        ...

    @property
    def otlp_endpoint(self) -> str | None:
        """A collector."""
        ...


@dataclass(frozen=True, slots=True)
class Foundation:
    """What a replica stands on; made by `foundation`.

    Attributes:
        service: its name in the mesh, such as `svc-oms`.
        config: what the server and telemetry are made of.
        clock: of the process.
        ids: of the process.
        log_writer: takes all log lines.
        telemetry: already started.
        stack: closes what was opened, in reverse, before telemetry stops.
    """

    service: str
    config: ReplicaConfig
    clock: SystemClock
    ids: Uuid7Source
    log_writer: logs.LineWriter
    telemetry: Telemetry
    stack: contextlib.AsyncExitStack

    def closing(self, close: Callable[[], Awaitable[object]]) -> None:
        """Call `close` at the end, before the closing of what was opened earlier."""
        self.stack.push_async_callback(close)

    def channel(self, client: ClientConfig, *, traced: bool = True) -> MeshChannel:
        """Return the way to a dependency, with its metrics; it is closed at the end.

        Args:
            client: how to call.
            traced: whether calls made while serving a sampled call have spans.
        """
        channel = MeshChannel(client, tracing=self.telemetry.tracing if traced else None)
        self.closing(channel.close)
        self.telemetry.metrics.source(channel.samples)
        return channel

    def server(self, services: Sequence[ServiceBinding], *, ready: Callable[[], Awaitable[bool]]) -> GrpcServer:
        """Return the replica's server, not yet started; see `GrpcServer`."""
        config = ServerConfig(
            service=self.service,
            instance=self.config.instance,
            socket_path=self.config.socket_path,
            sidecar_secret=self.config.sidecar_secret.reveal(),
        )
        return GrpcServer(config, services, ready=ready, telemetry=self.telemetry, log_writer=self.log_writer, now=time.time)


@contextlib.asynccontextmanager
async def foundation(service: str, config: ReplicaConfig, *, trace_ratio: int = 0) -> AsyncIterator[Foundation]:
    """Open the logs and telemetry of a replica; at the end close all that was opened, telemetry last, and write the last log lines.

    Args:
        service: its name in the mesh, such as `svc-oms`.
        config: of the replica.
        trace_ratio: share of calls without a `traceparent` that are traced, in percent.

    Raises:
        OSError: telemetry cannot be written.
    """
    clock = SystemClock()
    log_writer = logs.configure(service, config.instance)
    telemetry = Telemetry(TelemetryConfig(service, config.instance, config.telemetry_folder, trace_ratio / 100, config.otlp_endpoint))
    try:
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(telemetry.stop)
            telemetry.start()
            yield Foundation(service, config, clock, Uuid7Source(clock), log_writer, telemetry, stack)
    finally:
        log_writer.flush()
