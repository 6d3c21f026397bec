"""What is decided about a call before its request is looked at."""

from __future__ import annotations

import asyncio
import time

import grpc
import pytest
from google.rpc import status_pb2

from kernel.errors import DeadlineExceededError, Reason, ResourceExhaustedError, UnavailableError
from kernel.identity import PEER_HEADER, SECRET_HEADER, Authenticator, xfcc
from kernel.server_admission import HINTS, RETRY_AFTER_SECONDS, Admission, Lane, new_traceparent
from kernel.server_context import NO_DEADLINE
from kernel.server_policy import BoundMethod, MethodPolicy, inside
from kernel.status import DETAILS_KEY, from_status
from trademesh.oms.v1 import order_service_pb2

SECRET = "a-secret-of-this-test-run"
METADATA = ((SECRET_HEADER, SECRET), (PEER_HEADER, xfcc("svc-oms", trust_domain="trademesh.local", namespace="trading")))
POLICY = inside("svc-oms", write=True, timeout_seconds=2.0)


def admission(draining: asyncio.Event | None = None) -> Admission:
    authenticator = Authenticator(SECRET, trust_domain="trademesh.local", namespace="trading", now=time.time)
    return Admission(authenticator, draining=draining or asyncio.Event(), stream_seconds_max=60.0)


def method(policy: MethodPolicy = POLICY, *, streaming: bool = False) -> BoundMethod:
    return BoundMethod("/x.Y/Z", None, policy, order_service_pb2.GetOrderRequest, client_streaming=streaming, server_streaming=streaming)


def test_expired_work_is_refused_before_it_starts() -> None:
    with pytest.raises(DeadlineExceededError) as caught:
        admission().admit(method(), METADATA, 0.0, traced=False)
    assert caught.value.reason is Reason.DEADLINE_EXPIRED


@pytest.mark.parametrize(
    ("remaining", "streaming", "expected"), [(None, False, 2.0), (1.0, False, 1.0), (9.0, False, 2.0), (None, True, 60.0), (9.0, True, 9.0)]
)
def test_every_deadline_is_bounded(remaining: float | None, streaming: bool, expected: float) -> None:
    context = admission().admit(method(streaming=streaming), METADATA, remaining, traced=False)
    assert context.deadline != NO_DEADLINE
    assert expected - 0.5 < context.remaining_seconds() <= expected


def test_a_draining_server_takes_nothing_new() -> None:
    draining = asyncio.Event()
    draining.set()
    with pytest.raises(UnavailableError) as caught:
        admission(draining).admit(method(), METADATA, 1.0, traced=False)
    assert (caught.value.reason, caught.value.retry_after_seconds) == (Reason.SHUTTING_DOWN, 0.25)


@pytest.mark.parametrize("traceparent", [None, "short", "x" * 55, '00-4bf92f3577b34da6a3ce929d0e0e473"-00f067aa0ba902b7-01'])
def test_every_call_has_a_trace_id(traceparent: str | None) -> None:
    metadata = METADATA if traceparent is None else (*METADATA, ("traceparent", traceparent))
    contexts = [admission().admit(method(), metadata, 1.0, traced=False) for _ in range(2)]
    assert len(contexts[0].trace_id) == 32
    assert contexts[0].trace_id != contexts[1].trace_id
    assert not contexts[0].sampled


def test_fresh_trace_ids_are_well_formed() -> None:
    version, trace, span, flags = new_traceparent().split("-")
    assert (version, len(trace), len(span), flags) == ("00", 32, 16, "00")


def test_a_lane_counts_what_it_sheds() -> None:
    lane = Lane("ordinary", 1)
    assert lane.enter()
    assert not lane.enter()
    assert (lane.running, lane.shed_total) == (1, 1)
    lane.leave()
    assert lane.enter()
    with pytest.raises(ValueError, match="place"):
        Lane("none", 0)


def test_a_full_lane_sends_callers_away_with_typed_details_and_calls_them_back_one_by_one() -> None:
    lane = Lane("ordinary", 1)
    assert lane.enter()
    hints = set()
    for _ in range(HINTS):
        assert not lane.enter()
        refusal = lane.refusal()
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED")
        trailers = dict(refusal.trailers)
        details = trailers[DETAILS_KEY]
        assert isinstance(details, bytes)
        error = from_status(status_pb2.Status.FromString(details))
        assert isinstance(error, ResourceExhaustedError)
        assert error.retry_after_seconds is not None
        assert RETRY_AFTER_SECONDS <= error.retry_after_seconds < 2 * RETRY_AFTER_SECONDS
        assert trailers["retry-after"] == "1"
        hints.add(error.retry_after_seconds)
    assert len(hints) == HINTS
    assert lane.shed_total == HINTS
    lane.leave()
    assert lane.enter()
