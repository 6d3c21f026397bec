"""The network between hosts: TCP connections for FIX, and how long and how surely a message of any kind travels."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.simulation.chain.hosts import Host
from tests.simulation.chain.loop import HOST, SimLoop

CHUNK_SHARE = 0.1
"""How often a write arrives in two pieces."""


@dataclass(slots=True)
class Weather:
    """How bad the network is; chaos changes it.

    Attributes:
        latency_ms: of most messages, on average.
        slow_share: of messages that take up to `slow_ms`.
        slow_ms: the longest that a slow one takes.
        loss_share: of answers to calls and of datagrams that are lost.
        twice_share: of calls that are delivered twice.
    """

    latency_ms: float = 0.5
    slow_share: float = 0.01
    slow_ms: float = 40.0
    loss_share: float = 0.0
    twice_share: float = 0.0


@dataclass(frozen=True, slots=True)
class Frame:
    """Bytes that a host wrote to a connection: what a tap on its wire shows."""

    moment: float
    sender: str
    receiver: str
    connection: int
    data: bytes


class Network:
    """All links. Two hosts may be cut off from each other; what was written to a connection waits then, a call does not."""

    def __init__(self, loop: SimLoop, dice: random.Random) -> None:
        self.loop = loop
        self.dice = dice
        self.weather = Weather()
        self.tape: list[Frame] = []
        self._listeners: dict[int, tuple[Host, Callable[[], Any]]] = {}
        self._cuts: dict[frozenset[str], float] = {}
        self._connections = 0
        loop.network = self

    def latency(self) -> float:
        """Return how long the next message travels, in seconds."""
        weather = self.weather
        if self.dice.random() < weather.slow_share:
            return self.dice.uniform(0.0, weather.slow_ms) / 1_000
        return self.dice.expovariate(1.0) * weather.latency_ms / 1_000

    def cut(self, one: Host, other: Host, seconds: float) -> None:
        """Cut two hosts off from each other for a while."""
        key = frozenset((one.name, other.name))
        self._cuts[key] = max(self._cuts.get(key, 0.0), self.loop.time() + seconds)

    def healed_at(self, one: Host, other: Host) -> float:
        """Return when the two can speak (again): now, unless they are cut off."""
        return max(self.loop.time(), self._cuts.get(frozenset((one.name, other.name)), 0.0))

    def heal(self) -> None:
        """End every cut."""
        self._cuts.clear()

    def listen(self, factory: Callable[[], Any], _: Any, port: int) -> SimServer:
        """Accept connections to a port; on the host that runs."""
        host: Host = HOST.get()
        self._listeners[port] = host, factory
        host.on_death(lambda: self.close_port(port, host))
        return SimServer(self, host, port)

    def close_port(self, port: int, host: Host) -> None:
        """Refuse connections to a port from now on."""
        if port in self._listeners and self._listeners[port][0] is host:
            del self._listeners[port]

    async def connect(self, factory: Callable[[], Any], _: Any, port: int) -> tuple[SimTransport, Any]:
        """Connect from the host that runs to whoever listens on a port.

        Raises:
            ConnectionRefusedError: nobody does.
        """
        here: Host = HOST.get()
        await asyncio.sleep(self.latency())
        listener = self._listeners.get(port)
        if listener is None:
            raise ConnectionRefusedError(f"nobody listens on port {port}")
        there, accept = listener
        await asyncio.sleep(self.healed_at(here, there) - self.loop.time())
        if self._listeners.get(port) != listener or not here.alive:
            raise ConnectionRefusedError(f"nobody listens on port {port}")
        self._connections += 1
        near = SimTransport(self, here, self._connections)
        far = SimTransport(self, there, self._connections)
        near.join(far, factory())
        far.join(near, accept())
        near.protocol.connection_made(near)
        there.context.copy().run(far.protocol.connection_made, far)
        return near, near.protocol


class SimServer:
    """A listening socket."""

    def __init__(self, network: Network, host: Host, port: int) -> None:
        self._network = network
        self._host = host
        self._port = port
        self.sockets = (self,)

    def getsockname(self) -> tuple[str, int]:
        """Return the address."""
        return self._host.name, self._port

    def close(self) -> None:
        """Listen no more."""
        self._network.close_port(self._port, self._host)


class SimTransport(asyncio.Transport):
    """One end of a connection. Bytes arrive in order, in pieces of any size, once or (after an abort) not at all."""

    def __init__(self, network: Network, host: Host, connection: int) -> None:
        super().__init__()
        self._network = network
        self._host = host
        self._connection = connection
        self._arriving: deque[bytes | None] = deque()
        self._last_arrival = 0.0
        self._closing = False
        self._lost = False
        self.protocol: Any = None
        self.peer: SimTransport = self
        host.on_death(self._die)

    def join(self, peer: SimTransport, protocol: Any) -> None:
        """Connect this end with the other one and with its protocol."""
        self.peer, self.protocol = peer, protocol

    def write(self, data: Any) -> None:
        """See `asyncio.Transport.write`."""
        if self._closing or not data:
            return
        network = self._network
        network.tape.append(Frame(network.loop.time(), self._host.name, self.peer._host.name, self._connection, bytes(data)))
        pieces = [bytes(data)]
        if len(data) > 1 and network.dice.random() < CHUNK_SHARE:
            where = network.dice.randrange(1, len(data))
            pieces = [bytes(data[:where]), bytes(data[where:])]
        for piece in pieces:
            self.peer._expect(piece)

    def _expect(self, piece: bytes | None) -> None:
        """Something is on its way to this end; None is the end of the stream."""
        network = self._network
        arrival = max(network.healed_at(self._host, self.peer._host) + network.latency(), self._last_arrival)
        self._last_arrival = arrival
        self._arriving.append(piece)
        network.loop.call_at(arrival, self._arrive, context=self._host.context.copy())

    def _arrive(self) -> None:
        # In the order of sending, whichever of the callbacks runs first.
        if self._lost or not self._arriving:
            return
        piece = self._arriving.popleft()
        if piece is None:
            self._lose(ConnectionResetError("the peer is gone"))
        else:
            self.protocol.data_received(piece)

    def close(self) -> None:
        """See `asyncio.Transport.close`: what was written arrives."""
        if not self._closing:
            self._closing = True
            self.peer._expect(None)
            self._network.loop.call_soon(self._lose, None, context=self._host.context.copy())

    def abort(self) -> None:
        """See `asyncio.WriteTransport.abort`: what is on its way to the peer may be lost."""
        if not self._closing:
            self._closing = True
            if self._network.dice.random() < 0.5:
                self.peer._arriving.clear()
            self.peer._expect(None)
            self._network.loop.call_soon(self._lose, None, context=self._host.context.copy())

    def _die(self) -> None:
        if not self._closing:
            self._closing = self._lost = True
            self.peer._expect(None)

    def _lose(self, error: Exception | None) -> None:
        if not self._lost:
            self._lost = True
            self._closing = True
            self.protocol.connection_lost(error)

    def is_closing(self) -> bool:
        """See `asyncio.BaseTransport.is_closing`."""
        return self._closing

    def get_write_buffer_size(self) -> int:
        """Nothing waits here: the network takes it all."""
        return 0

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """There is no buffer to limit."""

    def pause_reading(self) -> None:
        """Bytes go on arriving; the reader's own limit is not what is tested here."""

    def resume_reading(self) -> None:
        """See `pause_reading`."""

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """There is none."""
        return default
