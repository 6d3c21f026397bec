"""The way from the command line to the services: through the edge (`cli.edge`); tests give their own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Generic, Protocol

from cli.rpcs import Request, Response, Rpc


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
