"""How sockets end, and what holds back whom: a slow client, a token's end, a replica that stops, a client that goes silent."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from tests.wire.gateway.world import DEADLINE_SECONDS, GET, ORDER_ID, STREAM, Replica, World, headers, reason, until
from tests.wire.kernel_net.serving import user

FLOOD_BYTES = 16 * 1024


async def settled(world: World) -> int:
    """Return how many messages the backend has sent, once that number has stood still for a while."""
    async with asyncio.timeout(DEADLINE_SECONDS):
        before, still = 0, 0
        while before == 0 or still < 10:
            await asyncio.sleep(0.05)
            still = still + 1 if world.orders.sent == before else 0
            before = world.orders.sent
    return before


async def test_a_client_that_does_not_read_stops_the_service_and_loses_nothing(gateway_world: World, replica: Replica) -> None:
    gateway_world.orders.flood_bytes = FLOOD_BYTES
    async with replica.open(user()) as socket:
        await socket.call("s", STREAM, account_id="ACC-1")
        stopped_at = await settled(gateway_world)
        # What lies between: buffers of two sockets and one HTTP/2 window, not the stream.
        assert stopped_at * FLOOD_BYTES < 32 * 1024 * 1024
        count = stopped_at + 100
        sequences = [int((await socket.message("s"))["sequence"]) for _ in range(count)]
        assert sequences == list(range(1, count + 1))


async def test_the_services_own_rule_for_slow_consumers_acts(gateway_world: World, replica: Replica) -> None:
    orders = gateway_world.orders
    orders.mailbox_messages_max = 64
    async with replica.open(user()) as socket:
        await socket.call("s", STREAM, account_id="ACC-1")
        assert "snapshot" in await socket.message("s")
        kinds: list[str] = []
        sequences: list[int] = []
        appended = 0
        # Faster than anybody reads: the mailbox overflows, whatever buffers take before it.
        while orders.events.mailboxes and not any(mailbox.resync_reason for mailbox in orders.events.mailboxes):
            orders.events.append(100)
            appended += 100
            assert appended < 1_000_000
            if appended % 10_000 == 0:
                await asyncio.sleep(0)
        orders.events.append()
        while "resync" not in kinds or kinds[-1] != "snapshot":
            message = await socket.message("s")
            kinds.append(next(kind for kind in ("snapshot", "event", "resync", "heartbeat") if kind in message))
            sequences.append(int(message["sequence"]))
        assert sequences == list(range(2, len(sequences) + 2))
        assert kinds[-2] == "resync"


async def test_every_call_ends_with_the_token(gateway_world: World, replica: Replica) -> None:
    gateway_world.orders.hangs = False
    caller = user(expires_at=int(time.time()) + 2)
    async with replica.open(caller) as socket:
        for call_id in ("1", "2"):
            await socket.call(call_id, STREAM, account_id="ACC-1")
        ended: dict[str, dict[str, Any]] = {}
        while len(ended) < 2:
            frame = await socket.frame()
            if "end" in frame:
                ended[frame["id"]] = frame["end"]["status"]
        assert {(status["code"], reason(status)) for status in ended.values()} == {(16, "TOKEN_EXPIRED")}
        assert time.time() >= caller.expires_at
        assert await socket.closed() == 4401
    await until(lambda: gateway_world.orders.streams == 0)
    status, body = await replica.knock(headers(caller))
    assert (status, reason(body)) == (401, "TOKEN_EXPIRED")


async def test_a_socket_without_calls_ends_with_the_token_too(replica: Replica) -> None:
    async with replica.open(user(expires_at=int(time.time()) + 1)) as socket:
        assert await socket.closed() == 4401


async def test_a_token_ends_a_socket_whose_client_does_not_read(gateway_world: World, replica: Replica) -> None:
    gateway_world.orders.flood_bytes = FLOOD_BYTES
    async with replica.open(user(expires_at=int(time.time()) + 2)) as socket:
        await socket.call("s", STREAM, account_id="ACC-1")
        await until(lambda: gateway_world.orders.sent > 0 and gateway_world.orders.streams == 0)
        await until(lambda: not any(sample.value for sample in replica.sockets.samples() if sample.name == "gateway_sockets_open"))
        async with asyncio.timeout(DEADLINE_SECONDS):
            while not socket.socket.closed:
                await socket.socket.receive()


async def test_draining_ends_calls_and_sockets_and_takes_no_more(gateway_world: World, replica: Replica) -> None:
    async with replica.open(user()) as socket, replica.open(user()) as idle:
        await socket.call("s", STREAM, account_id="ACC-1")
        await socket.message("s")
        drain = asyncio.create_task(replica.sockets.drain())
        status = await socket.end("s")
        assert (status["code"], reason(status)) == (14, "SHUTTING_DOWN")
        assert await socket.closed() == 1012
        assert await idle.closed() == 1012
        await drain
    refused, body = await replica.knock(headers(user()))
    assert (refused, reason(body)) == (503, "SHUTTING_DOWN")
    # A cancelled call takes its way over the wire to the service.
    await until(lambda: gateway_world.orders.streams == 0)


async def test_a_client_that_goes_silent_is_let_go_and_its_calls_with_it(gateway_world: World) -> None:
    replica = await gateway_world.replica(ping_seconds=0.2)
    connecting = replica.session.ws_connect("/v1/ws", protocols=("trademesh.v1+json",), headers=headers(user()), autoping=False)
    async with connecting as socket:
        await socket.send_json({"id": "s", "method": STREAM, "request": {"account_id": "ACC-1"}})
        await until(lambda: gateway_world.orders.streams == 1)
        # Nobody answers the pings.
        await until(lambda: gateway_world.orders.streams == 0)


async def test_pings_keep_a_quiet_socket(gateway_world: World) -> None:
    replica = await gateway_world.replica(ping_seconds=0.6)
    async with replica.open(user()) as socket:
        listening = asyncio.create_task(socket.frame())
        done, _ = await asyncio.wait([listening], timeout=2.0)
        assert not done
        await socket.call("1", GET, account_id="ACC-1", order_id=ORDER_ID)
        assert (await listening)["id"] == "1"


async def test_a_client_that_leaves_cancels_its_calls(gateway_world: World, replica: Replica) -> None:
    async with replica.open(user()) as socket:
        for number in range(5):
            await socket.call(str(number), STREAM, account_id="ACC-1")
        await until(lambda: gateway_world.orders.streams == 5)
    await until(lambda: gateway_world.orders.streams == 0)
    samples = {sample.name: sample.value for sample in replica.sockets.samples()}
    assert samples["gateway_calls_running"] == 0
