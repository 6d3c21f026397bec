"""How readiness shows: gRPC health, a ready file, or Envoy's admin socket."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2

PROBE_SECONDS_MAX = 1.0


@dataclass(frozen=True)
class GrpcHealth:
    """`grpc.health.v1.Health/Check` of a service on a UNIX socket says SERVING. The overall service is the empty name.

    Every check dials anew: a channel kept over the process's restart would sit in gRPC's own reconnect backoff. A process that takes the
    connection, which gRPC's own threads do, and does not answer in time is not gone but busy.
    """

    socket: Path
    service: str = ""

    async def __call__(self, pid: int) -> bool | None:
        """Return whether it is serving; None while it is too busy to tell."""
        if not self.socket.exists():
            return False
        async with grpc.aio.insecure_channel(f"unix:{self.socket}", options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
            try:
                answer: health_pb2.HealthCheckResponse = await channel.unary_unary(
                    "/grpc.health.v1.Health/Check",
                    request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
                    response_deserializer=health_pb2.HealthCheckResponse.FromString,
                )(health_pb2.HealthCheckRequest(service=self.service), timeout=PROBE_SECONDS_MAX)
            except grpc.aio.AioRpcError as error:
                busy = error.code() is grpc.StatusCode.DEADLINE_EXCEEDED and channel.get_state() is grpc.ChannelConnectivity.READY
                return None if busy else False
            return answer.status == health_pb2.HealthCheckResponse.SERVING


@dataclass(frozen=True)
class ReadyFile:
    """A file in which the process names its id, alone or as `pid=<id>`, when it is ready. A predecessor's has another id."""

    path: Path

    async def __call__(self, pid: int) -> bool:
        """Return whether the file is this process's."""
        try:
            words = self.path.read_text().split()
        except OSError:
            return False
        return str(pid) in words or f"pid={pid}" in words


@dataclass(frozen=True)
class EnvoyReady:
    """`GET /ready` on an Envoy's admin socket says that it is live: listeners are open, and certificates are there."""

    admin_socket: Path

    async def __call__(self, pid: int) -> bool:
        """Return whether it is live."""
        try:
            async with asyncio.timeout(PROBE_SECONDS_MAX):
                reader, writer = await asyncio.open_unix_connection(str(self.admin_socket))
                try:
                    writer.write(b"GET /ready HTTP/1.1\r\nhost: envoy\r\nconnection: close\r\n\r\n")
                    return b" 200 " in await reader.readline()
                finally:
                    writer.close()
        except (OSError, TimeoutError):
            return False
