"""After a venue has skipped numbers: every order that it had acknowledged is accounted for, by a mass status or by itself."""

from datetime import datetime, timedelta

import pytest

from svc_oms.fix.recount import Recount
from svc_oms.fix.reports import InboundReport, read_delivery
from svc_oms.fix.routing import STATUS_RETRY_SECONDS, LinkView
from tests.unit.fix.orders import NOW, ORDER_ID, delivered, execution_report, received

LATER = NOW + timedelta(seconds=STATUS_RETRY_SECONDS)
OTHER = "2f0e7c52-8a3b-5d11-9a55-0123456789ab"


def link(generation: int = 1, *, ready: bool = True, synchronised: bool = True) -> LinkView:
    return LinkView(generation, ready, synchronised, 10, 0)


def status(order_id: str, *, mass: str = "", last: bool = False) -> tuple[InboundReport, ...]:
    body = [(17, "0"), (150, "I"), (39, "0")]
    if mass:
        body += [(584, mass), (911, "2"), (912, "Y" if last else "N")]
    return read_delivery(delivered(execution_report(order_id, body)), "XSIM")


def asked(recount: Recount, generation: int = 1, now: datetime = NOW) -> None:
    assert recount.wants_mass_status(link(generation))
    recount.asks_all("M", generation, now)


@pytest.fixture
def recount() -> Recount:
    recount = Recount()
    recount.begin()
    return recount


def test_nothing_is_asked_while_nothing_was_skipped() -> None:
    recount = Recount()
    assert not recount.wants_mass_status(link())
    assert not recount.wants_orders(LATER)
    assert recount.due(LATER, 10) == ()


def test_the_link_must_be_whole_first(recount: Recount) -> None:
    assert not recount.wants_mass_status(link(ready=False))
    assert not recount.wants_mass_status(link(synchronised=False))
    assert recount.wants_mass_status(link())


def test_orders_that_the_venue_does_not_mention_are_asked_for_one_by_one(recount: Recount) -> None:
    asked(recount)
    recount.heard(status(ORDER_ID, mass="M"))
    assert not recount.wants_orders(NOW)
    recount.heard(status("3f0e7c52-8a3b-5d11-9a55-0123456789ab", mass="M", last=True))
    assert recount.wants_orders(NOW)
    recount.compare([ORDER_ID, OTHER])
    assert recount.due(NOW, 10) == (OTHER,)
    recount.asks([OTHER], NOW)
    assert recount.due(NOW, 10) == ()
    assert recount.due(LATER, 10) == (OTHER,), "nobody answered"
    recount.heard(status(OTHER))
    assert recount.due(LATER, 10) == ()


def test_a_venue_without_open_orders_has_answered_too(recount: Recount) -> None:
    asked(recount)
    recount.heard(read_delivery(delivered(execution_report("NONE", [(17, "0"), (150, "I"), (39, "8"), (584, "M"), (911, "0")])), "XSIM"))
    assert recount.wants_orders(NOW)


@pytest.mark.parametrize("refusal", [("j", [(45, "12"), (372, "AF"), (380, "3")]), ("3", [(45, "12"), (372, "AF"), (373, "11")])])
def test_a_venue_that_knows_no_mass_status_is_asked_one_by_one(recount: Recount, refusal: tuple[str, list[tuple[int, str]]]) -> None:
    asked(recount)
    recount.heard(read_delivery(delivered(received(*refusal)), "XSIM"))
    assert recount.wants_orders(NOW)


def test_a_venue_that_never_ends_its_answer_is_not_waited_for(recount: Recount) -> None:
    asked(recount)
    recount.heard(status(ORDER_ID, mass="M"))
    assert recount.wants_orders(LATER)


def test_another_answer_is_not_ours(recount: Recount) -> None:
    asked(recount)
    recount.heard(status(ORDER_ID, mass="someone's", last=True))
    assert not recount.wants_orders(NOW)


def test_a_question_that_was_lost_with_its_connection_is_asked_again(recount: Recount) -> None:
    asked(recount)
    assert not recount.wants_mass_status(link(1))
    asked(recount, 2)


def test_what_is_skipped_later_is_counted_again(recount: Recount) -> None:
    asked(recount)
    recount.heard(status(ORDER_ID, mass="M", last=True))
    recount.compare([ORDER_ID, OTHER])
    recount.begin()
    assert recount.due(NOW, 10) == ()
    asked(recount)


def test_orders_that_ended_meanwhile_need_no_answer_and_portions_are_bounded(recount: Recount) -> None:
    asked(recount)
    recount.heard(status(ORDER_ID, mass="M", last=True))
    recount.compare([OTHER, "4", "5"])
    assert recount.due(NOW, 2) == (OTHER, "4")
    recount.settle([OTHER, "4"])
    assert recount.due(NOW, 2) == ("5",)
    recount.settle(["5"])
    assert recount.due(LATER, 2) == ()
    assert not recount.wants_mass_status(link())
