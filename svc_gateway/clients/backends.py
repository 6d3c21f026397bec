"""Calls to the services behind the gateway, each with the user's own token."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from typing import Any

import grpc
from google.protobuf.message import Message

from kernel.errors import Reason, UnavailableError
from svc_gateway.codec.catalogue import Method


class Backends:
    """The services, by name such as `svc-oms`.

    Args:
        channels: a channel for each service that is configured; calls to the others are refused as unavailable.
    """

    def __init__(self, channels: Mapping[str, grpc.aio.Channel]) -> None:
        self._channels = channels
        self._calls: dict[str, Any] = {}

    async def call(self, method: Method, request: Message, authorization: str) -> Message:
        """Return the answer to a unary call; its deadline is the channel's.

        Raises:
            TrademeshError: what the service answered, or that it did not.
        """
        answer: Message = await self._rpc(method)(request, metadata=(("authorization", authorization),))
        return answer

    def stream(self, method: Method, request: Message, authorization: str) -> AsyncGenerator[Message, None]:
        """Return the messages of a stream, read one at a time: who stops asking stops the service, and closing it cancels the call.

        Raises:
            TrademeshError: what the service answered, or that it did not.
        """
        messages: AsyncGenerator[Message, None] = self._rpc(method)(request, metadata=(("authorization", authorization),))
        return messages

    def _rpc(self, method: Method) -> Any:
        rpc = self._calls.get(method.path)
        if rpc is None:
            channel = self._channels.get(method.backend)
            if channel is None:
                raise UnavailableError(
                    Reason.DEPENDENCY_UNAVAILABLE,
                    f"{method.backend} is not part of this deployment",
                    metadata={"dependency": method.backend},
                )
            make = channel.unary_stream if method.streaming else channel.unary_unary
            rpc = self._calls[method.path] = make(method.path, method.request_type.SerializeToString, method.response_type.FromString)
        return rpc
