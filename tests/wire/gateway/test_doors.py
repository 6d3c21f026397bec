"""Who comes in: only through the sidecar, only from the edge, with a token or one fresh ticket, from a page that may; never by URL."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
import redis.asyncio

from kernel.config import Dsn, Secret
from kernel.errors import UnauthenticatedError, UnavailableError
from kernel.identity import CLAIMS_HEADER, PEER_HEADER, SECRET_HEADER, claims_header
from mesh.local.redis import EmbeddedRedis
from svc_gateway.domain.tickets import Grant
from svc_gateway.store.tickets import RedisTickets
from tests.wire.gateway.world import GET, KEY, ORDER_ID, ORIGIN, PROTOCOL, SECRET, Replica, World, bearer, headers, reason
from tests.wire.kernel_net.serving import user
from tests.wire.serving import USER_SECONDS

PLACES = "trademesh:gateway:ticket:*"


@pytest.fixture
async def stores(redis_server: EmbeddedRedis) -> AsyncIterator[list[RedisTickets]]:
    async with AsyncExitStack() as stack:
        made = [RedisTickets(redis_server.url, KEY) for _ in range(2)]
        for store in made:
            stack.push_async_callback(store.close)
        yield made


@pytest.fixture
async def raw(redis_server: EmbeddedRedis) -> AsyncIterator[redis.asyncio.Redis]:
    client = redis.asyncio.Redis.from_url(redis_server.url.reveal())
    await client.delete(*[key async for key in client.scan_iter(PLACES)], "nothing")
    yield client
    await client.aclose()


@pytest.fixture
async def replicas(gateway_world: World, stores: list[RedisTickets]) -> list[Replica]:
    return [await gateway_world.replica(store) for store in stores]


async def test_a_ticket_opens_one_socket_at_any_replica(replicas: list[Replica], gateway_world: World) -> None:
    caller = user()
    ticket = await replicas[0].ticket(caller, Origin=ORIGIN)
    async with replicas[1].open(None, PROTOCOL, f"ticket.{ticket}", Origin=ORIGIN) as socket:
        await socket.call("1", GET, account_id="ACC-1", order_id=ORDER_ID)
        await socket.message("1")
    assert gateway_world.orders.authorizations == [bearer(caller)]
    for replica in replicas:
        status, body = await replica.knock(headers(Origin=ORIGIN), PROTOCOL, f"ticket.{ticket}")
        assert (status, reason(body)) == (401, "TICKET_INVALID")


async def test_of_many_who_show_a_ticket_at_once_one_gets_in(replicas: list[Replica], stores: list[RedisTickets]) -> None:
    ticket = await replicas[0].ticket(user(), Origin=ORIGIN)
    outcomes = await asyncio.gather(*(stores[number % 2].redeem(ticket) for number in range(20)), return_exceptions=True)
    assert sum(isinstance(outcome, Grant) for outcome in outcomes) == 1
    assert sum(isinstance(outcome, UnauthenticatedError) for outcome in outcomes) == 19


@pytest.mark.parametrize(
    ("given", "protocols", "status", "why"),
    [
        ({"Origin": "https://evil.test"}, "fresh", 403, "ORIGIN_NOT_ALLOWED"),
        ({}, "fresh", 403, "ORIGIN_NOT_ALLOWED"),
        ({"Origin": "null"}, "fresh", 403, "ORIGIN_NOT_ALLOWED"),
        ({"Origin": ORIGIN}, "made-up", 401, "TICKET_INVALID"),
        ({"Origin": ORIGIN}, "empty", 401, "TICKET_INVALID"),
        ({"Origin": ORIGIN}, "twice", 400, "FIELD_INVALID"),
        ({"Origin": ORIGIN}, "alone", 400, "FIELD_INVALID"),
        ({"Origin": ORIGIN, "Authorization": "Bearer x"}, "fresh", 400, "FIELD_INVALID"),
        ({"Origin": ORIGIN}, "none", 401, "USER_UNAUTHENTICATED"),
    ],
)
async def test_a_ticket_is_refused(replicas: list[Replica], given: dict[str, str], protocols: str, status: int, why: str) -> None:
    ticket = await replicas[0].ticket(user(), Origin=ORIGIN)
    offered = {
        "fresh": (PROTOCOL, f"ticket.{ticket}"),
        "made-up": (PROTOCOL, f"ticket.{'x' * 43}"),
        "empty": (PROTOCOL, "ticket."),
        "twice": (PROTOCOL, f"ticket.{ticket}", f"ticket.{ticket}"),
        "alone": (f"ticket.{ticket}",),
        "none": (PROTOCOL,),
    }[protocols]
    answered, body = await replicas[0].knock({**headers(), **given}, *offered)
    assert (answered, reason(body)) == (status, why)


async def test_a_page_cannot_use_the_ticket_of_another(gateway_world: World, stores: list[RedisTickets]) -> None:
    other = "http://127.0.0.1:8080"
    replica = await gateway_world.replica(stores[0])
    ticket = await stores[0].issue(Grant(bearer(user()), claims_header(user()), other))
    status, body = await replica.knock(headers(Origin=ORIGIN), PROTOCOL, f"ticket.{ticket}")
    assert (status, reason(body)) == (401, "TICKET_INVALID")


async def test_a_ticket_ends_after_its_time(raw: redis.asyncio.Redis, redis_server: EmbeddedRedis, gateway_world: World) -> None:
    store = RedisTickets(redis_server.url, KEY, ticket_seconds=0.05)
    replica = await gateway_world.replica(store)
    ticket = await replica.ticket(user(), Origin=ORIGIN)
    async with asyncio.timeout(10):
        while [key async for key in raw.scan_iter(PLACES)]:
            await asyncio.sleep(0.01)
    status, body = await replica.knock(headers(Origin=ORIGIN), PROTOCOL, f"ticket.{ticket}")
    assert (status, reason(body)) == (401, "TICKET_INVALID")
    await store.close()


async def test_a_ticket_ends_with_its_token(gateway_world: World, stores: list[RedisTickets]) -> None:
    replica = await gateway_world.replica(stores[0])
    ticket = await replica.ticket(user(), Origin=ORIGIN)
    gateway_world.clock_skew_seconds = USER_SECONDS + 400
    status, body = await replica.knock(headers(Origin=ORIGIN), PROTOCOL, f"ticket.{ticket}")
    assert (status, reason(body)) == (401, "TOKEN_EXPIRED")


async def test_redis_holds_neither_tickets_nor_tokens(
    raw: redis.asyncio.Redis, redis_server: EmbeddedRedis, stores: list[RedisTickets]
) -> None:
    grant = Grant(bearer(user()), claims_header(user()), ORIGIN)
    ticket = await stores[0].issue(grant)
    [key] = [key async for key in raw.scan_iter(PLACES)]
    content = await raw.get(key)
    assert 0 < await raw.pttl(key) <= 30_000
    assert ticket.encode() not in key
    assert content is not None
    assert b"Bearer" not in content
    assert b"acme" not in content
    await raw.setrange(key, 20, b"changed")
    with pytest.raises(UnauthenticatedError):
        await stores[0].redeem(ticket)
    ticket = await stores[0].issue(grant)
    stranger = RedisTickets(redis_server.url, Secret("another key of this test run, as long"))
    with pytest.raises(UnauthenticatedError):
        await stranger.redeem(ticket)
    await stranger.close()


async def test_without_redis_tickets_are_unavailable_and_tokens_work(gateway_world: World) -> None:
    store = RedisTickets(Dsn("unix:///tmp/tmg-no-such-redis.sock"), KEY)
    with pytest.raises(UnavailableError):
        await store.issue(Grant("", "", ""))
    for replica in (await gateway_world.replica(store), await gateway_world.replica()):
        async with replica.session.post("/v1/ws/tickets", headers=headers(user())) as response:
            assert (response.status, reason(await response.json())) == (503, "DEPENDENCY_UNAVAILABLE")
        status, body = await replica.knock(headers(Origin=ORIGIN), PROTOCOL, f"ticket.{'x' * 43}")
        assert (status, reason(body)) == (503, "DEPENDENCY_UNAVAILABLE")
        async with replica.open(user()):
            pass
    await store.close()


@pytest.mark.parametrize(
    ("given", "status", "why"),
    [
        ({}, 401, "USER_UNAUTHENTICATED"),
        ({"Origin": "https://evil.test"}, 403, "ORIGIN_NOT_ALLOWED"),
        ({SECRET_HEADER: "a-wrong-secret-of-the-sidecar"}, 401, "PEER_UNAUTHENTICATED"),
    ],
)
async def test_a_ticket_is_issued_to_users_only(replicas: list[Replica], given: dict[str, str], status: int, why: str) -> None:
    caller = user() if "Origin" in given else None
    async with replicas[0].session.post("/v1/ws/tickets", headers={**headers(caller), **given}) as response:
        assert (response.status, reason(await response.json())) == (status, why)


async def test_a_request_for_a_ticket_has_no_fields_and_a_rate(replicas: list[Replica]) -> None:
    session, caller = replicas[0].session, user()
    async with session.post("/v1/ws/tickets", headers=headers(caller), json={"seconds": 60}) as response:
        assert (response.status, reason(await response.json())) == (400, "FIELD_UNKNOWN")
    async with session.post("/v1/ws/tickets?access_token=x", headers=headers(caller)) as response:
        assert (response.status, reason(await response.json())) == (400, "FIELD_UNKNOWN")
    async with session.post("/v1/ws/tickets", headers=headers(caller), data=b"x" * 5_000) as response:
        assert (response.status, reason(await response.json())) == (400, "MESSAGE_TOO_LARGE")
    statuses = []
    for _ in range(40):
        async with session.post("/v1/ws/tickets", headers=headers(caller), json={}) as response:
            statuses.append(response.status)
    assert statuses[:25] == [200] * 25
    assert statuses[-1] == 429


def forged(**changes: str) -> dict[str, str]:
    return {**headers(user()), **changes}


@pytest.mark.parametrize(
    ("given", "status", "why"),
    [
        ({}, 401, "PEER_UNAUTHENTICATED"),
        ({name: text for name, text in headers(user()).items() if name != SECRET_HEADER}, 401, "PEER_UNAUTHENTICATED"),
        (forged(**{SECRET_HEADER: "guessed-but-long-enough"}), 401, "PEER_UNAUTHENTICATED"),
        (forged(**{SECRET_HEADER: SECRET + " "}), 101, ""),
        (headers(user(), peer="svc-oms"), 403, "PEER_NOT_ALLOWED"),
        (headers(user(), peer="svc-gateway"), 403, "PEER_NOT_ALLOWED"),
        (forged(**{PEER_HEADER: f"{headers()[PEER_HEADER]},{headers()[PEER_HEADER]}"}), 401, "PEER_UNAUTHENTICATED"),
        (forged(**{PEER_HEADER: ""}), 401, "PEER_UNAUTHENTICATED"),
        ([*forged().items(), (SECRET_HEADER, "another")], 401, "PEER_UNAUTHENTICATED"),
        ([*forged().items(), (PEER_HEADER, headers()[PEER_HEADER])], 401, "PEER_UNAUTHENTICATED"),
        ([*forged().items(), (CLAIMS_HEADER, claims_header(user(principal="mallory")))], 401, "PEER_UNAUTHENTICATED"),
        ([*forged().items(), ("Authorization", bearer(user(principal="mallory")))], 401, "USER_UNAUTHENTICATED"),
        (forged(**{CLAIMS_HEADER: "not base64"}), 401, "USER_UNAUTHENTICATED"),
        (headers(user(expires_at=1)), 401, "TOKEN_EXPIRED"),
        ({name: text for name, text in headers(user()).items() if name != CLAIMS_HEADER}, 401, "USER_UNAUTHENTICATED"),
        ({name: text for name, text in headers(user()).items() if name != "Authorization"}, 401, "USER_UNAUTHENTICATED"),
        (forged(Authorization="Basic abc"), 401, "USER_UNAUTHENTICATED"),
        (forged(Origin="https://evil.test"), 403, "ORIGIN_NOT_ALLOWED"),
        (forged(Origin=ORIGIN), 101, ""),
    ],
)
async def test_identity_comes_from_the_sidecar_alone(replica: Replica, given: Any, status: int, why: str) -> None:
    if status == 101:
        async with replica.session.ws_connect("/v1/ws", protocols=(PROTOCOL,), headers=given) as socket:
            assert not socket.closed
        return
    answered, body = await replica.knock(given)
    assert (answered, reason(body)) == (status, why)


@pytest.mark.parametrize("query", ["access_token=secret", "token=secret", "ticket=secret", "x=1"])
async def test_nothing_is_taken_from_the_url(replica: Replica, query: str) -> None:
    status, body = await replica.knock(headers(user()), path=f"/v1/ws?{query}")
    assert (status, reason(body)) == (400, "FIELD_UNKNOWN")
    assert "secret" not in str(body)


async def test_a_socket_needs_its_subprotocol_and_a_handshake(replica: Replica) -> None:
    status, body = await replica.knock(headers(user()), "graphql-ws")
    assert (status, reason(body)) == (400, "FIELD_INVALID")
    async with replica.session.get("/v1/ws", headers={**headers(user()), "Sec-WebSocket-Protocol": PROTOCOL}) as response:
        assert (response.status, reason(await response.json())) == (400, "FIELD_INVALID")


async def test_other_paths_and_methods_are_answered_as_statuses(replica: Replica) -> None:
    async with replica.session.get("/v1/nothing", headers=headers(user())) as response:
        assert (response.status, reason(await response.json())) == (404, "METHOD_NOT_FOUND")
    async with replica.session.post("/docs", headers=headers(user())) as response:
        assert (response.status, reason(await response.json())) == (405, "METHOD_NOT_FOUND")
        assert "GET" in response.headers["Allow"]


async def test_the_documents_are_for_everybody_at_the_edge(replica: Replica) -> None:
    async with replica.session.get("/docs") as response:
        assert (response.status, reason(await response.json())) == (401, "PEER_UNAUTHENTICATED")
    async with replica.session.get("/docs", headers=headers()) as response:
        page = await response.text()
        assert response.status == 200
        assert response.content_type == "text/html"
        assert "default-src 'none'" in response.headers["Content-Security-Policy"]
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert response.headers["Content-Encoding"] == "gzip"
        etag = response.headers["ETag"]
    assert "OrderService_StreamOrderEvents" in page
    async with replica.session.get("/docs", headers={**headers(), "If-None-Match": etag}) as response:
        assert response.status == 304
    async with replica.session.get("/openapi.json", headers=headers()) as response:
        document = await response.json()
        assert "/v1/ws/tickets" in document["paths"]
