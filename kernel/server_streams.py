"""Requests as they come off the wire: parsed and checked one by one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import Message

from kernel import validation
from kernel.errors import InvalidArgumentError, Reason
from kernel.server_policy import BoundMethod


def decode(method: BoundMethod, data: bytes) -> Message:
    """Return the request that the bytes hold, if its form is right.

    Raises:
        InvalidArgumentError: MESSAGE_TOO_LARGE, FIELD_INVALID or FIELD_UNKNOWN, checked in this order of cost.
    """
    request = _parse(method, data)
    _check(method, request)
    return request


def _parse(method: BoundMethod, data: bytes) -> Message:
    bytes_max = method.policy.request_bytes_max
    if len(data) > bytes_max:
        text = f"the message has {len(data)} bytes; {method.path} takes at most {bytes_max}"
        raise InvalidArgumentError(Reason.MESSAGE_TOO_LARGE, text, metadata={"bytes_max": str(bytes_max)})
    request: Message = validation.parse(method.request_type, data)
    return request


def _check(method: BoundMethod, request: Message) -> None:
    if method.policy.write:
        validation.refuse_unknown_fields(request)
    if method.policy.validate:
        validation.check(request)


@dataclass(frozen=True, slots=True)
class InvalidMessage:
    """A message of a client stream that breaks the contract: what was parsed of it, with unknown fields removed, and why it is refused.

    Only methods with `pass_invalid` see it; they answer it in the stream.
    """

    request: Message
    error: InvalidArgumentError


class CheckedRequests:
    """The requests of a client stream. Bytes that are no message, or too many, end it; so does a broken rule unless `pass_invalid`."""

    __slots__ = ("_method", "_requests")

    def __init__(self, method: BoundMethod, requests: AsyncIterator[bytes]) -> None:
        self._method = method
        self._requests = requests

    def __aiter__(self) -> CheckedRequests:
        return self

    async def __anext__(self) -> Any:
        """Return the next request, or an `InvalidMessage`.

        Raises:
            InvalidArgumentError: the message ends the stream.
            StopAsyncIteration: the caller has finished.
        """
        request = _parse(self._method, await anext(self._requests))
        try:
            _check(self._method, request)
        except InvalidArgumentError as error:
            if not self._method.policy.pass_invalid:
                raise
            return InvalidMessage(request, error)
        return request
