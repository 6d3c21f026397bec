"""Following an account's orders: one stream over many connections."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import click

from cli import rpcs
from cli.exits import Exit
from cli.orders import side_name
from cli.output import Output, clock_time, enum_name
from cli.session import Session, command, with_session
from cli.transport import Transport
from kernel import validation
from kernel.errors import Reason, TrademeshError, UnavailableError
from trademesh.oms.v1 import order_pb2, order_service_pb2

RECONNECT_SECONDS_MIN = 0.2
RECONNECT_SECONDS_MAX = 5.0

_Message = order_service_pb2.StreamOrderEventsResponse


@dataclass
class OrderFeed:
    """A stream of order events that goes on after the last message seen when its connection breaks.

    Attributes:
        transport: the way to the service.
        request: what to watch; its resume token, if any, is where to begin.
        gaps: messages that never came, counted by the sequence and by heartbeats. Anything but 0 is a defect.
        connections: how often the stream was opened.
        give_up_seconds: how long it may stay unreachable before the failure is raised; None for ever.
    """

    transport: Transport
    request: order_service_pb2.StreamOrderEventsRequest
    on_break: Callable[[TrademeshError], None] = lambda error: None
    give_up_seconds: float | None = None
    gaps: int = 0
    connections: int = 0
    last_sequence: int = 0
    closed: bool = False

    def close(self) -> None:
        """End the stream, from whichever thread."""
        self.closed = True
        self.transport.close()

    def messages(self) -> Iterator[_Message]:
        """Yield every message, heartbeats included, over as many connections as it takes, until `close`.

        Raises:
            TrademeshError: the stream was refused, or stayed unreachable for too long.
        """
        pause_seconds, broken_since = RECONNECT_SECONDS_MIN, time.monotonic()
        while True:
            self.connections += 1
            try:
                for message in self.transport.stream(rpcs.STREAM_ORDER_EVENTS, self.request):
                    pause_seconds, broken_since = RECONNECT_SECONDS_MIN, time.monotonic()
                    self._note(message)
                    yield message
                failure: TrademeshError = UnavailableError(Reason.DEPENDENCY_UNAVAILABLE, "the service closed the stream")
            except UnavailableError as error:
                failure = error
            if self.closed:
                return
            if self.give_up_seconds is not None and time.monotonic() - broken_since > self.give_up_seconds:
                raise failure
            self.on_break(failure)
            time.sleep(pause_seconds)
            pause_seconds = min(2 * pause_seconds, RECONNECT_SECONDS_MAX)

    def _note(self, message: _Message) -> None:
        """Count what is missing, and remember where to go on."""
        if message.WhichOneof("payload") == "heartbeat":
            self.gaps += max(0, message.heartbeat.last_sequence - self.last_sequence)
            self.last_sequence = max(self.last_sequence, message.heartbeat.last_sequence)
            return
        # A resumed stream's first message may have any number; from then on they are contiguous.
        if self.last_sequence and message.sequence > self.last_sequence + 1:
            self.gaps += message.sequence - self.last_sequence - 1
        self.last_sequence = max(self.last_sequence, message.sequence)
        if message.resume_token:
            self.request.resume_token = message.resume_token


@command()
@click.option("--account", required=True, metavar="ACCOUNT", help="The account, such as ACC-1.")
@click.option("--instrument", default="", metavar="INSTRUMENT", help="Only orders of this instrument.")
@click.option("--resume", "resume_token", default="", metavar="TOKEN", help="Go on after the message that carried this token.")
@click.option("--count", type=click.IntRange(1), metavar="COUNT", help="End after this many order events.")
@with_session
def watch(session: Session, account: str, instrument: str, resume_token: str, count: int | None) -> int:
    """Follow the orders of an account: the open ones, then every change. Ctrl-C ends it."""
    request = order_service_pb2.StreamOrderEventsRequest(account_id=account, instrument_id=instrument, resume_token=resume_token)
    validation.check(request)
    output = session.output
    feed = OrderFeed(session.transport(account), request, on_break=lambda error: output.note(f"{error.message}; connecting again"))
    seen = 0
    for message in feed.messages():
        if output.as_json:
            output.document(message)
        else:
            show(output, message)
        seen += message.WhichOneof("payload") == "event"
        if count is not None and seen >= count:
            output.note(f"go on later with --resume {request.resume_token}")
            break
    return Exit.DONE


def show(output: Output, message: _Message) -> None:
    """Write one message of the stream for people; heartbeats are silent."""
    for text in _lines(message):
        output.line(f"{message.sequence:>6}  {clock_time(message.server_time)}  {text}")


def _lines(message: _Message) -> list[str]:
    match message.WhichOneof("payload"):
        case "snapshot":
            open_orders = [f"{'open':15}  {describe(item)}" for item in message.snapshot.orders]
            return [*open_orders, "-- live --"] if message.snapshot.complete else open_orders
        case "event":
            what = message.event.type.rpartition(".")[2].removeprefix("Order")
            return [f"{what:15}  {describe(message.event.order)}{_fill(message)}"]
        case "resync":
            return ["-- the view broke; a new snapshot follows --"]
        case "end":
            return [f"-- the service ends the stream: {message.end.status.message or 'done'} --"]
        case _:
            return []


def describe(item: order_pb2.Order) -> str:
    """Return an order in one line."""
    price = item.limit_price if item.HasField("limit_price") else "market"
    state = enum_name(order_pb2.OrderState, item.state, "ORDER_STATE_")
    terms = f"{side_name(item.side):4} {item.quantity} {item.instrument_id} @ {price}"
    return f"{item.order_id[:8]}  {terms}  {state}, filled {item.filled_quantity or '0'}"


def _fill(message: _Message) -> str:
    if not message.event.HasField("execution"):
        return ""
    return f"  [{message.event.execution.last_quantity} @ {message.event.execution.last_price}]"
