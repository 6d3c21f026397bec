"""`GET /v1/ws`: who may open a socket, how long it lives, and how all of them end when the replica stops."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from aiohttp import web

from kernel.errors import InvalidArgumentError, Reason, UnauthenticatedError, UnavailableError
from kernel.identity import Identity, User
from kernel.server_context import CallContext
from kernel.telemetry import Sample
from svc_gateway.clients.backends import Backends
from svc_gateway.codec.catalogue import Catalogue
from svc_gateway.domain.origins import require_origin
from svc_gateway.domain.protocol import CLOSE_RESTART, CLOSE_UNAUTHENTICATED, SUBPROTOCOL, TICKET_PREFIX
from svc_gateway.domain.quotas import SocketQuota
from svc_gateway.servicer.bridge import Bridge, Counters, SocketLimits
from svc_gateway.servicer.door import Doorkeeper, refuse_query
from svc_gateway.store.tickets import TicketStore, invalid_ticket

EXPIRY_LOOK_SECONDS = 60.0
"""How often a socket looks at the clock, which may have been set, although its token is good for longer."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class SocketSettings:
    """Bounds of all sockets.

    Attributes:
        origins: of the web pages that may open sockets.
        principal_sockets_max: open at a time, for each user.
        sockets_max: open at a time, in this replica.
        frame_bytes_max: of one frame from the client.
        ping_seconds: between pings; a client that answers none within half of it is gone.
        write_buffer_bytes: of frames that the connection takes before it makes the calls wait.
        limits: of each socket.
    """

    origins: frozenset[str]
    principal_sockets_max: int = 16
    sockets_max: int = 1_024
    frame_bytes_max: int = 64 * 1024
    ping_seconds: float = 20.0
    write_buffer_bytes: int = 64 * 1024
    limits: SocketLimits = field(default_factory=SocketLimits)


class Sockets:
    """The sockets of a replica."""

    def __init__(
        self,
        door: Doorkeeper,
        tickets: TicketStore,
        backends: Backends,
        catalogue: Catalogue,
        settings: SocketSettings,
        now: Callable[[], float],
    ) -> None:
        self._door = door
        self._tickets = tickets
        self._backends = backends
        self._catalogue = catalogue
        self._settings = settings
        self._now = now
        self._quota = SocketQuota(principal_max=settings.principal_sockets_max, total_max=settings.sockets_max)
        self._bridges: set[Bridge] = set()
        self._draining = False
        self.counters = Counters()

    async def open(self, request: web.Request) -> web.StreamResponse:
        """Serve a socket until it ends."""
        if self._draining:
            raise _shutting_down()
        identity, authorization = await self._authenticate(request)
        user = CallContext(identity).user
        self._quota.enter(user.tenant, user.principal)
        try:
            return await self._serve(request, identity, authorization)
        finally:
            self._quota.leave(user.tenant, user.principal)

    async def _authenticate(self, request: web.Request) -> tuple[Identity, str]:
        identity = self._door.admit(request)
        refuse_query(request)
        offered = [name.strip() for header in request.headers.getall("Sec-WebSocket-Protocol", []) for name in header.split(",")]
        tickets = [name.removeprefix(TICKET_PREFIX) for name in offered if name.startswith(TICKET_PREFIX)]
        origin = require_origin(request.headers.getall("Origin", []), self._settings.origins, required=bool(tickets))
        if SUBPROTOCOL not in offered:
            raise InvalidArgumentError(Reason.FIELD_INVALID, f"Sec-WebSocket-Protocol: must offer {SUBPROTOCOL}")
        if tickets:
            if len(tickets) > 1 or "Authorization" in request.headers:
                raise InvalidArgumentError(Reason.FIELD_INVALID, "Sec-WebSocket-Protocol: one ticket or an Authorization header, not more")
            grant = await self._tickets.redeem(tickets[0])
            if grant.origin and grant.origin != origin:
                raise invalid_ticket()
            identity = self._door.admit_claims(request, grant.claims)
            authorization = grant.authorization
        else:
            authorization = self._door.authorization(request)
        if identity.user is None:
            raise UnauthenticatedError(Reason.USER_UNAUTHENTICATED, "a socket belongs to a user; send a token or a ticket")
        return identity, authorization

    async def _serve(self, request: web.Request, identity: Identity, authorization: str) -> web.StreamResponse:
        settings, user = self._settings, CallContext(identity).user
        socket = web.WebSocketResponse(
            protocols=(SUBPROTOCOL,),
            heartbeat=settings.ping_seconds,
            max_msg_size=settings.frame_bytes_max,
            compress=False,
            timeout=2.0,
            writer_limit=settings.write_buffer_bytes,
        )
        check = socket.can_prepare(request)
        if not check.ok:
            raise InvalidArgumentError(Reason.FIELD_INVALID, "a WebSocket handshake (RFC 6455) is expected at this path")
        await socket.prepare(request)
        transport = request.transport
        bridge = Bridge(socket, identity, authorization, self._backends, self._catalogue, settings.limits, self.counters)
        self._bridges.add(bridge)
        expiry = asyncio.create_task(self._end_with_token(bridge, user))
        try:
            await bridge.run()
        finally:
            expiry.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await expiry
            self._bridges.discard(bridge)
            if transport is not None and transport.get_write_buffer_size() > 0:
                # A client that reads nothing would keep a connection that is only closed, until its buffers are empty: for ever.
                transport.abort()
            fields = {"principal": user.principal, "tenant": user.tenant, "close_code": socket.close_code or 0}
            _log.info("socket closed", extra={"fields": fields})
        return socket

    async def _end_with_token(self, bridge: Bridge, user: User) -> None:
        while (left := user.expires_at - self._now()) > 0:  # noqa: ASYNC110 (no event tells that the wall clock was set)
            await asyncio.sleep(min(left, EXPIRY_LOOK_SECONDS))
        error = UnauthenticatedError(Reason.TOKEN_EXPIRED, "the user's token has expired; open a socket with a new one and resume")
        await bridge.finish(error, CLOSE_UNAUTHENTICATED)

    async def drain(self) -> None:
        """Take no more sockets, and end those that are open: each call with SHUTTING_DOWN, each socket with 1012."""
        self._draining = True
        await asyncio.gather(*(bridge.finish(_shutting_down(), CLOSE_RESTART) for bridge in self._bridges))

    def samples(self) -> Iterable[Sample]:
        """Return the metrics of the sockets."""
        counters = self.counters
        return [
            Sample("gateway_sockets_open", self._quota.total),
            Sample("gateway_calls_running", counters.calls_running),
            Sample("gateway_calls_total", counters.calls),
            Sample("gateway_messages_total", counters.messages),
            *(Sample("gateway_call_ends_total", count, (("code", code),)) for code, count in counters.ends.items()),
        ]


def _shutting_down() -> UnavailableError:
    return UnavailableError(
        Reason.SHUTTING_DOWN, "the gateway is draining; open a socket to another replica and resume", retry_after_seconds=0.25
    )
