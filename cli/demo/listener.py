"""A stream of order events, followed in the background while the demo trades."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from cli.watch import OrderFeed
from kernel.errors import TrademeshError
from trademesh.oms.v1 import order_pb2, order_service_pb2
from trademesh.type.v1 import log_position_pb2

_Event = order_service_pb2.StreamOrderEventsResponse


class Listener:
    """Collects what an account's stream says. Start it before the first order, stop it after the last."""

    def __init__(self, feed: OrderFeed) -> None:
        self._feed = feed
        self._changed = threading.Condition()
        self._events: list[_Event] = []
        self._live = False
        self._failure: TrademeshError | None = None
        self._thread = threading.Thread(target=self._listen, name="order stream", daemon=True)

    @property
    def gaps(self) -> int:
        """How many messages never came."""
        return self._feed.gaps

    @property
    def last_position(self) -> log_position_pb2.LogPosition | None:
        """Where the order log has the last event that came; None before the first."""
        return self._events[-1].event.log_position if self._events else None

    def start(self, *, timeout_seconds: float) -> bool:
        """Open the stream; return whether its snapshot came in time."""
        self._thread.start()
        return self._wait(lambda: self._live, timeout_seconds)

    def stop(self) -> None:
        """Close the stream and wait for its end."""
        self._feed.close()
        if self._thread.is_alive():
            self._thread.join(timeout=5.0)

    def await_order(self, order_id: str, done: Callable[[order_pb2.Order], bool], *, timeout_seconds: float) -> list[_Event]:
        """Return the events of an order so far once its last one satisfies `done`, or when the time is over.

        Raises:
            TrademeshError: the stream broke for good.
        """

        def satisfied() -> bool:
            own = self.of(order_id)
            return bool(own) and done(own[-1].event.order)

        self._wait(satisfied, timeout_seconds)
        return self.of(order_id)

    def of(self, order_id: str) -> list[_Event]:
        """Return the events of an order."""
        return [item for item in self._events if item.event.order.order_id == order_id]

    def executions(self) -> list[str]:
        """Return the ids of the executions that the stream showed."""
        return [item.event.execution.exec_id for item in self._events if item.event.HasField("execution")]

    def _listen(self) -> None:
        try:
            for message in self._feed.messages():
                with self._changed:
                    kind = message.WhichOneof("payload")
                    if kind == "event":
                        self._events.append(message)
                    elif kind == "snapshot" and message.snapshot.complete:
                        self._live = True
                    self._changed.notify_all()
        except TrademeshError as error:
            with self._changed:
                self._failure = error
                self._changed.notify_all()
        except ValueError:
            # gRPC's word for a call on a closed channel; closed by `stop`, or it is a defect.
            if not self._feed.closed:
                raise

    def _wait(self, condition: Callable[[], bool], timeout_seconds: float) -> bool:
        deadline = time.monotonic() + timeout_seconds
        with self._changed:
            while not condition():
                if self._failure is not None:
                    raise self._failure
                remaining = deadline - time.monotonic()
                if remaining <= 0:
                    return False
                self._changed.wait(remaining)
        return True
