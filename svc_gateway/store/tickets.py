"""Tickets in Redis, where every replica finds them and the first that asks takes them away.

What Redis holds is sealed under a key made of the deployment's key and the ticket itself, and filed under the ticket's hash: who reads
Redis, or its disk, has neither tokens nor tickets.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from typing import Protocol, cast

import redis.asyncio
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from kernel.config import Dsn, Secret
from kernel.errors import Reason, UnauthenticatedError, UnavailableError
from kernel.tokens import KEY_LENGTH_MIN
from svc_gateway.domain.tickets import TICKET_SECONDS, Grant, is_ticket

ANSWER_SECONDS = 2.0
_PREFIX = "trademesh:gateway:ticket:"
_NONCE_BYTES = 12


class TicketStore(Protocol):
    """Where tickets are kept."""

    async def issue(self, grant: Grant) -> str:
        """Return a new ticket.

        Raises:
            UnavailableError: DEPENDENCY_UNAVAILABLE, it could not be kept.
        """
        ...

    async def redeem(self, ticket: str) -> Grant:
        """Return what a ticket stands for, once.

        Raises:
            UnauthenticatedError: TICKET_INVALID, it was never issued, was used before, or is too old.
            UnavailableError: DEPENDENCY_UNAVAILABLE, nobody knows.
        """
        ...


class RedisTickets:
    """Tickets of a deployment.

    Args:
        url: `redis://`, `rediss://` or `unix://`, with the password.
        key: of all replicas of the deployment, at least 32 characters.
        ticket_seconds: how long a ticket is good.
    """

    def __init__(self, url: Dsn, key: Secret, *, ticket_seconds: float = TICKET_SECONDS) -> None:
        if len(key.reveal()) < KEY_LENGTH_MIN:
            raise ValueError(f"the ticket key must have at least {KEY_LENGTH_MIN} characters")
        self._key = hashlib.sha256(f"ticket\0{key.reveal()}".encode()).digest()
        self._ticket_ms = round(ticket_seconds * 1_000)
        # Who comes while all connections are busy waits for one; the plain pool would refuse.
        self._pool = redis.asyncio.BlockingConnectionPool.from_url(
            url.reveal(),
            max_connections=8,
            timeout=ANSWER_SECONDS,
            socket_timeout=ANSWER_SECONDS,
            socket_connect_timeout=ANSWER_SECONDS,
            protocol=2,
            # A second GETDEL after a lost answer would find nothing; a new ticket is one request away.
            retry=Retry(NoBackoff(), 0),
        )
        self._redis = redis.asyncio.Redis.from_pool(self._pool)

    async def issue(self, grant: Grant) -> str:
        """See `TicketStore.issue`."""
        ticket = secrets.token_urlsafe(32)
        assert is_ticket(ticket)
        content = json.dumps([grant.authorization, grant.claims, grant.origin]).encode()
        nonce = secrets.token_bytes(_NONCE_BYTES)
        sealed = nonce + self._cipher(ticket).encrypt(nonce, content, None)
        with _mapped():
            await self._redis.set(_place(ticket), sealed, px=self._ticket_ms, nx=True)
        return ticket

    async def redeem(self, ticket: str) -> Grant:
        """See `TicketStore.redeem`."""
        if not is_ticket(ticket):
            raise invalid_ticket()
        with _mapped():
            sealed = await cast("Awaitable[bytes | None]", self._redis.getdel(_place(ticket)))
        if sealed is None:
            raise invalid_ticket()
        try:
            content = self._cipher(ticket).decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], None)
        except (InvalidTag, ValueError):
            # A deployment's key changed within the ticket's 30 seconds, or somebody else writes to this Redis.
            raise invalid_ticket() from None
        authorization, claims, origin = json.loads(content)
        return Grant(authorization, claims, origin)

    def _cipher(self, ticket: str) -> AESGCM:
        return AESGCM(hmac.digest(self._key, ticket.encode(), "sha256"))

    async def close(self) -> None:
        """Close the connections."""
        await cast("Awaitable[None]", self._redis.aclose())


class NoTickets:
    """Stands for tickets where no Redis is configured: there are none."""

    async def issue(self, grant: Grant) -> str:
        """Refuse: DEPENDENCY_UNAVAILABLE."""
        raise _unavailable()

    async def redeem(self, ticket: str) -> Grant:
        """Refuse: DEPENDENCY_UNAVAILABLE."""
        raise _unavailable()


def invalid_ticket() -> UnauthenticatedError:
    """Return the refusal of a ticket, in the same words whatever is wrong with it."""
    return UnauthenticatedError(Reason.TICKET_INVALID, "the ticket was never issued, was used before, or is too old")


def _unavailable() -> UnavailableError:
    return UnavailableError(
        Reason.DEPENDENCY_UNAVAILABLE, "tickets are not available", metadata={"dependency": "redis"}, retry_after_seconds=1.0
    )


def _place(ticket: str) -> str:
    return _PREFIX + hashlib.sha256(ticket.encode()).hexdigest()


@contextmanager
def _mapped() -> Iterator[None]:
    try:
        yield
    except (RedisError, OSError) as error:
        raise _unavailable() from error
