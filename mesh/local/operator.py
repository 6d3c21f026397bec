"""Calls services on their private sockets as the edge would: for the operator of this machine, for seeding, for tests and bench.

Who may read an instance's private directory may be anybody to it; that is the boundary of a mesh on one machine. The edge with its tokens
takes the place of this where it runs.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar, cast

import grpc
from google.protobuf.message import Message

from kernel.errors import Reason, TrademeshError, UnavailableError
from kernel.identity import CLAIMS_HEADER, PEER_HEADER, SECRET_HEADER, User, claims_header, xfcc
from kernel.server_context import REPLAYED_HEADER
from kernel.status import from_rpc_error
from mesh.local import report
from mesh.local.layout import Layout, running_supervisor
from mesh.local.report import State

TRUST_DOMAIN = "trademesh.local"
NAMESPACE = "trading"
SECRET_FILE = "sidecar-secret"  # noqa: S105 (a file's name)
CLAIMS_SECONDS = 3_600

_CHANNEL_OPTIONS = (("grpc.max_receive_message_length", 16 * 1024 * 1024), ("grpc.use_local_subchannel_pool", 1))

Response = TypeVar("Response", bound=Message)


@dataclass(frozen=True)
class Caller:
    """The user to act as."""

    principal: str
    tenant: str
    roles: tuple[str, ...]
    accounts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Endpoint:
    """One instance of a service on this machine."""

    instance: str
    socket: Path

    @property
    def target(self) -> str:
        """The gRPC target."""
        return f"unix:{self.socket}"

    def metadata(self, caller: Caller | None, *, peer: str = "edge") -> tuple[tuple[str, str | bytes], ...]:
        """Return the headers that the instance's sidecar would add to a call of this peer and user.

        Raises:
            UnavailableError: the instance's secret is gone, so it is not running.
        """
        try:
            secret = (self.socket.parent / SECRET_FILE).read_text().strip()
        except OSError as error:
            raise UnavailableError(Reason.DEPENDENCY_UNAVAILABLE, f"{self.instance} is not running here ({error.strerror})") from error
        headers: list[tuple[str, str | bytes]] = [
            (SECRET_HEADER, secret),
            (PEER_HEADER, xfcc(peer, trust_domain=TRUST_DOMAIN, namespace=NAMESPACE)),
        ]
        if caller is not None:
            expires_at = int(time.time()) + CLAIMS_SECONDS
            user = User(caller.principal, caller.tenant, frozenset(caller.roles), frozenset(caller.accounts), expires_at)
            headers.append((CLAIMS_HEADER, claims_header(user)))
        return tuple(headers)


@dataclass(frozen=True)
class Answer:
    """What a unary call returned, and whether it was the first answer to the same key again."""

    message: Any
    replayed: bool = False


def endpoints(layout: Layout, service: str) -> list[Endpoint]:
    """Return the instances of a service that answer now, ready ones first.

    Raises:
        UnavailableError: the mesh or the service does not run.
    """
    status = report.read(layout.status_file)
    if status is None or running_supervisor(layout) is None:
        raise UnavailableError(Reason.DEPENDENCY_UNAVAILABLE, f"no mesh runs in {layout.root}")
    known = [item for item in status.instances if item.service == service and item.pid is not None]
    if not known:
        raise UnavailableError(Reason.DEPENDENCY_UNAVAILABLE, f"no instance of {service} runs")
    known.sort(key=lambda item: item.state is not State.READY)
    return [Endpoint(item.name, Path(item.address)) for item in known]


class Operator:
    """A blocking client of all services of the mesh on this machine, for one user. A context manager; closes its channels.

    Args:
        layout: of the mesh.
        caller: whom to act as.
    """

    def __init__(self, layout: Layout, caller: Caller) -> None:
        self._layout = layout
        self.caller = caller
        self._channels: dict[str, grpc.Channel] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close all channels."""
        for channel in self._channels.values():
            channel.close()
        self._channels.clear()

    def call(
        self, service: str, path: str, request: Message, response_type: type[Response], *, repeatable: bool, timeout_seconds: float = 10.0
    ) -> Answer:
        """Call a unary RPC on the first instance that is there. A call that was sent is never sent again.

        Raises:
            TrademeshError: the service's own refusal, or what became of the call.
        """
        failure: TrademeshError | None = None
        for endpoint in endpoints(self._layout, service):
            method = self._channel(endpoint).unary_unary(path, _serialize, response_type.FromString)
            try:
                with _domain_errors(service, repeatable=repeatable):
                    message, outcome = method.with_call(request, timeout=timeout_seconds, metadata=endpoint.metadata(self.caller))
            except UnavailableError as error:
                # Nothing was persisted; a refusal of the service itself would be the same on the next replica.
                if error.metadata.get("grpc_code") is None:
                    raise
                failure = error
            else:
                replayed = any(key == REPLAYED_HEADER and value == "true" for key, value in outcome.initial_metadata() or ())
                return Answer(message, replayed)
        assert failure is not None
        raise failure

    def stream(
        self, service: str, path: str, request: Message, response_type: type[Response], *, timeout_seconds: float | None = None
    ) -> Iterator[Response]:
        """Call a server-streaming RPC on the first instance that answers; closing the iterator ends the call.

        Raises:
            TrademeshError: the stream broke or was refused.
        """
        endpoint = endpoints(self._layout, service)[0]
        method = self._channel(endpoint).unary_stream(path, _serialize, response_type.FromString)
        call = method(request, timeout=timeout_seconds, metadata=endpoint.metadata(self.caller))
        try:
            with _domain_errors(service, repeatable=True):
                yield from call
        finally:
            call.cancel()

    def _channel(self, endpoint: Endpoint) -> grpc.Channel:
        if endpoint.target not in self._channels:
            self._channels[endpoint.target] = grpc.insecure_channel(endpoint.target, options=_CHANNEL_OPTIONS)
        return self._channels[endpoint.target]


def _serialize(message: Message) -> bytes:
    return message.SerializeToString()


@contextmanager
def _domain_errors(service: str, *, repeatable: bool) -> Iterator[None]:
    try:
        yield
    except grpc.RpcError as error:
        # The blocking and the asyncio API raise different classes with the same methods.
        raise from_rpc_error(cast("grpc.aio.AioRpcError", error), dependency=service, repeatable=repeatable) from error
