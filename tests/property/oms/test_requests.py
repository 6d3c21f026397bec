"""The shortcut past the contract's rules, and the hash that replays are recognised by."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from kernel.errors import InvalidArgumentError, Reason
from kernel.validation import check
from svc_oms.codec.orders import begun_order, order_message
from svc_oms.codec.requests import is_plain, new_order
from svc_oms.domain import Reject, evolve
from svc_oms.domain.events import OrderAccepted, OrderRejected
from tests.integration.oms.world import USER
from tests.unit.oms import make
from trademesh.oms.v1 import order_pb2, order_service_pb2

ODD = st.text(alphabet="AZaz09.-_:~/ \n\x00é٣", max_size=36)
IDS = st.sampled_from(["ACC-1", "AAPL", "BTC-USD", "-A", "A" * 32, "A" * 33, "a", "A\n", "k~1"]) | ODD
NUMBERS = st.sampled_from(
    [
        "1",
        "0",
        "0.0",
        "0.10",
        "10.00",
        "-0",
        "-1",
        "1e3",
        "NaN",
        "01",
        "1.",
        ".5",
        "1" * 20,
        "1" * 21,
        "0." + "0" * 17 + "1",
        "0." + "1" * 19,
        "1\n",
        "١",
    ]
) | st.decimals(0, 10**6, places=3).map(str)


@st.composite
def requests(draw: st.DrawFn) -> order_service_pb2.CreateOrderRequest:
    request = order_service_pb2.CreateOrderRequest(
        account_id=draw(st.just("ACC-1") | IDS),
        client_order_id=draw(st.just("k-1") | IDS),
        instrument_id=draw(st.just("AAPL") | IDS),
        side=draw(st.sampled_from([1, 2, 0, 3, -1])),  # type: ignore[arg-type]
        type=draw(st.sampled_from([1, 2, 0, 3])),  # type: ignore[arg-type]
        time_in_force=draw(st.integers(0, 5)),  # type: ignore[arg-type]
        quantity=draw(st.just("10") | NUMBERS),
    )
    if draw(st.booleans()):
        request.limit_price = draw(st.just("100.5") | NUMBERS)
    if draw(st.booleans()):
        request.labels[draw(ODD)] = draw(ODD)
    return request


@given(requests())
@settings(max_examples=1_500, deadline=None)
def test_what_is_plain_obeys_the_contract(request: order_service_pb2.CreateOrderRequest) -> None:
    if is_plain(request):
        check(request)
    elif not request.labels:
        try:
            check(request)
        except InvalidArgumentError:
            return
        raise AssertionError("a plain order went the long way")


@given(st.sampled_from(["10", "10.0", "10.00"]), st.sampled_from(["100.5", "100.50"]))
def test_spelling_does_not_make_another_command(quantity: str, limit_price: str) -> None:
    def command(**changes: str) -> bytes:
        given_fields = {"account_id": "ACC-1", "client_order_id": "k", "instrument_id": "AAPL", "quantity": "10", "limit_price": "100.5"}
        request = order_service_pb2.CreateOrderRequest(**(given_fields | changes), side=1, type=2, time_in_force=1)  # type: ignore[arg-type]
        return new_order(request, USER).command_hash

    assert command(quantity=quantity, limit_price=limit_price) == command()
    assert command(quantity="100", limit_price=limit_price) != command()


@given(labels=st.dictionaries(st.text(min_size=1, max_size=4), st.text(max_size=4), max_size=3), refused=st.booleans(), limit=st.booleans())
def test_an_order_that_begins_looks_as_any_other(labels: dict[str, str], *, refused: bool, limit: bool) -> None:
    terms = make.terms(labels=labels, limit_price=make.terms().limit_price if limit else None)
    reject = Reject(Reason.MARKET_CLOSED, "closed")
    order = evolve(None, OrderRejected(terms, reject, make.START) if refused else OrderAccepted(terms, make.START))
    assert order_pb2.Order.FromString(begun_order(order)) == order_message(order)
