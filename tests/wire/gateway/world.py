"""A gateway replica over a real backend: HTTP on a UNIX socket, gRPC on another, and this test in the sidecars' place."""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import grpc
from grpc_status import rpc_status

from kernel.clock import SystemClock
from kernel.config import Secret
from kernel.errors import TrademeshError
from kernel.grpc_client import ClientConfig, MeshChannel
from kernel.identity import CLAIMS_HEADER, PEER_HEADER, SECRET_HEADER, Authenticator, Identity, User, claims_header, xfcc
from kernel.server_context import CallContext
from kernel.status import to_status
from kernel.streams import EnvelopeStream, Item, Mailbox, ResumeTokens
from svc_gateway.clients.backends import Backends
from svc_gateway.codec.catalogue import Catalogue
from svc_gateway.main import HttpServer, application
from svc_gateway.servicer.door import Doorkeeper
from svc_gateway.servicer.reference import Reference
from svc_gateway.servicer.sockets import Sockets, SocketSettings
from svc_gateway.servicer.tickets import TicketDesk
from svc_gateway.store.tickets import NoTickets, TicketStore
from trademesh.oms.v1 import order_pb2, order_service_pb2, order_service_pb2_grpc

SECRET = "a-secret-of-this-test-run"
KEY = Secret("a key of this test run, long enough")
ORIGIN = "https://app.example.com"
PROTOCOL = "trademesh.v1+json"
STREAM = "trademesh.oms.v1.OrderService/StreamOrderEvents"
GET = "trademesh.oms.v1.OrderService/GetOrder"
LIST = "trademesh.oms.v1.OrderService/ListOrders"
ORDER_ID = "0190d4f4-5c6e-7000-8000-000000000001"
DEADLINE_SECONDS = 15
OPENAPI = Path(__file__).parents[3] / "gen" / "openapi" / "trademesh.json"

Envelope = order_service_pb2.StreamOrderEventsResponse


def bearer(caller: User) -> str:
    """Return what a token of the user looks like; nobody here checks signatures, sidecars do."""
    return f"Bearer eyJhbGciOiJFUzI1NiJ9.{claims_header(caller)}.c2lnbmF0dXJl"


def headers(caller: User | None = None, *, secret: str = SECRET, peer: str = "edge", **more: str) -> dict[str, str]:
    """Return a request's headers as the sidecar hands them on; without a user where None is given."""
    found = {SECRET_HEADER: secret, PEER_HEADER: xfcc(peer, trust_domain="trademesh.local", namespace="trading")}
    if caller is not None:
        found |= {"Authorization": bearer(caller), CLAIMS_HEADER: claims_header(caller)}
    return found | {name.replace("_", "-"): text for name, text in more.items()}


class Events:
    """A log of order events that streams follow, resume and may have lost the beginning of."""

    def __init__(self) -> None:
        self.count = 0
        self.oldest = 0
        self.mailboxes: set[Mailbox[Envelope]] = set()

    def item(self, number: int) -> Item[Envelope]:
        message = Envelope()
        message.event.type = "oms.v1.OrderAcknowledged"
        message.event.order.order_id = str(number)
        return Item(message, str(number))

    def append(self, count: int = 1) -> None:
        for _ in range(count):
            self.count += 1
            for mailbox in list(self.mailboxes):
                mailbox.put(self.item(self.count))


class EventSource:
    """One stream over the log."""

    def __init__(self, events: Events) -> None:
        self._events = events
        self._mailbox: Mailbox[Envelope] | None = None

    async def snapshot(self, mailbox: Mailbox[Envelope]) -> AsyncIterator[Item[Envelope]]:
        self._follow(mailbox)
        message = Envelope()
        message.snapshot.complete = True
        message.snapshot.log_position.position = self._events.count
        yield Item(message, str(self._events.count))

    async def resume(self, position: str, mailbox: Mailbox[Envelope]) -> None:
        self._follow(mailbox)
        for number in range(int(position) + 1, self._events.count + 1):
            mailbox.put(self._events.item(number))

    def _follow(self, mailbox: Mailbox[Envelope]) -> None:
        self._mailbox = mailbox
        self._events.mailboxes.add(mailbox)

    async def close(self) -> None:
        if self._mailbox is not None:
            self._events.mailboxes.discard(self._mailbox)


class FakeOrders(order_service_pb2_grpc.OrderServiceServicer):
    """Speaks the order contract, with streams of the kernel's own kind, and notes whose token came with each call."""

    def __init__(self) -> None:
        self.events = Events()
        self.authorizations: list[str] = []
        self.traces: list[str] = []
        self.deadlines: list[float | None] = []
        self.refusal: TrademeshError | None = None
        self.hangs = False
        self.flood_bytes = 0
        self.sent = 0
        self.streams = 0
        self.mailbox_messages_max = 1_024
        self._tokens = ResumeTokens(KEY)

    async def GetOrder(self, request: Any, context: Any) -> order_service_pb2.GetOrderResponse:  # noqa: N802 (the contract's name)
        await self._note(context)
        return order_service_pb2.GetOrderResponse(order=order_pb2.Order(order_id=request.order_id, account_id=request.account_id))

    async def ListOrders(self, request: Any, context: Any) -> order_service_pb2.ListOrdersResponse:  # noqa: N802 (as above)
        await self._note(context)
        order = order_pb2.Order(state=order_pb2.ORDER_STATE_NEW, version=1 << 60)
        return order_service_pb2.ListOrdersResponse(orders=[order], next_page_token=request.page_token)

    async def StreamOrderEvents(self, request: Any, context: Any) -> AsyncIterator[Envelope]:  # noqa: N802 (as above)
        await self._note(context)
        self.streams += 1
        try:
            async for message in self._flood() if self.flood_bytes else self._stream(request):
                self.sent += 1
                yield message
        finally:
            self.streams -= 1

    def _stream(self, request: Any) -> AsyncIterator[Envelope]:
        caller = _user_of(self.authorizations[-1])
        stream = EnvelopeStream(
            Envelope,
            EventSource(self.events),
            CallContext(Identity("svc-gateway", caller, ""), method=f"/{STREAM}"),
            self._tokens,
            SystemClock(),
            filters=(request.account_id,),
            mailbox_messages_max=self.mailbox_messages_max,
        )
        return stream.run(request.resume_token)

    async def _flood(self) -> AsyncIterator[Envelope]:
        sequence = 0
        while True:
            sequence += 1
            message = Envelope(sequence=sequence)
            message.event.type = "x" * self.flood_bytes
            yield message

    async def _note(self, context: Any) -> None:
        metadata = dict(context.invocation_metadata())
        self.traces.append(metadata.get("traceparent", ""))
        self.authorizations.append(metadata.get("authorization", ""))
        self.deadlines.append(context.time_remaining())
        if self.hangs:
            await asyncio.Event().wait()
        if self.refusal is not None:
            await context.abort_with_status(rpc_status.to_status(to_status(self.refusal)))


def _user_of(authorization: str) -> User:
    payload = authorization.split(".")[1]
    claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    return User(claims["sub"], claims["tenant"], frozenset(claims["roles"]), frozenset(claims["accounts"]), claims["exp"])


class Socket:
    """A client's end of a WebSocket."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket

    async def send(self, **members: Any) -> None:
        await self.socket.send_json(members)

    async def call(self, call_id: str, method: str, **request: Any) -> None:
        await self.send(id=call_id, method=method, request=request)

    async def frame(self) -> dict[str, Any]:
        """Return the next frame."""
        async with asyncio.timeout(DEADLINE_SECONDS):
            frame: dict[str, Any] = await self.socket.receive_json()
        return frame

    async def message(self, call_id: str) -> dict[str, Any]:
        """Return the next frame, which must be a message of the call."""
        frame = await self.frame()
        assert set(frame) == {"id", "message"}, frame
        assert frame["id"] == call_id
        message: dict[str, Any] = frame["message"]
        return message

    async def end(self, call_id: str) -> dict[str, Any]:
        """Return the status of the call's end, which must be the next frame."""
        frame = await self.frame()
        assert frame["id"] == call_id
        assert "end" in frame, frame
        status: dict[str, Any] = frame["end"]["status"]
        return status

    async def closed(self) -> int:
        """Return the code with which the server closes, which must be what comes next."""
        async with asyncio.timeout(DEADLINE_SECONDS):
            received = await self.socket.receive()
        assert received.type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED), received
        return self.socket.close_code or 0


def reason(status: dict[str, Any]) -> str:
    """Return the reason of a status."""
    return str(status["details"][0]["reason"])


class Replica:
    """A running gateway."""

    def __init__(self, sockets: Sockets, session: aiohttp.ClientSession) -> None:
        self.sockets = sockets
        self.session = session

    @asynccontextmanager
    async def open(self, caller: User | None, *protocols: str, **more: str) -> AsyncIterator[Socket]:
        """Open a socket, with the subprotocol alone unless others are given."""
        connecting = self.session.ws_connect("/v1/ws", protocols=protocols or (PROTOCOL,), headers=headers(caller, **more), max_msg_size=0)
        async with connecting as socket:
            assert socket.protocol == PROTOCOL
            yield Socket(socket)

    async def knock(self, given: Any, *protocols: str, path: str = "/v1/ws") -> tuple[int, dict[str, Any]]:
        """Ask for a socket that is refused; return status and body."""
        handshake = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
        handshake |= {"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Protocol": ", ".join(protocols or (PROTOCOL,))}
        pairs = [*(given.items() if isinstance(given, dict) else given), *handshake.items()]
        async with self.session.get(path, headers=pairs) as response:
            return response.status, await response.json()

    async def ticket(self, caller: User, **more: str) -> str:
        """Return a fresh ticket."""
        async with self.session.post("/v1/ws/tickets", headers=headers(caller, **more)) as response:
            body = await response.json()
            assert response.status == 200, body
            return str(body["ticket"])


class World:
    """A backend and as many replicas as a test asks for."""

    def __init__(self, folder: Path, stack: AsyncExitStack, orders: FakeOrders, server: grpc.aio.Server, target: str) -> None:
        self.server = server
        self._folder = folder
        self._stack = stack
        self._count = 0
        self.orders = orders
        self.target = target
        self.clock_skew_seconds = 0.0

    async def replica(self, tickets: TicketStore | None = None, *, call_seconds: float = 5.0, **settings: Any) -> Replica:
        """Start a replica."""
        self._count += 1
        catalogue, path = Catalogue(), self._folder / f"http{self._count}.sock"
        config = ClientConfig(
            dependency="svc-oms",
            targets=(self.target,),
            timeout_seconds=call_seconds,
            idempotent=catalogue.paths("svc-oms"),
            failures_max=100,
        )
        channel = await self._stack.enter_async_context(MeshChannel(config))
        now: Callable[[], float] = lambda: time.time() + self.clock_skew_seconds  # noqa: E731 (a clock of one line)
        door = Doorkeeper(Authenticator(SECRET, trust_domain="trademesh.local", namespace="trading", now=now))
        kept = tickets or NoTickets()
        sockets = Sockets(
            door, kept, Backends({"svc-oms": channel}), catalogue, SocketSettings(origins=frozenset({ORIGIN}), **settings), now
        )
        app = application(door, sockets, TicketDesk(door, kept, frozenset({ORIGIN}), now), Reference(door, OPENAPI))
        http = HttpServer(app, path)
        await http.start()
        self._stack.push_async_callback(http.stop)
        self._stack.push_async_callback(sockets.drain)
        timeout = aiohttp.ClientTimeout(total=DEADLINE_SECONDS)
        connector = aiohttp.UnixConnector(str(path))
        session = aiohttp.ClientSession("http://gateway", connector=connector, timeout=timeout)
        self._stack.push_async_callback(session.close)
        return Replica(sockets, session)


@asynccontextmanager
async def world() -> AsyncIterator[World]:
    """Serve a backend until the block ends."""
    folder = Path(tempfile.mkdtemp(prefix="tmg-", dir="/tmp"))
    target = f"unix:{folder / 'oms.sock'}"
    orders = FakeOrders()  # type: ignore[abstract]  # the methods that it leaves out answer UNIMPLEMENTED
    server = grpc.aio.server()
    order_service_pb2_grpc.add_OrderServiceServicer_to_server(orders, server)
    server.add_insecure_port(target)
    await server.start()
    try:
        async with AsyncExitStack() as stack:
            yield World(folder, stack, orders, server, target)
    finally:
        await server.stop(None)
        shutil.rmtree(folder)


async def until(condition: Callable[[], Any], *, seconds: float = DEADLINE_SECONDS) -> None:
    """Wait until a condition holds, with a deadline."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)
