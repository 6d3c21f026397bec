"""A transport without sockets, and the command line over it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from google.protobuf.message import Message

from cli.main import main
from cli.rpcs import Request, Response, Rpc
from cli.session import Session
from cli.transport import Reply
from kernel.errors import TrademeshError
from mesh.local.layout import Layout
from mesh.local.operator import Caller

Handler = Callable[[Any], Message | TrademeshError]


@dataclass
class FakeServices:
    """Answers by method name, and remembers what it was asked and by whom. A stream's script is one list per connection."""

    answers: dict[str, Handler] = field(default_factory=dict)
    streams: list[list[Message | TrademeshError]] = field(default_factory=list)
    requests: list[Any] = field(default_factory=list)
    callers: list[Caller] = field(default_factory=list)
    replayed: bool = False

    def connect(self, layout: Layout, caller: Caller, timeout_seconds: float) -> FakeServices:
        """Stand in for the making of a transport."""
        self.callers.append(caller)
        return self

    def call(self, rpc: Rpc[Request, Response], request: Request) -> Reply[Response]:
        """Answer a unary call."""
        self.requests.append(request)
        answer = self.answers[rpc.path.rpartition("/")[2]](request)
        if isinstance(answer, TrademeshError):
            raise answer
        assert isinstance(answer, rpc.response_type)
        return Reply(answer, self.replayed)

    def stream(self, rpc: Rpc[Request, Response], request: Request) -> Iterator[Response]:
        """Play the next connection's script."""
        copy = type(request)()
        copy.CopyFrom(request)
        self.requests.append(copy)
        for item in self.streams.pop(0):
            if isinstance(item, TrademeshError):
                raise item
            yield cast("Response", item)

    def close(self) -> None:
        """Nothing is open."""


def run(services: FakeServices, *words: str) -> int:
    """Run the command line over fake services; return its exit code."""
    return main(words, session_factory=lambda settings: Session(settings, connect=services.connect))


def document(text: str) -> dict[str, Any]:
    """Return the one JSON document that standard output must consist of."""
    lines: Sequence[str] = text.splitlines()
    assert len(lines) == 1, f"one line of JSON was expected, not {text!r}"
    parsed: dict[str, Any] = json.loads(lines[0])
    return parsed
