"""The envelope of server streams: contiguous, resumable, never silent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from kernel.clock import ManualClock
from kernel.config import Secret
from kernel.errors import InvalidArgumentError, Reason, UnavailableError
from kernel.identity import Identity, User
from kernel.server_context import CallContext
from kernel.status import from_status
from kernel.streams import EnvelopeStream, Item, Mailbox, PositionExpiredError, ResumeTokens, heartbeat_seconds
from trademesh.oms.v1 import order_pb2, order_service_pb2
from trademesh.type.v1 import stream_pb2

Message = order_service_pb2.StreamOrderEventsResponse
TOKENS = ResumeTokens(Secret("k" * 32))
METHOD = "/trademesh.oms.v1.OrderService/StreamOrderEvents"


def event(number: int) -> Item[Message]:
    return Item(Message(event=order_service_pb2.OrderEvent(order=order_pb2.Order(order_id=str(number)))), str(number))


class ScriptedSource:
    """A snapshot of what was given, and a mailbox for what comes later."""

    def __init__(self, *snapshot: int) -> None:
        self.contents = list(snapshot)
        self.mailbox: Mailbox[Message] | None = None
        self.resumed_after: str | None = None
        self.expired = False
        self.snapshots = 0
        self.closed = False

    async def snapshot(self, mailbox: Mailbox[Message]) -> AsyncIterator[Item[Message]]:
        self.mailbox = mailbox
        self.snapshots += 1
        for number in self.contents:
            yield Item(Message(snapshot=order_service_pb2.OrderSnapshot(orders=[order_pb2.Order(order_id=str(number))])), str(number))

    async def resume(self, position: str, mailbox: Mailbox[Message]) -> None:
        if self.expired:
            raise PositionExpiredError
        self.mailbox, self.resumed_after = mailbox, position

    async def close(self) -> None:
        self.closed = True


class Setting:
    """One client's call and stream."""

    def __init__(self, source: ScriptedSource, **settings: Any) -> None:
        self.clock = ManualClock()
        now = int(self.clock.now_ns() / 1e9)
        self.user = User("alice", "acme", frozenset({"trader"}), frozenset({"ACC-1"}), now + 3_600)
        self.draining = asyncio.Event()
        self.context = CallContext(Identity("edge", self.user, ""), method=METHOD, draining=self.draining, monotonic=self.clock.monotonic)
        self.source = source
        self.stream = EnvelopeStream(
            Message, source, self.context, TOKENS, self.clock, filters=("ACC-1",), **({"heartbeat_seconds": 0.01} | settings)
        )


async def take(messages: AsyncIterator[Message], count: int) -> list[Message]:
    async with asyncio.timeout(5):
        return [await anext(messages) for _ in range(count)]


def kinds(messages: list[Message]) -> list[tuple[str | None, int]]:
    return [(message.WhichOneof("payload"), message.sequence) for message in messages]


async def test_a_snapshot_then_events_with_contiguous_sequences() -> None:
    setting = Setting(ScriptedSource(1, 2), heartbeat_seconds=5.0)
    async with aclosing(setting.stream.run("")) as messages:
        found = await take(messages, 2)
        assert setting.source.mailbox is None or setting.source.mailbox.put(event(3))
        found += await take(messages, 1)
    assert kinds(found) == [("snapshot", 1), ("snapshot", 2), ("event", 3)]
    assert found[0].server_time.ToNanoseconds() == setting.clock.now_ns()
    assert setting.source.closed


async def test_heartbeats_carry_the_last_sequence() -> None:
    setting = Setting(ScriptedSource(1))
    async with aclosing(setting.stream.run("")) as messages:
        found = await take(messages, 3)
    assert kinds(found) == [("snapshot", 1), ("heartbeat", 1), ("heartbeat", 1)]
    assert [message.heartbeat.last_sequence for message in found[1:]] == [1, 1]


async def test_a_token_goes_on_after_its_message_without_a_snapshot() -> None:
    first = Setting(ScriptedSource(7))
    async with aclosing(first.stream.run("")) as messages:
        [seen] = await take(messages, 1)
    second = Setting(ScriptedSource(), heartbeat_seconds=5.0)
    async with aclosing(second.stream.run(seen.resume_token)) as messages:
        waiting = asyncio.ensure_future(take(messages, 1))
        await asyncio.sleep(0)
        while second.source.mailbox is None:
            await asyncio.sleep(0)
        second.source.mailbox.put(event(8))
        [message] = await waiting
    assert second.source.resumed_after == "7"
    assert kinds([message]) == [("event", 2)]


async def test_a_position_that_is_gone_gets_a_resync_and_a_snapshot() -> None:
    first = Setting(ScriptedSource(7))
    async with aclosing(first.stream.run("")) as messages:
        [seen] = await take(messages, 1)
    source = ScriptedSource(9)
    source.expired = True
    async with aclosing(Setting(source).stream.run(seen.resume_token)) as messages:
        found = await take(messages, 2)
    assert kinds(found) == [("resync", 2), ("snapshot", 3)]
    assert found[0].resync.reason == stream_pb2.STREAM_RESYNC_REASON_TOKEN_EXPIRED


async def test_a_token_of_a_stream_that_had_shown_nothing_gets_a_snapshot() -> None:
    first = Setting(ScriptedSource())
    first.context.deadline = first.clock.monotonic()
    async with aclosing(first.stream.run("")) as messages:
        [end] = await take(messages, 1)
    assert kinds([end]) == [("end", 1)]
    async with aclosing(Setting(ScriptedSource(9)).stream.run(end.resume_token)) as messages:
        assert kinds(await take(messages, 1)) == [("snapshot", 2)]


async def test_a_stream_that_breaks_after_a_resync_goes_on_with_the_snapshot() -> None:
    first = Setting(ScriptedSource(7))
    async with aclosing(first.stream.run("")) as messages:
        await take(messages, 1)
        assert first.source.mailbox is not None
        first.source.mailbox.request_resync(stream_pb2.STREAM_RESYNC_REASON_SLOW_CONSUMER)
        [resync] = await take(messages, 1)
    assert kinds([resync]) == [("resync", 2)]
    async with aclosing(Setting(ScriptedSource(9)).stream.run(resync.resume_token)) as messages:
        assert kinds(await take(messages, 1)) == [("snapshot", 3)]


@pytest.mark.parametrize("change", ["user", "tenant", "filter", "method", "forged"])
async def test_a_token_belongs_to_its_user_and_filter(change: str) -> None:
    setting = Setting(ScriptedSource(1))
    async with aclosing(setting.stream.run("")) as messages:
        token = (await take(messages, 1))[0].resume_token
    other = Setting(ScriptedSource(1))
    if change == "user":
        other.context.identity = Identity("edge", User("bob", "acme", frozenset(), frozenset(), setting.user.expires_at), "")
    elif change == "tenant":
        other.context.identity = Identity("edge", User("alice", "other", frozenset(), frozenset(), setting.user.expires_at), "")
    elif change == "filter":
        other.stream._filters = ("ACC-1", "AAPL")
    elif change == "method":
        other.context.method = "/x/Y"
    else:
        token = token[:-1] + ("A" if token[-1] != "A" else "B")
    with pytest.raises(InvalidArgumentError) as caught:
        await take(other.stream.run(token), 1)
    assert caught.value.reason is Reason.RESUME_TOKEN_INVALID


async def test_a_slow_client_gets_a_resync_instead_of_a_hole() -> None:
    setting = Setting(ScriptedSource(1), heartbeat_seconds=5.0, mailbox_messages_max=3)
    async with aclosing(setting.stream.run("")) as messages:
        await take(messages, 1)
        mailbox = setting.source.mailbox
        assert mailbox is not None
        assert [mailbox.put(event(number)) for number in range(2, 7)] == [True, True, True, False, False]
        setting.source.contents = [6]
        found = await take(messages, 2)
        assert mailbox.put(event(7))
        found += await take(messages, 1)
    assert kinds(found) == [("resync", 2), ("snapshot", 3), ("event", 4)]
    assert found[0].resync.reason == stream_pb2.STREAM_RESYNC_REASON_SLOW_CONSUMER


async def last_of(setting: Setting, messages: AsyncIterator[Message]) -> Any:
    async with asyncio.timeout(5):
        found = [message async for message in messages]
    assert found[-1].WhichOneof("payload") == "end"
    return found[-1].end.status


async def test_draining_ends_a_quiet_stream_at_once_with_a_reason() -> None:
    setting = Setting(ScriptedSource(1), heartbeat_seconds=60.0)
    async with aclosing(setting.stream.run("")) as messages:
        await take(messages, 1)
        setting.draining.set()
        status = await last_of(setting, messages)
    error = from_status(status)
    assert isinstance(error, UnavailableError)
    assert error.reason is Reason.SHUTTING_DOWN


async def test_an_expired_token_ends_the_stream() -> None:
    setting = Setting(ScriptedSource(1))
    async with aclosing(setting.stream.run("")) as messages:
        await take(messages, 1)
        setting.clock.advance(3_600)
        status = await last_of(setting, messages)
    assert status.code == grpc.StatusCode.UNAUTHENTICATED.value[0]


async def test_a_deadline_ends_the_stream_before_it_is_cut() -> None:
    setting = Setting(ScriptedSource(1))
    setting.context.deadline = setting.clock.monotonic() + 60
    async with aclosing(setting.stream.run("")) as messages:
        await take(messages, 1)
        setting.clock.advance(59.8)
        status = await last_of(setting, messages)
    assert status.code == grpc.StatusCode.DEADLINE_EXCEEDED.value[0]


async def test_a_source_that_fails_ends_the_stream_after_what_waits() -> None:
    setting = Setting(ScriptedSource(1), heartbeat_seconds=5.0)
    async with aclosing(setting.stream.run("")) as messages:
        await take(messages, 1)
        assert setting.source.mailbox is not None
        setting.source.mailbox.put(event(2))
        setting.source.mailbox.fail(UnavailableError(Reason.DATABASE_UNAVAILABLE, "away"))
        found = await take(messages, 2)
    assert kinds(found) == [("event", 2), ("end", 3)]


def test_a_request_may_ask_for_its_heartbeat() -> None:
    assert heartbeat_seconds(Duration()) == 5.0
    assert heartbeat_seconds(Duration(seconds=1, nanos=500_000_000)) == 1.5
