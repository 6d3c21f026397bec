"""ReferenceDataService: accounts and instruments."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from google.protobuf.field_mask_pb2 import FieldMask

from kernel.errors import AlreadyExistsError, FieldViolation, InvalidArgumentError, NotFoundError, Reason
from kernel.paging import PageTokens, page_size
from kernel.server_context import CallContext
from svc_risk.codec import resources
from svc_risk.domain.administration import invalid_field, require_etag, updated_account, updated_instrument
from svc_risk.domain.policy import Instrument
from svc_risk.domain.vocabulary import AccountStatus, InstrumentStatus
from svc_risk.servicer.access import Access
from svc_risk.servicer.writes import write
from svc_risk.store.administration import AdministrationStore, Change
from svc_risk.store.reads import ReadStore
from trademesh.risk.v1 import reference_data_service_pb2 as pb

Item = TypeVar("Item")


class ReferenceDataServicer:
    """Creates and shows accounts and instruments."""

    def __init__(self, administration: AdministrationStore, reads: ReadStore, access: Access, tokens: PageTokens) -> None:
        self._administration = administration
        self._reads = reads
        self._access = access
        self._tokens = tokens

    async def CreateAccount(self, request: pb.CreateAccountRequest, context: CallContext) -> pb.CreateAccountResponse:  # noqa: N802 (the contract's name)
        """See the contract."""
        user = context.user

        async def work(change: Change) -> pb.CreateAccountResponse:
            if await change.account(request.account_id) is not None:
                raise _exists("account", request.account_id)
            account = resources.read_account_request(request, user.tenant, change.now)
            await change.put_account(account, resources.account_created(account, user.principal))
            return pb.CreateAccountResponse(account=resources.write_account(account))

        response, _ = await write(self._administration, request, context, pb.CreateAccountResponse, work)
        return response

    async def UpdateAccount(self, request: pb.UpdateAccountRequest, context: CallContext) -> pb.UpdateAccountResponse:  # noqa: N802 (the contract's name)
        """See the contract."""
        user, paths = context.user, _paths(request.update_mask, "display_name", "status")
        status = AccountStatus(_stated(request.status, "status")) if "status" in paths else None

        async def work(change: Change) -> pb.UpdateAccountResponse:
            account = self._access.require_account(user, request.account_id, await change.account(request.account_id))
            require_etag(account.version, request.etag, f"account {account.account_id}")
            name = request.display_name if "display_name" in paths else None
            account = updated_account(account, display_name=name, status=status, now=change.now)
            await change.put_account(account, resources.account_updated(account, user.principal))
            return pb.UpdateAccountResponse(account=resources.write_account(account))

        response, _ = await write(self._administration, request, context, pb.UpdateAccountResponse, work)
        return response

    async def GetAccount(self, request: pb.GetAccountRequest, context: CallContext) -> pb.GetAccountResponse:  # noqa: N802 (the contract's name)
        """See the contract."""
        found = await self._reads.account(request.account_id)
        account = self._access.require_account(context.user, request.account_id, found)
        return pb.GetAccountResponse(account=resources.write_account(account))

    async def ListAccounts(self, request: pb.ListAccountsRequest, context: CallContext) -> pb.ListAccountsResponse:  # noqa: N802 (the contract's name)
        """See the contract."""
        viewer = self._access.viewer(context.user)
        accounts, token = await self._page(
            "accounts",
            (viewer.tenant,),
            request,
            lambda after, limit: self._reads.accounts(viewer, after, limit),
            lambda account: account.account_id,
        )
        return pb.ListAccountsResponse(accounts=[resources.write_account(account) for account in accounts], next_page_token=token)

    async def CreateInstrument(  # noqa: N802 (the contract's name)
        self, request: pb.CreateInstrumentRequest, context: CallContext
    ) -> pb.CreateInstrumentResponse:
        """See the contract."""
        user = context.user
        self._access.require_firm(user, "an instrument")

        async def work(change: Change) -> pb.CreateInstrumentResponse:
            if await change.instrument(request.instrument_id) is not None:
                raise _exists("instrument", request.instrument_id)
            instrument = resources.read_instrument_request(request, change.now)
            await change.put_instrument(instrument, resources.instrument_created(instrument, user.principal))
            return pb.CreateInstrumentResponse(instrument=resources.write_instrument(instrument))

        response, _ = await write(self._administration, request, context, pb.CreateInstrumentResponse, work)
        return response

    async def UpdateInstrument(  # noqa: N802 (the contract's name)
        self, request: pb.UpdateInstrumentRequest, context: CallContext
    ) -> pb.UpdateInstrumentResponse:
        """See the contract."""
        user, paths = context.user, _paths(request.update_mask, "display_name", "status", "calendar")
        self._access.require_firm(user, "an instrument")
        status = InstrumentStatus(_stated(request.status, "status")) if "status" in paths else None
        calendar = resources.read_calendar(request.calendar) if "calendar" in paths else None

        async def work(change: Change) -> pb.UpdateInstrumentResponse:
            instrument = _found(request.instrument_id, await change.instrument(request.instrument_id))
            require_etag(instrument.version, request.etag, f"instrument {instrument.instrument_id}")
            name = request.display_name if "display_name" in paths else None
            instrument = updated_instrument(instrument, display_name=name, status=status, calendar=calendar, now=change.now)
            await change.put_instrument(instrument, resources.instrument_updated(instrument, user.principal))
            return pb.UpdateInstrumentResponse(instrument=resources.write_instrument(instrument))

        response, _ = await write(self._administration, request, context, pb.UpdateInstrumentResponse, work)
        return response

    async def GetInstrument(self, request: pb.GetInstrumentRequest, context: CallContext) -> pb.GetInstrumentResponse:  # noqa: N802 (the contract's name)
        """See the contract."""
        instrument = _found(request.instrument_id, await self._reads.instrument(request.instrument_id))
        return pb.GetInstrumentResponse(instrument=resources.write_instrument(instrument))

    async def ListInstruments(  # noqa: N802 (the contract's name)
        self, request: pb.ListInstrumentsRequest, context: CallContext
    ) -> pb.ListInstrumentsResponse:
        """See the contract."""
        instruments, token = await self._page(
            "instruments", (), request, self._reads.instruments, lambda instrument: instrument.instrument_id
        )
        return pb.ListInstrumentsResponse(
            instruments=[resources.write_instrument(instrument) for instrument in instruments], next_page_token=token
        )

    async def _page(
        self,
        name: str,
        filters: tuple[str, ...],
        request: pb.ListAccountsRequest | pb.ListInstrumentsRequest,
        read: Callable[[str, int], Awaitable[Sequence[Item]]],
        key: Callable[[Item], str],
    ) -> tuple[Sequence[Item], str]:
        size = page_size(request.page_size)
        after = self._tokens.read(name, filters, request.page_token) or ""
        items = await read(after, size + 1)
        token = self._tokens.issue(name, filters, key(items[size - 1])) if len(items) > size else ""
        return items[:size], token


def _paths(mask: FieldMask, *known: str) -> frozenset[str]:
    paths = frozenset(mask.paths)
    unknown = sorted(paths - frozenset(known))
    if unknown or not paths:
        text = f"must name at least one of {', '.join(known)}" + (f", and not {unknown[0][:64]}" if unknown else "")
        raise InvalidArgumentError(
            Reason.UPDATE_MASK_INVALID, f"update_mask {text}", field_violations=(FieldViolation("update_mask", "field_mask", text),)
        )
    return paths


def _stated(value: int, field: str) -> int:
    if not value:
        raise invalid_field(field, "enum.not_in", "must be stated where the update mask names it")
    return value


def _exists(kind: str, name: str) -> AlreadyExistsError:
    metadata: dict[str, Any] = {"resource_type": kind, "resource_name": name}
    return AlreadyExistsError(Reason.RESOURCE_EXISTS, f"the {kind} exists already", metadata=metadata)


def _found(instrument_id: str, instrument: Instrument | None) -> Instrument:
    if instrument is None:
        metadata = {"resource_type": "instrument", "resource_name": instrument_id}
        raise NotFoundError(Reason.INSTRUMENT_NOT_FOUND, "no such instrument", metadata=metadata)
    return instrument
