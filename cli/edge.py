"""The way from the command line to the services: gRPC over TLS through the edge, with a user's token."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

import grpc
from google.protobuf.message import Message

from cli.access import Entrance
from cli.rpcs import Request, Response, Rpc
from cli.transport import Reply
from kernel.errors import Reason, UnauthenticatedError
from kernel.server_context import REPLAYED_HEADER
from kernel.status import from_rpc_error

ANSWER_BYTES_MAX = 16 * 1024 * 1024
_OPTIONS = (("grpc.max_receive_message_length", ANSWER_BYTES_MAX), ("grpc.use_local_subchannel_pool", 1))


class EdgeTransport:
    """Calls RPCs through an edge as the user that the tokens name.

    Args:
        entrance: the edge and the user.
        timeout_seconds: bound of a unary call.

    Raises:
        OSError: the authority's file cannot be read.
    """

    def __init__(self, entrance: Entrance, *, timeout_seconds: float = 10.0) -> None:
        credentials = grpc.ssl_channel_credentials(None if entrance.ca_file is None else entrance.ca_file.read_bytes())
        self._channel = grpc.secure_channel(entrance.endpoint, credentials, options=_OPTIONS)
        self._endpoint = entrance.endpoint
        self._tokens = entrance.tokens
        self._timeout_seconds = timeout_seconds

    def call(self, rpc: Rpc[Request, Response], request: Request) -> Reply[Response]:
        """Call a unary RPC, once more with a new token where the first had just expired: a refused token means that nothing was done."""
        try:
            return self._call(rpc, request)
        except UnauthenticatedError as error:
            if error.reason is not Reason.TOKEN_EXPIRED:
                raise
        self._tokens.renew()
        return self._call(rpc, request)

    def _call(self, rpc: Rpc[Request, Response], request: Request) -> Reply[Response]:
        method = self._channel.unary_unary(rpc.path, _serialize, rpc.response_type.FromString)
        with self._domain_errors(repeatable=rpc.repeatable):
            message, outcome = method.with_call(request, timeout=self._timeout_seconds, metadata=self._metadata())
        replayed = any(key == REPLAYED_HEADER and value == "true" for key, value in outcome.initial_metadata() or ())
        return Reply(message, replayed)

    def stream(self, rpc: Rpc[Request, Response], request: Request) -> Iterator[Response]:
        """Call a server-streaming RPC; closing the iterator ends the call."""
        call = self._channel.unary_stream(rpc.path, _serialize, rpc.response_type.FromString)(request, metadata=self._metadata())
        try:
            with self._domain_errors(repeatable=True):
                yield from call
        finally:
            call.cancel()

    def close(self) -> None:
        """Give up all connections."""
        self._channel.close()

    def _metadata(self) -> tuple[tuple[str, str], ...]:
        return (("authorization", f"Bearer {self._tokens.token().text}"),)

    @contextmanager
    def _domain_errors(self, *, repeatable: bool) -> Iterator[None]:
        try:
            yield
        except grpc.RpcError as error:
            # The blocking and the asyncio API raise different classes with the same methods.
            failure = cast("grpc.aio.AioRpcError", error)
            raise from_rpc_error(failure, dependency=f"the edge at {self._endpoint}", repeatable=repeatable) from error


def _serialize(message: Message) -> bytes:
    return message.SerializeToString()
