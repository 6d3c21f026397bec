"""Writes happen once for each request id: the first answer is kept with what it answers, in the transaction of the write."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from kernel.keyed_requests import Request, Response, Written
from kernel.ports import LogPosition
from kernel.postgres import Database, Transaction

# Two calls with one key queue here, whatever accounts they name. First of all locks.
_LOCK = "SELECT pg_advisory_xact_lock(hashtextextended('trademesh.custody.request.' || current_schema() || $1, 0))"
_KNOWN = "SELECT command_hash, answer FROM request WHERE request_id = $1::text::uuid"
_REMEMBER = "INSERT INTO request VALUES ($1::text::uuid, $2, $3, clock_timestamp())"


class RequestStore:
    """Makes writes once."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def write(
        self, request: Request[Response], work: Callable[[Transaction], Awaitable[tuple[Response, LogPosition]]]
    ) -> Written[Response]:
        """Make a change once. `work` makes it and returns the answer, whose `log_position` is filled in here.

        Raises:
            AlreadyExistsError: the request id was used for another command.
            TrademeshError: what `work` refuses; nothing is recorded then, and the key stays free.
        """
        async with self._database.transaction() as transaction:
            await transaction.execute(_LOCK, request.request_id)
            known = await transaction.fetchrow(_KNOWN, request.request_id)
            if known is not None:
                return request.replayed(known["command_hash"], known["answer"])
            made, position = await work(transaction)
            response: Any = made
            response.log_position.tx, response.log_position.position = position.tx, position.position
            answer = response.SerializeToString(deterministic=True)
            await transaction.execute(_REMEMBER, request.request_id, request.command_hash, answer)
        return Written(response, replayed=False)
