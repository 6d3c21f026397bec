"""RiskService: limits, exposures and kill switches."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Protocol, TypeVar

from kernel.errors import NotFoundError, Reason, TrademeshError
from kernel.event_records import from_position, to_position
from kernel.paging import PageTokens, page_size
from kernel.ports import LogPosition
from kernel.server_context import CallContext
from svc_risk.clients.orders import OrderControl
from svc_risk.codec import resources
from svc_risk.codec.events import read_exposure_change
from svc_risk.codec.states import write_reference_price, write_risk_state
from svc_risk.domain.administration import KillSwitch, check_kill_switch, check_limit, require_etag
from svc_risk.domain.vocabulary import ANY, KillSwitchScope, KillSwitchStatus, LimitScope
from svc_risk.servicer.access import Access
from svc_risk.servicer.writes import write
from svc_risk.store.administration import AdministrationStore, Change
from svc_risk.store.reads import ReadStore
from trademesh.risk.v1 import risk_service_pb2 as pb

_logger = logging.getLogger(__name__)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_VERSION_MAX = 2**31 - 1

SwitchResponse = TypeVar("SwitchResponse", pb.ActivateKillSwitchResponse, pb.ReleaseKillSwitchResponse)


class OrderLog(Protocol):
    """Where the consumer of order events stands."""

    async def position(self) -> LogPosition:
        """Return the position of svc_oms's log up to which order events are folded in."""
        ...


class RiskServicer:
    """Shows and sets what risk allows."""

    def __init__(
        self,
        administration: AdministrationStore,
        reads: ReadStore,
        access: Access,
        tokens: PageTokens,
        orders: OrderControl,
        order_log: OrderLog,
    ) -> None:
        self._administration = administration
        self._reads = reads
        self._access = access
        self._tokens = tokens
        self._orders = orders
        self._order_log = order_log

    async def GetRiskState(self, request: pb.GetRiskStateRequest, context: CallContext) -> pb.GetRiskStateResponse:  # noqa: N802 (the contract's name)
        """See the contract."""
        found = await self._reads.account(request.account_id)
        account = self._access.require_account(context.user, request.account_id, found)
        if request.HasField("min_position"):
            await self._reads.require_position(from_position(request.min_position))
        # Read first: the state then shows at least what the position says.
        order_position = await self._order_log.position()
        return write_risk_state(account, await self._reads.risk_state(request.account_id), order_position)

    async def ListReferencePrices(  # noqa: N802 (the contract's name)
        self, request: pb.ListReferencePricesRequest, context: CallContext
    ) -> pb.ListReferencePricesResponse:
        """See the contract. Market data belongs to no account."""
        found = await self._reads.reference_prices(request.instrument_ids)
        prices = [write_reference_price(instrument_id, *found[instrument_id]) for instrument_id in sorted(found)]
        return pb.ListReferencePricesResponse(prices=prices)

    async def ListLimits(self, request: pb.ListLimitsRequest, context: CallContext) -> pb.ListLimitsResponse:  # noqa: N802 (the contract's name)
        """See the contract."""
        viewer = self._access.viewer(context.user)
        filters = (str(request.scope), request.scope_id)
        size, token = page_size(request.page_size), self._tokens.read("limits", filters, request.page_token)
        after = (0, "", 0) if token is None else _limit_key(token)
        scope = LimitScope(request.scope) if request.scope else None
        found = await self._reads.limits(viewer, scope=scope, scope_id=request.scope_id, after=after, limit=size + 1)
        limits, more = found[:size], len(found) > size
        last = json.dumps([limits[-1].scope, limits[-1].scope_id, limits[-1].type], ensure_ascii=False) if more else ""
        return pb.ListLimitsResponse(
            limits=[resources.write_limit(limit) for limit in limits],
            next_page_token=self._tokens.issue("limits", filters, last) if more else "",
        )

    async def UpdateLimit(self, request: pb.UpdateLimitRequest, context: CallContext) -> pb.UpdateLimitResponse:  # noqa: N802 (the contract's name)
        """See the contract."""
        user = context.user
        wanted = resources.read_limit_request(request, 1, user.principal, _EPOCH)
        check_limit(wanted.scope, wanted.scope_id, wanted.type, wanted.value)
        self._access.require_limit(user, wanted.scope, wanted.scope_id)

        async def work(change: Change) -> pb.UpdateLimitResponse:
            if wanted.scope is LimitScope.ACCOUNT and wanted.scope_id != ANY:
                self._access.require_account(user, wanted.scope_id, await change.account(wanted.scope_id))
            if wanted.scope is LimitScope.INSTRUMENT and wanted.scope_id != ANY and await change.instrument(wanted.scope_id) is None:
                raise NotFoundError(Reason.INSTRUMENT_NOT_FOUND, "no such instrument")
            before = await change.limit(wanted.scope, wanted.scope_id, wanted.type)
            version = before.version if before is not None else 0
            require_etag(version, request.etag, "the limit")
            limit = replace(wanted, version=version + 1, update_time=change.now)
            await change.put_limit(limit, resources.limit_updated(limit, before, request.comment))
            return pb.UpdateLimitResponse(limit=resources.write_limit(limit))

        response, _ = await write(self._administration, request, context, pb.UpdateLimitResponse, work)
        return response

    async def ListExposureChanges(  # noqa: N802 (the contract's name)
        self, request: pb.ListExposureChangesRequest, context: CallContext
    ) -> pb.ListExposureChangesResponse:
        """See the contract."""
        account_id = request.account_id
        self._access.require_account(context.user, account_id, await self._reads.account(account_id))
        size, token = page_size(request.page_size), self._tokens.read("exposure", (account_id,), request.page_token)
        before = int(token) if token is not None else _VERSION_MAX
        events = await self._reads.exposure_history(account_id, before, size)
        more = len(events) == size and events[-1].version > 1
        return pb.ListExposureChangesResponse(
            changes=[read_exposure_change(event) for event in events],
            next_page_token=self._tokens.issue("exposure", (account_id,), str(events[-1].version)) if more else "",
        )

    async def ListKillSwitches(  # noqa: N802 (the contract's name)
        self, request: pb.ListKillSwitchesRequest, context: CallContext
    ) -> pb.ListKillSwitchesResponse:
        """See the contract."""
        viewer, filters = self._access.viewer(context.user), (str(request.active_only),)
        size, token = page_size(request.page_size), self._tokens.read("kill-switches", filters, request.page_token)
        after = _switch_key(token) if token is not None else None
        found = await self._reads.kill_switches(viewer, active_only=request.active_only, after=after, limit=size + 1)
        switches, more = found[:size], len(found) > size
        last = ""
        if more:
            time = (switches[-1].update_time - _EPOCH) // _MICROSECOND
            last = json.dumps([time, switches[-1].scope, switches[-1].scope_id], ensure_ascii=False)
        return pb.ListKillSwitchesResponse(
            kill_switches=[resources.write_kill_switch(switch) for switch in switches],
            next_page_token=self._tokens.issue("kill-switches", filters, last) if more else "",
        )

    async def ActivateKillSwitch(  # noqa: N802 (the contract's name)
        self, request: pb.ActivateKillSwitchRequest, context: CallContext
    ) -> pb.ActivateKillSwitchResponse:
        """See the contract."""
        scope, scope_id, principal = KillSwitchScope(request.scope), request.scope_id, context.user.principal

        def activated(before: KillSwitch | None, now: datetime) -> KillSwitch:
            version = before.version + 1 if before is not None else 1
            return KillSwitch(
                scope, scope_id, KillSwitchStatus.PENDING, version, principal, request.comment, request.cancel_open_orders, now
            )

        return await self._change_switch(request, context, pb.ActivateKillSwitchResponse, activated)

    async def ReleaseKillSwitch(  # noqa: N802 (the contract's name)
        self, request: pb.ReleaseKillSwitchRequest, context: CallContext
    ) -> pb.ReleaseKillSwitchResponse:
        """See the contract."""

        def released(before: KillSwitch | None, now: datetime) -> KillSwitch:
            if before is None:
                raise NotFoundError(Reason.KILL_SWITCH_NOT_FOUND, "no such kill switch")
            return replace(
                before,
                status=KillSwitchStatus.RELEASE_PENDING,
                version=before.version + 1,
                principal=context.user.principal,
                comment=request.comment,
                update_time=now,
            )

        return await self._change_switch(request, context, pb.ReleaseKillSwitchResponse, released)

    async def _change_switch(
        self,
        request: pb.ActivateKillSwitchRequest | pb.ReleaseKillSwitchRequest,
        context: CallContext,
        response_type: type[SwitchResponse],
        changed: Callable[[KillSwitch | None, datetime], KillSwitch],
    ) -> SwitchResponse:
        scope, scope_id, user = KillSwitchScope(request.scope), request.scope_id, context.user
        check_kill_switch(scope, scope_id)
        self._access.require_switch(user, scope, scope_id)

        async def work(change: Change) -> SwitchResponse:
            if scope is KillSwitchScope.ACCOUNT:
                self._access.require_account(user, scope_id, await change.account(scope_id))
            switch = changed(await change.kill_switch(scope, scope_id), change.now)
            await change.put_kill_switch(switch)
            return response_type(kill_switch=resources.write_kill_switch(switch))

        response, replayed = await write(self._administration, request, context, response_type, work)
        return response if replayed else await self._tell(request.request_id.lower(), response, response_type)

    async def _tell(self, request_id: str, response: SwitchResponse, response_type: type[SwitchResponse]) -> SwitchResponse:
        """Tell svc_oms before the answer; where that fails, the answer is PENDING, and a background task goes on telling."""

        def answer(switch: KillSwitch, position: LogPosition) -> SwitchResponse:
            return response_type(kill_switch=resources.write_kill_switch(switch), log_position=to_position(position))

        switch = resources.read_kill_switch(response.kill_switch)
        try:
            await self._orders.apply([switch])
            confirmed, position = await self._administration.confirm(switch, (request_id, answer))
        except TrademeshError as error:
            _logger.warning("kill switch %s/%s is pending: %s", switch.scope.name, switch.scope_id, error.message)
            return response
        return response if position is None else answer(confirmed, position)


def _limit_key(token: str) -> tuple[int, str, int]:
    scope, scope_id, limit_type = json.loads(token)
    return scope, scope_id, limit_type


def _switch_key(token: str) -> tuple[datetime, KillSwitchScope, str]:
    time, scope, scope_id = json.loads(token)
    return _EPOCH + time * _MICROSECOND, KillSwitchScope(scope), scope_id
