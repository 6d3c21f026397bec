"""Composition root of the gateway: `python -m svc_gateway`, configured by the environment (`svc_gateway.config`)."""

from __future__ import annotations

import asyncio
import os
import stat
import time
from pathlib import Path

from aiohttp import web

import trademesh
from kernel.config import ConfigError, load
from kernel.foundation import foundation
from kernel.grpc_client import ClientConfig
from kernel.grpc_server import SOCKET_PATH_LENGTH_MAX
from kernel.identity import Authenticator
from kernel.process import run_process, until_stopped
from kernel.tokens import KEY_LENGTH_MIN
from svc_gateway.clients.backends import Backends
from svc_gateway.codec.catalogue import Catalogue
from svc_gateway.config import GatewayConfig
from svc_gateway.servicer.bridge import SocketLimits
from svc_gateway.servicer.door import Doorkeeper, answer_errors
from svc_gateway.servicer.reference import Reference
from svc_gateway.servicer.sockets import Sockets, SocketSettings
from svc_gateway.servicer.tickets import TicketDesk
from svc_gateway.store.tickets import NoTickets, RedisTickets, TicketStore

HEADER_BYTES_MAX = 16 * 1024
BODY_BYTES_MAX = 1024
TRUST_DOMAIN = "trademesh.local"
NAMESPACE = "trading"


def application(door: Doorkeeper, sockets: Sockets, desk: TicketDesk, reference: Reference) -> web.Application:
    """Return the HTTP application."""
    app = web.Application(client_max_size=BODY_BYTES_MAX, middlewares=[answer_errors])
    app.router.add_get("/v1/ws", sockets.open, allow_head=False)
    app.router.add_post("/v1/ws/tickets", desk.issue)
    app.router.add_get("/docs", reference.page)
    app.router.add_get("/openapi.json", reference.document)
    return app


class HttpServer:
    """Serves the application on a UNIX socket, mode 0600."""

    def __init__(self, app: web.Application, path: Path) -> None:
        self._runner = web.AppRunner(
            app,
            access_log=None,
            handle_signals=False,
            max_field_size=HEADER_BYTES_MAX,
            max_line_size=HEADER_BYTES_MAX,
            shutdown_timeout=5.0,
        )
        self._path = path

    async def start(self) -> None:
        """Bind and serve.

        Raises:
            ValueError: the socket's path is too long, or its folder is open to others.
            OSError: the socket cannot be bound.
        """
        if len(os.fsencode(self._path)) > SOCKET_PATH_LENGTH_MAX:
            raise ValueError(f"the socket's path is longer than {SOCKET_PATH_LENGTH_MAX} bytes: {self._path}")
        folder = self._path.parent.stat()
        if folder.st_uid != os.geteuid() or stat.S_IMODE(folder.st_mode) & 0o077:
            raise ValueError(f"the socket's folder must belong to this user alone (mode 0700): {self._path.parent}")
        await self._runner.setup()
        # The socket must never be reachable by others, not even between bind and chmod.
        before = os.umask(0o177)
        try:
            await web.UnixSite(self._runner, str(self._path)).start()
        finally:
            os.umask(before)

    async def stop(self) -> None:
        """Stop; requests under way get five seconds."""
        await self._runner.cleanup()
        self._path.unlink(missing_ok=True)


async def serve(config: GatewayConfig, stop: asyncio.Event) -> None:
    """Run a replica until `stop` is set, then end it gracefully: no new sockets, open ones told to resume elsewhere.

    Raises:
        ConfigError: a file that the configuration names is not there.
    """
    catalogue = Catalogue()
    openapi_file = _openapi_file(config)
    async with foundation("svc-gateway", config) as base:
        tickets: TicketStore = NoTickets()
        if config.redis_url is not None:
            tickets = redis_tickets = RedisTickets(config.redis_url, config.token_key)
            base.closing(redis_tickets.close)
        channels = {
            # Spans belong to served gRPC calls, and there is only health here.
            name: base.channel(_client_config(config, name, targets, catalogue), traced=False)
            for name, targets in config.targets().items()
        }
        secret = config.sidecar_secret.reveal()
        door = Doorkeeper(Authenticator(secret, trust_domain=TRUST_DOMAIN, namespace=NAMESPACE, now=time.time))
        sockets = Sockets(door, tickets, Backends(channels), catalogue, _socket_settings(config), time.time)
        base.telemetry.metrics.source(sockets.samples)
        reference = Reference(door, openapi_file, config.token_url)
        desk = TicketDesk(door, tickets, frozenset(config.allowed_origins), time.time)
        http = HttpServer(application(door, sockets, desk, reference), config.http_socket_path)
        # At the end the server stops first, so that no balancer sends those who are told to come back elsewhere here again.
        base.closing(http.stop)
        base.closing(sockets.drain)
        await http.start()
        await until_stopped(base.server((), ready=_ready), [], stop)


async def _ready() -> bool:
    # It serves once it listens: each service behind it is a matter of the call that needs it, and so is Redis.
    return True


def _client_config(config: GatewayConfig, name: str, targets: tuple[str, ...], catalogue: Catalogue) -> ClientConfig:
    return ClientConfig(
        dependency=name,
        targets=targets,
        headers_file=config.headers_file,
        # Whatever is bridged only reads.
        idempotent=catalogue.paths(name),
        timeout_seconds=config.call_seconds,
    )


def _socket_settings(config: GatewayConfig) -> SocketSettings:
    return SocketSettings(
        origins=frozenset(config.allowed_origins),
        principal_sockets_max=config.principal_sockets_max,
        sockets_max=config.sockets_max,
        ping_seconds=config.ping_seconds,
        limits=SocketLimits(calls_max=config.calls_max),
    )


def _openapi_file(config: GatewayConfig) -> Path:
    """The document stands beside the generated packages, in the checkout as in gen/'s other users."""
    path = config.openapi_file or Path(str(trademesh.__file__)).parents[1] / "openapi" / "trademesh.json"
    if not path.is_file():
        raise ConfigError([f"TRADEMESH_OPENAPI_FILE: is required, {path} is not there"])
    return path


def _check(config: GatewayConfig) -> GatewayConfig:
    if len(config.token_key.reveal()) < KEY_LENGTH_MIN:
        raise ConfigError([f"TRADEMESH_TOKEN_KEY: must have at least {KEY_LENGTH_MIN} characters"])
    return config


def main() -> int:
    """Run a replica as the environment configures it, and return the exit code; see `kernel.process`."""
    return run_process("svc_gateway", lambda: _check(load(GatewayConfig)), serve)
