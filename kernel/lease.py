"""Fenced leases. PostgreSQL's clock alone says who holds one; the owner's monotonic clock says when to stop earlier.

Every write under a lease calls `assert_held` in its own transaction, and every write to a socket is preceded by `still_mine`.
A process that slept through its lease therefore writes nothing.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace

from kernel.errors import LeaseLostError, OutcomeUnknownError, UnavailableError
from kernel.ports import Clock, HeldLease, Leases
from kernel.postgres.database import Database, Transaction

TTL_SECONDS = 6.0
MARGIN_SECONDS = 1.0
"""How much earlier than PostgreSQL the owner considers its lease over; covers clocks that run at different rates."""

# The first condition lets a rival ask without locking the row, which would hold up the owner's writes.
_ACQUIRE = """
INSERT INTO lease AS held (name, owner, epoch, expires_at)
SELECT $1, $2, 1, clock_timestamp() + make_interval(secs => $3)
WHERE NOT EXISTS (SELECT FROM lease l WHERE l.name = $1 AND l.owner <> $2 AND l.expires_at > clock_timestamp())
ON CONFLICT (name) DO UPDATE
    SET owner = excluded.owner, epoch = held.epoch + 1, expires_at = clock_timestamp() + make_interval(secs => $3)
    WHERE held.expires_at <= clock_timestamp() OR held.owner = excluded.owner
RETURNING epoch
"""
_RENEW = """
UPDATE lease SET expires_at = clock_timestamp() + make_interval(secs => $4)
WHERE name = $1 AND owner = $2 AND epoch = $3 AND expires_at > clock_timestamp()
RETURNING epoch
"""
_RELEASE = (
    "UPDATE lease SET expires_at = clock_timestamp() WHERE name = $1 AND owner = $2 AND epoch = $3 AND expires_at > clock_timestamp()"
)
# The share lock makes a takeover wait until this transaction has ended; an unlocked check would let the old owner commit after it.
_ASSERT = """
SELECT 1 FROM lease WHERE name = $1 AND owner = $2 AND epoch = $3 AND expires_at > clock_timestamp() FOR SHARE
"""


class PostgresLeases:
    """Leases in the service's schema.

    Args:
        database: the service's pool.
        clock: the owner's monotonic clock.
        owner: unique per process start, e.g. a fresh UUID: a restarted process is another owner.
        ttl_seconds: how long a lease lives without renewal, by PostgreSQL's clock.
        margin_seconds: how much earlier the owner stops; below the ttl.
    """

    def __init__(
        self, database: Database, clock: Clock, owner: str, *, ttl_seconds: float = TTL_SECONDS, margin_seconds: float = MARGIN_SECONDS
    ) -> None:
        _check_times(ttl_seconds, margin_seconds)
        self._database = database
        self._clock = clock
        self.owner = owner
        self.ttl_seconds = ttl_seconds
        self._margin_seconds = margin_seconds

    async def acquire(self, name: str) -> HeldLease | None:
        """See `Leases.acquire`.

        Raises:
            UnavailableError, OutcomeUnknownError: try again; a lease that was taken without our knowing expires by itself.
        """
        deadline = self._deadline()
        async with self._database.write_connection() as connection:
            epoch: int | None = await connection.fetchval(_ACQUIRE, name, self.owner, self.ttl_seconds)
        return None if epoch is None else HeldLease(name, self.owner, epoch, deadline)

    async def renew(self, lease: HeldLease) -> HeldLease:
        """See `Leases.renew`.

        Raises:
            LeaseLostError: it expired or was taken over.
            UnavailableError, OutcomeUnknownError: the old deadline stands; try again before it.
        """
        deadline = self._deadline()
        async with self._database.write_connection() as connection:
            epoch = await connection.fetchval(_RENEW, lease.name, lease.owner, lease.epoch, self.ttl_seconds)
        if epoch is None:
            raise LeaseLostError(lease.name, lease.epoch)
        return replace(lease, deadline=deadline)

    async def release(self, lease: HeldLease) -> None:
        """See `Leases.release`."""
        async with self._database.write_connection() as connection:
            await connection.execute(_RELEASE, lease.name, lease.owner, lease.epoch)

    def still_mine(self, lease: HeldLease) -> bool:
        """See `Leases.still_mine`."""
        return self._clock.monotonic() < lease.deadline

    async def assert_held(self, transaction: Transaction, lease: HeldLease) -> None:
        """Check in the caller's transaction that the lease is held, and keep it from being taken over until that transaction ends.

        Raises:
            LeaseLostError: it is not held; let the transaction roll back.
        """
        if not self.still_mine(lease) or await transaction.fetchval(_ASSERT, lease.name, lease.owner, lease.epoch) is None:
            raise LeaseLostError(lease.name, lease.epoch)

    def _deadline(self) -> float:
        # Taken before the request leaves: PostgreSQL counts from later, so the owner errs on the early side.
        return self._clock.monotonic() + self.ttl_seconds - self._margin_seconds


class MemoryLeases:
    """Leases among objects that share one `table`, for tests and simulation."""

    def __init__(
        self,
        table: dict[str, tuple[str, int, float]],
        clock: Clock,
        owner: str,
        *,
        ttl_seconds: float = TTL_SECONDS,
        margin_seconds: float = MARGIN_SECONDS,
    ) -> None:
        _check_times(ttl_seconds, margin_seconds)
        self._table = table
        self._clock = clock
        self.owner = owner
        self.ttl_seconds = ttl_seconds
        self._margin_seconds = margin_seconds

    async def acquire(self, name: str) -> HeldLease | None:
        """See `Leases.acquire`."""
        owner, epoch, expires_at = self._table.get(name, ("", 0, 0.0))
        now = self._clock.monotonic()
        if epoch and expires_at > now and owner != self.owner:
            return None
        self._table[name] = (self.owner, epoch + 1, now + self.ttl_seconds)
        return HeldLease(name, self.owner, epoch + 1, now + self.ttl_seconds - self._margin_seconds)

    async def renew(self, lease: HeldLease) -> HeldLease:
        """See `Leases.renew`."""
        self._check(lease)
        now = self._clock.monotonic()
        self._table[lease.name] = (lease.owner, lease.epoch, now + self.ttl_seconds)
        return replace(lease, deadline=now + self.ttl_seconds - self._margin_seconds)

    async def release(self, lease: HeldLease) -> None:
        """See `Leases.release`."""
        owner, epoch, _ = self._table.get(lease.name, ("", 0, 0.0))
        if (owner, epoch) == (lease.owner, lease.epoch):
            self._table[lease.name] = (owner, epoch, self._clock.monotonic())

    def still_mine(self, lease: HeldLease) -> bool:
        """See `Leases.still_mine`."""
        return self._clock.monotonic() < lease.deadline

    async def assert_held(self, transaction: object, lease: HeldLease) -> None:
        """Check that the lease is held; what follows without an await is protected."""
        if not self.still_mine(lease):
            raise LeaseLostError(lease.name, lease.epoch)
        self._check(lease)

    def _check(self, lease: HeldLease) -> None:
        owner, epoch, expires_at = self._table.get(lease.name, ("", 0, 0.0))
        if (owner, epoch) != (lease.owner, lease.epoch) or expires_at <= self._clock.monotonic():
            raise LeaseLostError(lease.name, lease.epoch)


class LeaseKeeper:
    """Holds one lease for as long as possible: `current` is the renewed lease, and `run` ends when it is lost."""

    def __init__(self, leases: Leases, lease: HeldLease, *, renew_every_seconds: float = TTL_SECONDS / 3) -> None:
        self._leases = leases
        self._renew_every_seconds = renew_every_seconds
        self.current = lease

    async def run(self) -> None:
        """Renew until the lease is lost or its deadline passed without an answer; then return. Cancel it to stop renewing."""
        while True:
            await asyncio.sleep(self._renew_every_seconds)
            try:
                self.current = await self._leases.renew(self.current)
            except LeaseLostError:
                return
            except (UnavailableError, OutcomeUnknownError):
                if not self._leases.still_mine(self.current):
                    return


def _check_times(ttl_seconds: float, margin_seconds: float) -> None:
    if not 0 < margin_seconds < ttl_seconds:
        raise ValueError(f"margin must lie between 0 and the ttl: {margin_seconds}, {ttl_seconds}")
