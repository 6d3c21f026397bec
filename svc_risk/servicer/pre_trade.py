"""PreTradeService: checks for svc_oms."""

from __future__ import annotations

from collections.abc import Sequence

from kernel import validation
from kernel.batcher import Batcher, Lane
from kernel.errors import TrademeshError
from kernel.ports import Clock
from kernel.server_context import NO_DEADLINE, CallContext
from kernel.telemetry import Sample
from kernel.wire import Serialized
from svc_risk.codec.checks import check_response, read_check, read_plain_check, respell
from svc_risk.domain.check import OrderCheck
from svc_risk.store.checks import Answer, CheckStore
from trademesh.risk.v1 import pre_trade_service_pb2

ORDERS_MAX = 1_000
"""Orders in one CheckOrders, and in one transaction."""
_LANE = "checks"
_BOUNDS = Lane(batch_size_max=ORDERS_MAX, queue_max=16 * ORDERS_MAX)


class PreTradeServicer:
    """Decides what svc_oms asks; calls that come together are decided in one transaction.

    One transaction is under way at a time: a second one would mostly wait for the accounts of the first, and be smaller for it.
    """

    def __init__(self, store: CheckStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._batcher: Batcher[OrderCheck, Answer] = Batcher(self._flush, {_LANE: _BOUNDS}, clock)

    async def close(self) -> None:
        """Serve what waits, and refuse the rest."""
        await self._batcher.close()

    def samples(self) -> list[Sample]:
        """Return the batcher's metrics."""
        statistics, labels = self._batcher.statistics(_LANE), (("lane", _LANE),)
        return [
            Sample("batch_items_total", statistics.items, labels),
            Sample("batch_flushes_total", statistics.flushes, labels),
            Sample("batch_refused_total", statistics.refused, labels),
            Sample("batch_flush_seconds", statistics.flush_seconds_last, labels),
            Sample("batch_queue_depth", self._batcher.queued(_LANE), labels),
        ]

    async def CheckOrders(  # noqa: N802 (the contract's name)
        self, request: pre_trade_service_pb2.CheckOrdersRequest, context: CallContext
    ) -> Serialized:
        """See the contract."""
        checks, plain = _read(request)
        context.batch_size = len(checks)
        deadline = None if context.deadline == NO_DEADLINE else self._clock.monotonic() + context.remaining_seconds()
        results, position = [], None
        for answer in await self._batcher.submit_many(_LANE, checks, deadline=deadline):
            if isinstance(answer, TrademeshError):
                raise answer
            encoded, shown_at = answer
            results.append(encoded)
            position = shown_at or position
        if not plain:
            results = [respell(result, order.request_id) for result, order in zip(results, request.orders, strict=True)]
        return check_response(results, position)

    async def _flush(self, lane: str, checks: Sequence[OrderCheck]) -> Sequence[Answer]:
        return await self._store.decide(checks)


def _read(request: pre_trade_service_pb2.CheckOrdersRequest) -> tuple[list[OrderCheck], bool]:
    """The checks of a request, and whether all were plain. What is not plain is judged by the contract's rules, which find what is wrong.

    Raises:
        InvalidArgumentError: a rule is broken.
    """
    checks = [check for order in request.orders if (check := read_plain_check(order)) is not None]
    if len(checks) == len(request.orders) and 1 <= len(checks) <= ORDERS_MAX:
        return checks, True
    validation.check(request)
    return [read_check(order) for order in request.orders], False
