"""Every unary RPC of market data, over real gRPC."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from kernel.errors import Reason
from svc_marketdata.domain import Aggressor, BookState, Venue
from tests.unit.marketdata.scripted import MIDNIGHT_NS
from tests.wire.kernel_net.serving import until
from tests.wire.marketdata.serving import World, user
from tests.wire.serving import RefusedError
from trademesh.marketdata.v1 import market_data_pb2
from trademesh.marketdata.v1 import market_data_service_pb2 as pb
from trademesh.type.v1 import order_terms_pb2

LIVE, STALE, CLOSED = market_data_pb2.BOOK_STATE_LIVE, market_data_pb2.BOOK_STATE_STALE, market_data_pb2.BOOK_STATE_CLOSED


def trade_a_little(world: World) -> None:
    world.script.add("AAPL", 1, "B", 10, 10_000)
    world.script.add("AAPL", 2, "B", 5, 10_000)
    world.script.add("AAPL", 3, "B", 7, 9_950)
    world.script.add("AAPL", 4, "S", 9, 10_105)
    world.script.execute(4, 2, 70)
    world.script.execute(1, 4, 71)
    world.send()


def test_the_numbers_of_domain_and_contract_are_the_same() -> None:
    assert {state.name: state.value for state in BookState} == {"LIVE": LIVE, "STALE": STALE, "CLOSED": CLOSED}
    sides = [order_terms_pb2.SIDE_UNSPECIFIED, order_terms_pb2.SIDE_BUY, order_terms_pb2.SIDE_SELL]
    assert [int(side) for side in Aggressor] == [int(side) for side in sides]


async def test_instruments_are_listed_in_pages_by_id(world: World) -> None:
    first = await world.call(pb.ListInstrumentsRequest(page_size=2))
    rest = await world.call(pb.ListInstrumentsRequest(page_size=2, page_token=first.next_page_token))
    assert [listed.instrument_id for listed in (*first.instruments, *rest.instruments)] == ["AAPL", "BTC-USD", "MSFT"]
    assert rest.next_page_token == ""
    crypto = first.instruments[1]
    assert (crypto.tick_size, crypto.lot_size, crypto.price_scale, crypto.venue) == ("0.01", "0.00000001", 2, "XSIM")
    assert (crypto.state, crypto.open, crypto.prior_close, crypto.prior_close_date) == (LIVE, True, "100", "2026-01-02")
    assert (await world.call(pb.GetInstrumentRequest(instrument_id="BTC-USD"))).instrument == crypto


async def test_a_book_shows_the_best_levels_of_each_side(world: World) -> None:
    trade_a_little(world)
    book = (await world.call(pb.GetOrderBookRequest(instrument_id="AAPL", depth=1))).book
    assert [(level.price, level.quantity, level.order_count) for level in book.bids] == [("100", "11", 2)]
    assert [(level.price, level.quantity, level.order_count) for level in book.asks] == [("101.05", "7", 1)]
    assert (book.state, book.feed_session, book.sequence) == (LIVE, world.script.session, len(world.script.messages))
    assert len((await world.call(pb.GetOrderBookRequest(instrument_id="AAPL"))).book.bids) == 2


async def test_quotes_come_in_the_order_of_the_request_all_of_one_moment(world: World) -> None:
    trade_a_little(world)
    quotes = (await world.call(pb.BatchGetQuotesRequest(instrument_ids=["MSFT", "AAPL"]))).quotes
    assert [quote.instrument_id for quote in quotes] == ["MSFT", "AAPL"]
    empty, quote = quotes
    assert not empty.HasField("bid_price")
    assert not empty.HasField("last_price")
    assert (empty.volume, empty.prior_close, empty.state) == ("0", "100", LIVE)
    assert (quote.bid_price, quote.bid_quantity, quote.ask_price, quote.ask_quantity) == ("100", "11", "101.05", "7")
    assert (quote.last_price, quote.last_quantity, quote.volume, quote.trade_date) == ("100", "4", "6", "2026-01-05")
    assert (quote.open_price, quote.high_price, quote.low_price) == ("101.05", "101.05", "100")


async def test_trades_are_listed_newest_first_and_a_bust_is_marked(world: World) -> None:
    trade_a_little(world)
    world.script.bust(71)
    world.send()
    await until(lambda: world.recorder.recorded == 3)
    listed = await world.call(pb.ListTradesRequest(instrument_id="AAPL", page_size=1))
    (newest,) = listed.trades
    assert (newest.match_number, newest.price, newest.quantity, newest.busted) == (71, "100", "4", True)
    assert newest.aggressor_side == order_terms_pb2.SIDE_SELL
    rest = await world.call(pb.ListTradesRequest(instrument_id="AAPL", page_size=1, page_token=listed.next_page_token))
    assert [(trade.match_number, trade.busted) for trade in rest.trades] == [(70, False)]
    assert rest.next_page_token == ""
    assert not (await world.call(pb.ListTradesRequest(instrument_id="MSFT"))).trades


async def test_a_time_range_takes_its_start_and_leaves_its_end(world: World) -> None:
    trade_a_little(world)
    await until(lambda: world.recorder.recorded == 2)
    times = [trade.trade_time for trade in (await world.call(pb.ListTradesRequest(instrument_id="AAPL"))).trades]
    assert times[0].ToNanoseconds() > MIDNIGHT_NS

    async def matches(start_time: Timestamp | None = None, end_time: Timestamp | None = None) -> list[int]:
        request = pb.ListTradesRequest(instrument_id="AAPL", start_time=start_time, end_time=end_time)
        return [trade.match_number for trade in (await world.call(request)).trades]

    assert await matches(start_time=times[0]) == [71]
    assert await matches(end_time=times[0]) == [70]
    assert await matches(start_time=times[1], end_time=times[0]) == [70]
    assert await matches(start_time=Timestamp(seconds=-62135596800), end_time=Timestamp(seconds=253402300799)) == [71, 70]


async def test_a_silent_feed_is_stale_and_a_closed_session_closed(world: World) -> None:
    world.script.close("MSFT")
    world.send()
    assert (await world.call(pb.BatchGetQuotesRequest(instrument_ids=["MSFT"]))).quotes[0].state == CLOSED
    world.alive = False
    await until(lambda: not world.feed.is_live)
    assert (await world.call(pb.GetOrderBookRequest(instrument_id="AAPL"))).book.state == STALE
    assert (await world.call(pb.GetInstrumentRequest(instrument_id="MSFT"))).instrument.state == STALE


async def test_before_the_feed_is_received_nobody_can_say_what_exists(world: World) -> None:
    world.feed.venue = Venue()
    for request in (
        pb.ListInstrumentsRequest(),
        pb.GetInstrumentRequest(instrument_id="AAPL"),
        pb.GetOrderBookRequest(instrument_id="AAPL"),
    ):
        with pytest.raises(RefusedError) as refused:
            await world.call(request)
        assert (refused.value.code, refused.value.reason) == (grpc.StatusCode.UNAVAILABLE, Reason.MARKET_DATA_STALE)


@pytest.mark.parametrize(
    ("request_", "code", "reason"),
    [
        (pb.GetOrderBookRequest(instrument_id="NONE"), grpc.StatusCode.NOT_FOUND, Reason.INSTRUMENT_NOT_FOUND),
        (pb.GetInstrumentRequest(instrument_id="NONE"), grpc.StatusCode.NOT_FOUND, Reason.INSTRUMENT_NOT_FOUND),
        (pb.ListTradesRequest(instrument_id="NONE"), grpc.StatusCode.NOT_FOUND, Reason.INSTRUMENT_NOT_FOUND),
        (pb.BatchGetQuotesRequest(instrument_ids=["AAPL", "NONE"]), grpc.StatusCode.NOT_FOUND, Reason.INSTRUMENT_NOT_FOUND),
        (pb.BatchGetQuotesRequest(), grpc.StatusCode.INVALID_ARGUMENT, Reason.FIELD_INVALID),
        (pb.BatchGetQuotesRequest(instrument_ids=["AAPL", "AAPL"]), grpc.StatusCode.INVALID_ARGUMENT, Reason.FIELD_INVALID),
        (pb.BatchGetQuotesRequest(instrument_ids=[f"A{n}" for n in range(101)]), grpc.StatusCode.INVALID_ARGUMENT, Reason.FIELD_INVALID),
        (pb.GetOrderBookRequest(instrument_id="AAPL", depth=51), grpc.StatusCode.INVALID_ARGUMENT, Reason.FIELD_INVALID),
        (pb.ListTradesRequest(instrument_id="aapl"), grpc.StatusCode.INVALID_ARGUMENT, Reason.FIELD_INVALID),
        (pb.ListTradesRequest(instrument_id="AAPL", page_token="x"), grpc.StatusCode.INVALID_ARGUMENT, Reason.PAGE_TOKEN_INVALID),
        (
            pb.ListTradesRequest(instrument_id="AAPL", start_time=Timestamp(seconds=5), end_time=Timestamp(seconds=5)),
            grpc.StatusCode.INVALID_ARGUMENT,
            Reason.FIELD_INVALID,
        ),
    ],
)
async def test_a_bad_request_is_refused(world: World, request_: Any, code: grpc.StatusCode, reason: Reason) -> None:
    with pytest.raises(RefusedError) as refused:
        await world.call(request_)
    assert (refused.value.code, refused.value.reason) == (code, reason)


async def test_every_role_of_the_house_may_read_and_nobody_else(world: World) -> None:
    for role in ("viewer", "trader", "risk-officer", "compliance", "operations", "admin"):
        await world.call(pb.GetInstrumentRequest(instrument_id="AAPL"), user(role))
    with pytest.raises(RefusedError) as refused:
        await world.call(pb.GetInstrumentRequest(instrument_id="AAPL"), user("stranger"))
    assert refused.value.reason is Reason.ROLE_REQUIRED
    with pytest.raises(RefusedError) as refused:
        await world.call(pb.GetInstrumentRequest(instrument_id="AAPL"), user("viewer"), peer="svc-risk")
    assert refused.value.reason is Reason.PEER_NOT_ALLOWED
