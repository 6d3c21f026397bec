"""The way from the command line to the services. With the edge, a `Transport` that carries a token takes this one's place."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Generic, Protocol

from cli.rpcs import Request, Response, Rpc
from mesh.local.layout import Layout
from mesh.local.operator import Caller, Operator


@dataclass(frozen=True)
class Reply(Generic[Response]):
    """The answer to a call, and whether it is the first answer to the same key again."""

    message: Response
    replayed: bool


class Transport(Protocol):
    """Calls RPCs as one user. Every failure is a `TrademeshError`."""

    def call(self, rpc: Rpc[Request, Response], request: Request) -> Reply[Response]:
        """Call a unary RPC."""
        ...

    def stream(self, rpc: Rpc[Request, Response], request: Request) -> Iterator[Response]:
        """Call a server-streaming RPC; closing the iterator ends the call."""
        ...

    def close(self) -> None:
        """Give up all connections."""
        ...


class PrivateSocketTransport:
    """Reaches the services of this machine's mesh on their private sockets, as the operator who owns them.

    Args:
        layout: where the mesh keeps its state.
        caller: whom to act as; nobody checks a token here.
        timeout_seconds: bound of a unary call.
    """

    def __init__(self, layout: Layout, caller: Caller, *, timeout_seconds: float = 10.0) -> None:
        self._operator = Operator(layout, caller)
        self._timeout_seconds = timeout_seconds

    def call(self, rpc: Rpc[Request, Response], request: Request) -> Reply[Response]:
        """Call a unary RPC."""
        answer = self._operator.call(
            rpc.service, rpc.path, request, rpc.response_type, repeatable=rpc.repeatable, timeout_seconds=self._timeout_seconds
        )
        return Reply(answer.message, answer.replayed)

    def stream(self, rpc: Rpc[Request, Response], request: Request) -> Iterator[Response]:
        """Call a server-streaming RPC."""
        return self._operator.stream(rpc.service, rpc.path, request, rpc.response_type)

    def close(self) -> None:
        """Give up all connections."""
        self._operator.close()
