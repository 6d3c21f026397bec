"""`POST /v1/ws/tickets`: a ticket for a browser, which cannot send an Authorization header with a socket."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import UTC, datetime

from aiohttp import web

from kernel.errors import InvalidArgumentError, Reason, UnauthenticatedError
from kernel.identity import CLAIMS_HEADER
from svc_gateway.domain.origins import require_origin
from svc_gateway.domain.quotas import Rates
from svc_gateway.domain.tickets import TICKET_SECONDS, Grant
from svc_gateway.servicer.door import Doorkeeper, refuse_query
from svc_gateway.store.tickets import TicketStore

TICKET_INTERVAL_MS = 1_000
TICKETS_BURST = 30


class TicketDesk:
    """Issues tickets, to each user one a second on average."""

    def __init__(self, door: Doorkeeper, tickets: TicketStore, origins: frozenset[str], now: Callable[[], float]) -> None:
        self._door = door
        self._tickets = tickets
        self._origins = origins
        self._now = now
        self._rates = Rates(TICKET_INTERVAL_MS, TICKETS_BURST)

    async def issue(self, request: web.Request) -> web.Response:
        """Answer `{"ticket", "expire_time"}`; the request has no body, or an empty object."""
        identity = self._door.admit(request)
        refuse_query(request)
        origin = require_origin(request.headers.getall("Origin", []), self._origins, required=False)
        user = identity.user
        if user is None:
            raise UnauthenticatedError(
                Reason.USER_UNAUTHENTICATED, "a ticket is issued to a user; send the token in the Authorization header"
            )
        authorization = self._door.authorization(request)
        if (await request.read()).strip() not in (b"", b"{}"):
            raise InvalidArgumentError(Reason.FIELD_UNKNOWN, "a request for a ticket has no fields")
        self._rates.take(f"{user.tenant}/{user.principal}", time.monotonic_ns())
        ticket = await self._tickets.issue(Grant(authorization, request.headers[CLAIMS_HEADER], origin))
        expires_at = min(self._now() + TICKET_SECONDS, user.expires_at)
        expire_time = datetime.fromtimestamp(expires_at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        text = json.dumps({"ticket": ticket, "expire_time": expire_time})
        return web.Response(text=text, content_type="application/json", headers={"Cache-Control": "no-store"})
