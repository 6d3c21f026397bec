"""The same offer where there is no Go toolchain: a Python client, whose own cost allows a smaller multiple of what the mesh sustains."""

from __future__ import annotations

import asyncio
import statistics
import time
import uuid
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.rpc import status_pb2

from cli.access import LocalUsers
from kernel.status import DETAILS_KEY
from mesh.local.harness import LocalMesh
from mesh.local.outside import door
from tests.chaos.offered import CANCELS_PER_SECOND, PATIENCE_SECONDS, Answers, Offered
from tests.e2e.crash.client import Ledger, call_failure
from tests.e2e.crash.load import Cancel, Command, Load
from tests.e2e.crash.world import TRADER
from trademesh.oms.v1 import order_pb2
from trademesh.oms.v1.order_service_pb2_grpc import OrderServiceStub

CONNECTIONS = 4
STEP_SECONDS = 0.01
_RETRY_INFO = "google.rpc.RetryInfo"


@dataclass
class _Tally:
    offered: int = 0
    ok: list[float] = field(default_factory=list)
    shed: int = 0
    hinted: int = 0
    others: Counter[str] = field(default_factory=Counter)

    def answers(self, seconds: float) -> Answers:
        cuts = statistics.quantiles(self.ok, n=100) if len(self.ok) > 1 else [0.0] * 99
        rates = (self.offered / seconds, 0.0, len(self.ok) / seconds, self.shed / seconds, self.hinted / seconds)
        return Answers(*rates, dict(self.others), cuts[49] * 1e3, cuts[98] * 1e3)


class PythonOffer:
    """Offers load to one mesh; see `Offer`.

    Args:
        mesh: a running one.
        load: draws the orders.
        ledger: gets every command and what its client was told.
    """

    def __init__(self, mesh: LocalMesh, load: Load, ledger: Ledger) -> None:
        self._mesh, self._load, self._ledger = mesh, load, ledger

    async def orders(self, rate: float, seconds: int) -> Offered:
        """Offer so many orders a second, and cancels of those that were placed."""
        entrance, began = door(self._mesh.layout), time.monotonic()
        token = await asyncio.to_thread(LocalUsers(self._mesh.layout).token, TRADER)
        metadata = (("authorization", f"Bearer {token.text}"),)
        credentials = grpc.ssl_channel_credentials(entrance.authority_file.read_bytes())
        options = (("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0))
        channels = [grpc.aio.secure_channel(entrance.edge, credentials, options=options) for _ in range(CONNECTIONS)]
        stubs: list[Any] = [OrderServiceStub(channel) for channel in channels]
        orders, cancels, placed = _Tally(), _Tally(), list[order_pb2.Order]()
        try:
            async with asyncio.TaskGroup() as group:
                while (now := time.monotonic()) < began + seconds:
                    while orders.offered < rate * (now - began):
                        (command,) = self._load.resting(1)
                        group.create_task(self._call(stubs[orders.offered % CONNECTIONS].CreateOrder, command, orders, metadata, placed))
                        orders.offered += 1
                    if placed and cancels.offered < CANCELS_PER_SECOND * (now - began):
                        group.create_task(self._call(stubs[0].CancelOrder, self._cancel(placed.pop(0)), cancels, metadata, None))
                        cancels.offered += 1
                    await asyncio.sleep(STEP_SECONDS)
        finally:
            await asyncio.gather(*(channel.close() for channel in channels))
        # What it used is this process's, which whoever asks for the load counts anyhow.
        return Offered(orders.answers(seconds), cancels.answers(seconds), generator_cpu_seconds=0.0)

    def _cancel(self, order: order_pb2.Order) -> Command:
        key = str(uuid.uuid4())
        request = Cancel(account_id=order.account_id, order_id=order.order_id, request_id=key)
        return Command(order.account_id, key, request, patient=False)

    async def _call(self, method: Any, command: Command, tally: _Tally, metadata: Any, placed: list[order_pb2.Order] | None) -> None:
        ledger, key, began = self._ledger, (command.account_id, command.key), time.monotonic()
        ledger.commands[key] = command
        try:
            answer = await method(command.request, metadata=metadata, timeout=PATIENCE_SECONDS)
        except grpc.aio.AioRpcError as error:
            failure = call_failure(error)
            if error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:
                ledger.lost[key] = failure
                tally.others[f"{failure.code} {failure.reason}"] += 1
                return
            ledger.refused[key] = failure
            tally.shed += 1
            tally.hinted += _hinted(error)
            return
        ledger.answers[key] = answer.order
        tally.ok.append(time.monotonic() - began)
        if placed is not None and answer.order.state == order_pb2.ORDER_STATE_PENDING_NEW:
            placed.append(answer.order)


def _hinted(error: grpc.aio.AioRpcError) -> bool:
    details = dict(error.trailing_metadata() or ()).get(DETAILS_KEY)
    if not isinstance(details, bytes):
        return False
    return any(detail.type_url.endswith(_RETRY_INFO) for detail in status_pb2.Status.FromString(details).details)
