"""What all writes share: once per request id, and a header on replays."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from google.protobuf.message import Message

from kernel.keyed_requests import Request, Written
from kernel.server_context import CallContext
from svc_risk.codec.resources import command_hash
from svc_risk.store.administration import AdministrationStore, Change

Response = TypeVar("Response", bound=Message)


async def write(
    store: AdministrationStore,
    request: Any,
    context: CallContext,
    response_type: type[Response],
    work: Callable[[Change], Awaitable[Response]],
) -> Written[Response]:
    """Make a change once and return its answer; that of the first call, with a header that says so, for a repetition."""
    user = context.user
    key = Request(request.request_id.lower(), command_hash(user.tenant, user.principal, request), response_type)
    written = await store.write(key, work)
    if written.replayed:
        context.mark_replayed()
    return written
