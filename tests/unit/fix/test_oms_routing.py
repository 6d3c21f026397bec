"""What is sent, refused, resent and asked, decided without I/O."""

from collections.abc import Callable
from datetime import timedelta

import pytest

from kernel.errors import Reason
from kernel.fix.fieldtypes import format_timestamp
from kernel.fix.steps import StoredMessage
from svc_oms.domain import Action, Order
from svc_oms.fix.routing import (
    NOTHING,
    Choice,
    LinkView,
    Questions,
    Reconciliation,
    Waiting,
    in_doubt,
    is_evidence,
    is_overdue,
    judge_waiting,
    reconcile,
    resend,
)
from tests.unit.fix import orders
from tests.unit.fix.orders import NOW, ORDER_ID


def judge(order: Order, action: Action = Action.NEW, *, age: float = 0.0, can_send: bool = True, killed: bool = False) -> Choice:
    identity = order.order_id if action is Action.NEW else next(r.venue_client_order_id for r in order.requests if r.action is action)
    verdict = judge_waiting(order, Waiting(action, identity, NOW - timedelta(seconds=age)), can_send=can_send, killed=killed, now=NOW)
    return verdict.choice


def test_a_fresh_order_is_sent_or_waits_for_the_link() -> None:
    assert judge(orders.placed()) is Choice.SEND
    assert judge(orders.placed(), can_send=False) is Choice.WAIT
    assert judge(orders.placed(), age=4.9, can_send=False) is Choice.WAIT


def test_an_order_unsent_for_five_seconds_is_refused_even_if_the_link_is_back() -> None:
    for can_send in (True, False):
        assert judge(orders.placed(), age=5.0, can_send=can_send) is Choice.REFUSE
    verdict = judge_waiting(
        orders.placed(), Waiting(Action.NEW, ORDER_ID, NOW - timedelta(seconds=9)), can_send=True, killed=False, now=NOW
    )
    assert verdict.reason is Reason.NOT_SENT_IN_TIME


def test_a_killed_order_is_never_sent() -> None:
    verdict = judge_waiting(orders.placed(), Waiting(Action.NEW, ORDER_ID, NOW), can_send=True, killed=True, now=NOW)
    assert (verdict.choice, verdict.reason) == (Choice.REFUSE, Reason.KILLED_BEFORE_SEND)
    assert judge(orders.replacing(orders.acknowledged()), Action.REPLACE, killed=True) is Choice.REFUSE


def test_cancels_always_pass_and_never_expire() -> None:
    order = orders.cancelling(orders.acknowledged())
    assert judge(order, Action.CANCEL, killed=True) is Choice.SEND
    assert judge(order, Action.CANCEL, age=3600, can_send=False) is Choice.WAIT
    assert judge(order, Action.CANCEL, age=3600) is Choice.SEND


def test_what_needs_no_sending_is_dropped() -> None:
    assert judge(orders.routed()) is Choice.DROP
    assert judge(orders.cancelling(orders.placed())) is Choice.DROP
    sent = orders.cancelling(orders.acknowledged(), sent=True)
    assert judge(sent, Action.CANCEL) is Choice.DROP


def test_overdue() -> None:
    assert not is_overdue(NOW - timedelta(seconds=9.9), NOW)
    assert is_overdue(NOW - timedelta(seconds=10), NOW)


def stored(msg_type: str, age: float = 0.0, *, of: Order | None = None) -> StoredMessage:
    """A message of an order, or of the last request of `of`."""
    identity = of.requests[-1].venue_client_order_id if of is not None else ORDER_ID
    return StoredMessage(7, msg_type, f"11={identity}\x01".encode(), format_timestamp(NOW - timedelta(seconds=age)), ORDER_ID)


def test_a_fresh_order_that_everybody_wants_is_sent_again() -> None:
    assert resend(stored("D"), orders.routed(), killed=False, now=NOW)


@pytest.mark.parametrize(
    ("order", "age", "killed"),
    [
        (orders.routed(), 5.0, False),
        (orders.routed(), 0.0, True),
        (orders.cancelling(orders.routed()), 0.0, False),
        (orders.acknowledged(), 0.0, False),
        (orders.unknown(orders.routed()), 0.0, False),
        (None, 0.0, False),
    ],
)
def test_stale_killed_cancelled_or_answered_orders_are_gap_filled(order: Order | None, age: float, killed: bool) -> None:
    assert not resend(stored("D", age), order, killed=killed, now=NOW)


def test_open_cancels_are_sent_again_however_old() -> None:
    order = orders.cancelling(orders.acknowledged(), sent=True)
    assert resend(stored("F", 3600, of=order), order, killed=True, now=NOW)
    assert not resend(stored("F", of=order), orders.acknowledged(), killed=False, now=NOW)


def test_replaces_are_sent_again_like_orders() -> None:
    order = orders.replacing(orders.acknowledged(), sent=True)
    assert resend(stored("G", of=order), order, killed=False, now=NOW)
    assert not resend(stored("G", 5.0, of=order), order, killed=False, now=NOW)
    assert not resend(stored("G", of=order), order, killed=True, now=NOW)
    assert not resend(stored("G", of=order), orders.cancelling(order), killed=False, now=NOW)


@pytest.mark.parametrize(("msg_type", "asked"), [("G", orders.replacing), ("F", orders.cancelling)])
def test_a_request_that_was_refused_is_not_sent_again_for_the_next_one(msg_type: str, asked: Callable[..., Order]) -> None:
    """A venue that lost its memory asks for everything; the first request is history."""
    before = asked(orders.acknowledged(), sent=True)
    first = stored(msg_type, of=before)
    identity = before.requests[-1].venue_client_order_id
    again = asked(orders.refused_request(before), sent=True)
    assert again.requests[-1].venue_client_order_id != identity
    assert resend(stored(msg_type, of=again), again, killed=False, now=NOW)
    assert not resend(first, again, killed=False, now=NOW)


@pytest.mark.parametrize("msg_type", ["H", "AF", "j"])
def test_questions_are_asked_afresh(msg_type: str) -> None:
    assert not resend(stored(msg_type), orders.routed(), killed=False, now=NOW)


def test_who_is_in_doubt() -> None:
    assert in_doubt(orders.routed(sequence=7), sent_before=8)
    assert not in_doubt(orders.routed(sequence=8), sent_before=8), "sent on this connection: its answer is under way"
    assert in_doubt(orders.unknown(orders.routed(sequence=8)), sent_before=8)
    assert not in_doubt(orders.acknowledged(), sent_before=99)
    assert in_doubt(orders.cancelling(orders.acknowledged(), sent=True), sent_before=99)
    assert not in_doubt(orders.placed(), sent_before=99)


def test_unknown_order_is_evidence_only_past_our_message() -> None:
    order = orders.routed(sequence=7)
    assert not is_evidence(order, 6)
    assert is_evidence(order, 7)
    assert not is_evidence(orders.placed(), 99)


def view(*, generation: int = 1, ready: bool = True, synchronised: bool = True, next_sequence: int = 10, confirmed: int = 0) -> LinkView:
    return LinkView(generation, ready, synchronised, next_sequence, confirmed)


def test_reconciliation_confirms_first_and_then_asks() -> None:
    doubtful = orders.routed(sequence=7)
    state, questions = reconcile(Reconciliation(), view(ready=False), [doubtful], NOW)
    assert questions == NOTHING
    state, questions = reconcile(state, view(synchronised=False), [doubtful], NOW)
    assert questions == NOTHING, "a gap is open: what is missing may hold the answer"
    state, questions = reconcile(state, view(), [doubtful], NOW)
    assert questions == Questions(synchronise=True)
    state, questions = reconcile(state, view(next_sequence=11), [doubtful], NOW)
    assert questions == NOTHING, "not confirmed yet"
    state, questions = reconcile(state, view(next_sequence=11, confirmed=10), [doubtful], NOW)
    assert questions == Questions(mass_status=True, order_ids=(ORDER_ID,))
    state, questions = reconcile(state, view(next_sequence=13, confirmed=10), [doubtful], NOW)
    assert questions == NOTHING, "asked a moment ago"
    later = NOW + timedelta(seconds=10)
    state, questions = reconcile(state, view(next_sequence=13, confirmed=10), [doubtful], later)
    assert questions == Questions(order_ids=(ORDER_ID,))
    state, questions = reconcile(state, view(next_sequence=13, confirmed=10), [orders.acknowledged()], later)
    assert questions == NOTHING
    assert state.asked == {}


def test_a_confirmation_that_was_lost_is_asked_for_again() -> None:
    doubtful = orders.routed(sequence=7)
    state, questions = reconcile(Reconciliation(), view(), [doubtful], NOW)
    state, questions = reconcile(state, view(next_sequence=11), [doubtful], NOW + timedelta(seconds=9))
    assert questions == NOTHING
    state, questions = reconcile(state, view(next_sequence=11), [doubtful], NOW + timedelta(seconds=10))
    assert questions == Questions(synchronise=True)
    assert state.confirm_sequence == 11


def test_a_new_logon_starts_again() -> None:
    doubtful = orders.routed(sequence=7)
    state, _ = reconcile(Reconciliation(), view(), [doubtful], NOW)
    state, _ = reconcile(state, view(next_sequence=11, confirmed=10), [doubtful], NOW)
    state, questions = reconcile(state, view(generation=2, next_sequence=14), [doubtful], NOW)
    assert questions == Questions(synchronise=True)
    assert state.sent_before == 14


def test_an_order_that_became_unknown_later_needs_a_later_confirmation() -> None:
    state, _ = reconcile(Reconciliation(), view(), [orders.acknowledged()], NOW)
    state, questions = reconcile(state, view(next_sequence=11, confirmed=10), [orders.acknowledged()], NOW)
    assert questions == Questions(mass_status=True)
    lost = orders.unknown(orders.routed(sequence=20))
    state, questions = reconcile(state, view(next_sequence=21, confirmed=10), [lost], NOW)
    assert questions == Questions(synchronise=True)
    state, questions = reconcile(state, view(next_sequence=22, confirmed=21), [lost], NOW)
    assert questions == Questions(order_ids=(ORDER_ID,))


def test_nothing_to_ask_without_orders() -> None:
    state, questions = reconcile(Reconciliation(), view(), [], NOW)
    assert questions == NOTHING
    assert state.generation == 1


def test_the_evidence_ends_an_order_that_was_never_received() -> None:
    order = orders.unknown(orders.routed(sequence=7))
    fields = [(17, "0"), (150, "I"), (39, "8"), (103, "5")]
    assert is_evidence(order, 12)
    order = orders.reported(order, fields)
    assert order.terminal
