"""What clients do while a fault holds: orders, cancels and replaces, deposits, settlements, and limits that move under them."""

from __future__ import annotations

import asyncio
import itertools
import random
import uuid
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from kernel.errors import AbortedError, DeadlineExceededError, OutcomeUnknownError, ResourceExhaustedError, UnavailableError
from mesh.local.harness import LocalMesh
from mesh.local.operator import Caller, Operator
from mesh.local.seed_data import TENANT
from tests.e2e.crash.client import Clients
from tests.e2e.crash.load import ACCOUNTS, Load
from tests.e2e.crash.operations_desk import OperationsDesk
from trademesh.oms.v1 import order_pb2
from trademesh.risk.v1 import limit_pb2, risk_service_pb2

WAVE = 60
CHANGES_EACH = 20
PAUSE_SECONDS = 0.6
"""Between waves, beside which the pulse enters commands all the while. What is entered is audited, over and over."""
LIMIT_SECONDS = 0.4
LIMIT_MOVES_SECONDS_MAX = 15.0
"""The first move of the limit is over so soon, on a mesh that is well."""
TIGHT = ACCOUNTS[-1]
"""Its open exposure runs against its limit all the time, so that two approvals on one moment's room would show."""
TIGHT_LIMITS = ("1500000", "3000000")
DEPOSITS = 3

_AWAY = (UnavailableError, DeadlineExceededError, OutcomeUnknownError, ResourceExhaustedError, AbortedError)
"""What risk may say while parts of the mesh are gone: ask again. Anything else is a refusal, which no fault explains."""
_OFFICER = Caller("chaos-officer", TENANT, ("admin", "risk-officer", "viewer"))
_UPDATE_LIMIT = "/trademesh.risk.v1.RiskService/UpdateLimit"


class StillLimitError(Exception):
    """The limit that is to move does not, though nothing has struck yet: no approval would have met another limit than the one before."""


class Workload:
    """Enters waves of commands from enter to exit; at the exit all of them are answered. An async context manager.

    Args:
        mesh: a running one.
        clients: who trades.
        desk: who deposits and settles.
        load: what they trade.
        source: all chance comes from here.
        walk_away: the share of clients that ask once.

    Attributes:
        resting: orders that cancels and replaces are for.
        limit_moves: how often the account TIGHT has got another limit.
    """

    def __init__(
        self,
        mesh: LocalMesh,
        clients: Clients,
        desk: OperationsDesk,
        load: Load,
        source: random.Random,
        *,
        walk_away: float = 0.0,
    ) -> None:
        self._mesh, self._clients, self._desk, self._load, self._random = mesh, clients, desk, load, source
        self._walk_away = walk_away
        self.resting: Sequence[order_pb2.Order] = ()
        self._left, self._strike = source.randrange(WAVE // 2, 2 * WAVE), asyncio.Event()
        self._ending, self._moved, self._last_refusal = asyncio.Event(), asyncio.Event(), "no answer"
        self.limit_moves = 0
        self._group = asyncio.TaskGroup()

    async def __aenter__(self) -> Self:
        self._clients.on_answer = self._count
        await self._group.__aenter__()
        self._group.create_task(self._trade())
        self._group.create_task(self._settle())
        self._group.create_task(self._move_limits())
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._ending.set()
        try:
            await self._group.__aexit__(kind, error, trace)
        finally:
            self._clients.on_answer = _nothing

    async def moment(self) -> None:
        """Return at the answer that the seed has drawn, the limit having moved: until then the mesh is well.

        Raises:
            StillLimitError: it does not move.
        """
        await self._strike.wait()
        try:
            async with asyncio.timeout(LIMIT_MOVES_SECONDS_MAX):
                await self._moved.wait()
        except TimeoutError:
            raise StillLimitError(f"the limit of {TIGHT} does not move: {self._last_refusal}") from None

    def _count(self) -> None:
        self._left -= 1
        if self._left == 0:
            self._strike.set()

    async def _trade(self) -> None:
        while not self._ending.is_set() or not self._strike.is_set():
            commands = self._load.orders(WAVE - CHANGES_EACH, walk_away=self._walk_away)
            if self.resting:
                commands += self._load.changes(self.resting, CHANGES_EACH)
            await self._clients.enter(commands)
            await asyncio.sleep(PAUSE_SECONDS)

    async def _settle(self) -> None:
        await self._desk.deposit(self._desk.drawn(DEPOSITS))
        await self._desk.advance()

    async def _move_limits(self) -> None:
        """Risk need not answer: what counts is the limit that stands in its log when it approves."""
        with self._mesh.operator(_OFFICER) as operator:
            for value in itertools.cycle(TIGHT_LIMITS):
                request = risk_service_pb2.UpdateLimitRequest(
                    scope=limit_pb2.LIMIT_SCOPE_ACCOUNT,
                    scope_id=TIGHT,
                    type=limit_pb2.LIMIT_TYPE_OPEN_EXPOSURE,
                    value=value,
                    request_id=str(uuid.UUID(int=self._random.getrandbits(128), version=4)),
                    comment="chaos",
                )
                try:
                    await asyncio.to_thread(_update, operator, request)
                except _AWAY as error:
                    self._last_refusal = f"{type(error).__name__}: {error}"
                else:
                    self.limit_moves += 1
                    self._moved.set()
                if self._ending.is_set():
                    return
                await asyncio.sleep(LIMIT_SECONDS)


def _update(operator: Operator, request: risk_service_pb2.UpdateLimitRequest) -> None:
    operator.call("svc_risk", _UPDATE_LIMIT, request, risk_service_pb2.UpdateLimitResponse, repeatable=False, timeout_seconds=4.0)


def _nothing() -> None:
    return
