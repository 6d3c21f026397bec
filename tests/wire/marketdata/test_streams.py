"""The streams of market data, over real gRPC."""

from __future__ import annotations

from typing import Any

import grpc
import pytest

from kernel.errors import Reason
from tests.wire.kernel_net.serving import until
from tests.wire.marketdata.serving import Stream, World, market_request, user
from tests.wire.serving import RefusedError
from trademesh.marketdata.v1 import market_data_pb2
from trademesh.marketdata.v1 import market_data_service_pb2 as pb
from trademesh.marketdata.v1.reference_price_service_pb2 import StreamReferencePricesRequest
from trademesh.type.v1 import stream_pb2

QUOTES, BOOK, TRADES = pb.MARKET_DATA_CHANNEL_QUOTES, pb.MARKET_DATA_CHANNEL_BOOK, pb.MARKET_DATA_CHANNEL_TRADES
SLOW_TRADES = 12_000


async def opened(world: World, request: pb.StreamMarketDataRequest) -> tuple[Stream, Any]:
    """Open a stream and read its snapshot."""
    stream = world.stream(request)
    snapshot = (await stream.until(lambda message: message.snapshot.complete))[-1]
    return stream, snapshot


def matches(messages: list[Any]) -> list[int]:
    return [message.event.trade.match_number for message in messages if message.event.HasField("trade")]


def is_trade(number: int) -> Any:
    return lambda message: message.event.trade.match_number == number


async def test_a_snapshot_shows_the_channels_and_events_follow(world: World) -> None:
    world.script.add("AAPL", 1, "B", 10, 10_000)
    world.script.execute(1, 1, 7)
    world.send()
    stream, message = await opened(world, market_request(QUOTES, BOOK, TRADES, names=("AAPL", "MSFT"), depth=1))
    shown, other = message.snapshot.instruments
    assert (shown.instrument_id, shown.quote.bid_price, shown.book.bids[0].quantity, shown.last_trade.match_number) == (
        "AAPL",
        "100",
        "9",
        7,
    )
    assert not other.HasField("last_trade")
    world.script.execute(1, 2, 8)
    world.send()
    read = await stream.until(lambda message: message.event.book.bids and message.event.book.bids[0].quantity == "7")
    assert matches(read) == [8]
    (quote,) = [message.event.quote for message in read if message.event.HasField("quote")]
    assert (quote.last_quantity, quote.bid_quantity, quote.volume) == ("2", "7", "3")
    assert [message.sequence for message in read] == [2, 3, 4]
    stream.cancel()


async def test_a_change_deep_in_the_book_is_no_news_of_the_quote(world: World) -> None:
    world.script.add("AAPL", 1, "B", 10, 10_000)
    world.send()
    stream, _ = await opened(world, market_request(QUOTES))
    world.script.add("AAPL", 2, "B", 10, 9_000)
    world.send()
    world.feed.flush()
    world.script.add("AAPL", 3, "S", 10, 10_001)
    world.send()
    assert (await stream.read()).event.quote.ask_price == "100.01"
    stream.cancel()


async def test_a_slow_reader_gets_the_last_state_and_is_told_how_many_it_overtook(world: World) -> None:
    stream, _ = await opened(world, market_request(QUOTES, BOOK, depth=50))
    rounds = 4_000
    for count in range(1, rounds + 1):
        world.script.add("AAPL", count, "B", 1, 5_000 + count % 50)
        world.send()
        world.feed.flush()
    await until(lambda: world.feed.venue.sequence == len(world.script.messages))
    last = len(world.script.messages)
    read = await stream.until(lambda message: message.event.book.sequence == last)
    assert [message.sequence for message in read] == list(range(2, len(read) + 2))
    books = [message.event for message in read if message.event.HasField("book")]
    assert sum(1 + event.conflated_count for event in books) == rounds
    assert len(books) < rounds
    assert sum(int(level.quantity) for level in books[-1].book.bids) == rounds
    stream.cancel()


async def test_trades_come_all_in_order_while_quotes_are_overtaken(world: World) -> None:
    stream, _ = await opened(world, market_request(QUOTES, TRADES))
    world.script.add("AAPL", 1, "B", 1_000, 10_000)
    for match in range(1, 901):
        world.script.execute(1, 1, match)
        if match % 9 == 0:
            world.send()
            world.feed.flush()
    read = await stream.until(is_trade(900))
    assert matches(read) == list(range(1, 901))
    stream.cancel()


async def test_a_reader_too_slow_for_trades_is_told_and_then_from_which_trade_on(world: World) -> None:
    stream, _ = await opened(world, market_request(TRADES))
    world.script.add("AAPL", 1, "B", SLOW_TRADES + 1, 10_000)
    for match in range(1, SLOW_TRADES + 1):
        world.script.execute(1, 1, match)
    world.send()
    read = await stream.until(lambda message: message.HasField("resync"))
    assert read[-1].resync.reason == stream_pb2.STREAM_RESYNC_REASON_SLOW_CONSUMER
    told = matches(read)
    assert told == list(range(1, len(told) + 1)), "what was told before is whole"
    snapshot = await stream.read()
    assert snapshot.snapshot.instruments[0].last_trade.match_number == SLOW_TRADES
    world.script.execute(1, 1, SLOW_TRADES + 1)
    world.send()
    assert matches([await stream.read()]) == [SLOW_TRADES + 1]
    await until(lambda: world.recorder.recorded == SLOW_TRADES + 1)
    stream.cancel()


async def test_a_stream_resumes_after_its_token_with_every_trade(world: World) -> None:
    stream, _ = await opened(world, market_request(TRADES, QUOTES))
    world.script.add("AAPL", 1, "B", 100, 10_000)
    for match in (1, 2):
        world.script.execute(1, 1, match)
    world.send()
    token = next(message.resume_token for message in await stream.until(is_trade(1)) if message.event.HasField("trade"))
    stream.cancel()
    world.script.execute(1, 1, 3)
    world.send()
    resumed = world.stream(market_request(TRADES, QUOTES, resume_token=token))
    read = await resumed.until(lambda message: message.event.HasField("quote"))
    assert matches(read) == [2, 3]
    assert read[-1].event.quote.volume == "3"
    world.script.execute(1, 1, 4)
    world.send()
    assert matches(await resumed.until(is_trade(4))) == [4]
    resumed.cancel()


async def test_a_token_of_a_feed_that_began_anew_gets_a_snapshot(world: World) -> None:
    stream, _ = await opened(world, market_request(TRADES))
    world.script.add("AAPL", 1, "B", 100, 10_000)
    world.script.execute(1, 1, 1)
    world.send()
    token = (await stream.until(is_trade(1)))[-1].resume_token
    stream.cancel()
    world.script.session = "2601050002"
    world.script.messages.clear()
    world.script.open("AAPL", "BTC-USD", "MSFT")
    world.sent = 0
    world.send()
    resumed = world.stream(market_request(TRADES, resume_token=token))
    resync, snapshot = await resumed.read(), await resumed.read()
    assert resync.resync.reason == stream_pb2.STREAM_RESYNC_REASON_TOKEN_EXPIRED
    assert snapshot.snapshot.instruments[0].last_trade.match_number == 1
    resumed.cancel()


async def test_a_token_of_another_selection_is_refused(world: World) -> None:
    stream, message = await opened(world, market_request(TRADES))
    stream.cancel()
    with pytest.raises(RefusedError) as refused:
        await world.stream(market_request(TRADES, names=("MSFT",), resume_token=message.resume_token)).read()
    assert refused.value.reason is Reason.RESUME_TOKEN_INVALID


async def test_trades_that_only_a_snapshot_knows_break_the_tape_and_quotes_go_on(world: World) -> None:
    trades, _ = await opened(world, market_request(TRADES))
    quotes, _ = await opened(world, market_request(QUOTES))
    world.script.add("AAPL", 1, "B", 100, 10_000)
    world.script.execute(1, 1, 1)
    world.lose()
    resync = await trades.read()
    assert resync.resync.reason == stream_pb2.STREAM_RESYNC_REASON_SOURCE_GAP
    assert (await trades.read()).HasField("snapshot")
    assert (await quotes.read()).event.quote.bid_quantity == "99"
    trades.cancel()
    quotes.cancel()


async def test_a_busted_trade_is_told_also_where_only_the_record_knew_it(world: World) -> None:
    world.script.add("AAPL", 1, "B", 100, 10_000)
    world.script.execute(1, 1, 1)
    world.script.execute(1, 1, 2)
    world.send()
    await until(lambda: world.recorder.recorded == 2)
    market = world.venue.market("AAPL")
    assert market is not None
    market.forget(1)
    stream, _ = await opened(world, market_request(TRADES))
    world.script.bust(1)
    world.script.bust(2)
    world.send()
    read = await stream.until(is_trade(1))
    assert sorted((message.event.trade.match_number, message.event.trade.busted) for message in read) == [(1, True), (2, True)]
    stream.cancel()


async def test_a_silent_feed_shows_as_stale_by_itself(world: World) -> None:
    stream, _ = await opened(world, market_request(QUOTES))
    world.alive = False
    message = await stream.read()
    assert message.event.quote.state == market_data_pb2.BOOK_STATE_STALE
    world.alive = True
    assert (await stream.read()).event.quote.state == market_data_pb2.BOOK_STATE_LIVE
    stream.cancel()


async def test_a_stream_ends_with_its_users_token(world: World) -> None:
    stream = world.stream(market_request(QUOTES), user("viewer", seconds=2))
    end = (await stream.until(lambda message: message.HasField("end")))[-1]
    assert end.end.status.code == grpc.StatusCode.UNAUTHENTICATED.value[0]


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (market_request(QUOTES, names=("NONE",)), Reason.INSTRUMENT_NOT_FOUND),
        (market_request(QUOTES, names=()), Reason.FIELD_INVALID),
        (market_request(), Reason.FIELD_INVALID),
        (market_request(QUOTES, QUOTES), Reason.FIELD_INVALID),
        (market_request(pb.MARKET_DATA_CHANNEL_UNSPECIFIED), Reason.FIELD_INVALID),
        (market_request(QUOTES, depth=51), Reason.FIELD_INVALID),
        (market_request(QUOTES, resume_token="x"), Reason.RESUME_TOKEN_INVALID),
    ],
)
async def test_a_bad_stream_is_refused(world: World, request_: pb.StreamMarketDataRequest, reason: Reason) -> None:
    with pytest.raises(RefusedError) as refused:
        await world.stream(request_).read()
    assert refused.value.reason is reason


def prices(**more: Any) -> StreamReferencePricesRequest:
    return StreamReferencePricesRequest(venue="XSIM", **more)


async def test_reference_prices_begin_complete_and_tell_what_changes(world: World) -> None:
    world.script.add("AAPL", 1, "B", 10, 10_000)
    world.script.add("AAPL", 2, "S", 10, 10_200)
    world.script.execute(1, 1, 7)
    world.send()
    stream = world.stream(prices(), None, peer="svc-risk")
    first = await stream.read()
    assert (first.complete, first.feed_live) == (True, True)
    known = {price.instrument_id: price for price in first.prices}
    apple, other = known["AAPL"], known["MSFT"]
    assert (apple.bid, apple.ask, apple.last_trade, apple.prior_close, apple.stale, apple.open) == ("100", "102", "100", "100", False, True)
    assert not other.HasField("bid")
    assert other.prior_close_date == "2026-01-02"
    assert 0 <= first.server_time.ToNanoseconds() - first.feed_time.ToNanoseconds() < 2_000_000_000
    world.script.delete(2)
    world.send()
    changed = (await stream.until(lambda message: message.prices))[-1]
    assert [(price.instrument_id, price.HasField("ask")) for price in changed.prices] == [("AAPL", False)]
    stream.cancel()


async def test_signs_of_life_come_twice_a_second_and_say_when_the_feed_is_dead(world: World) -> None:
    stream = world.stream(prices(instrument_ids=["AAPL"]), None, peer="svc-portfolio")
    first = await stream.read()
    assert [price.instrument_id for price in first.prices] == ["AAPL"]
    sign = await stream.read()
    assert not sign.prices
    assert sign.server_time.ToNanoseconds() - first.server_time.ToNanoseconds() < 500_000_000
    world.alive = False
    dead = (await stream.until(lambda message: not message.feed_live))[-1]
    assert dead.server_time.ToNanoseconds() - dead.feed_time.ToNanoseconds() > 2_000_000_000
    stale = dead if dead.prices else (await stream.until(lambda message: message.prices))[-1]
    assert [price.stale for price in stale.prices] == [True]
    stream.cancel()


async def test_reference_prices_are_for_services_and_for_this_venue(world: World) -> None:
    with pytest.raises(RefusedError) as refused:
        await world.stream(prices(), user("admin"), peer="edge").read()
    assert refused.value.reason is Reason.PEER_NOT_ALLOWED
    with pytest.raises(RefusedError) as refused:
        await world.stream(StreamReferencePricesRequest(venue="OTHER"), None, peer="svc-risk").read()
    assert refused.value.reason is Reason.FIELD_INVALID
