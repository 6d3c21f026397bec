"""Orders to FIX and venues' messages back (FIX 4.4 Volume 4 and Appendix D)."""

from datetime import UTC, datetime
from decimal import Decimal

import pytest

from kernel.fix.codec import encode_body, frame, parse
from kernel.fix.dictionary import validate
from kernel.fix.steps import AppMessage, StoredMessage
from svc_oms.domain import OrderState, OrderType, ReportKind, TimeInForce
from svc_oms.fix.reports import (
    MassStatusEnd,
    MessageRefused,
    OrderReport,
    UnreadableReport,
    read_delivery,
    refusal_by_reference,
    refusal_of,
)
from svc_oms.fix.requests import mass_status_request, new_order, order_id_of, request_message, status_request
from tests.unit.fix import orders
from tests.unit.fix.orders import NOW, ORDER_ID, delivered, execution_report, received, sent


def read_one(client_order_id: str, **fields: str) -> OrderReport:
    body = [(int(tag.removeprefix("t")), text) for tag, text in fields.items()]
    (report,) = read_delivery(delivered(execution_report(client_order_id, body)), "XSIM")
    assert isinstance(report, OrderReport)
    return report


def test_new_limit_order() -> None:
    message = new_order(orders.placed(), NOW)
    assert message.msg_type == "D"
    assert message.reference == ORDER_ID
    assert sent(message) == {
        1: "ACC-1",
        11: ORDER_ID,
        21: "1",
        38: "100",
        40: "2",
        44: "101.5",
        54: "2",
        55: "AAPL",
        59: "0",
        60: "20260803-09:30:00.000",
    }


@pytest.mark.parametrize(
    ("time_in_force", "text"), [(TimeInForce.DAY, "0"), (TimeInForce.GTC, "1"), (TimeInForce.IOC, "3"), (TimeInForce.FOK, "4")]
)
def test_market_order_and_times_in_force(time_in_force: TimeInForce, text: str) -> None:
    fields = sent(new_order(orders.placed(kind=OrderType.MARKET, time_in_force=time_in_force), NOW))
    assert fields[40] == "1"
    assert fields[59] == text
    assert 44 not in fields


def test_cancel_chains_to_the_order() -> None:
    order = orders.cancelling(orders.acknowledged())
    message = request_message(order, order.requests[0], NOW)
    fields = sent(message)
    assert message.msg_type == "F"
    assert fields[11] == order.requests[0].venue_client_order_id
    assert fields[41] == ORDER_ID
    assert fields[37] == "V-1"
    assert order_id_of(fields[11]) == ORDER_ID


def test_replace_states_the_whole_new_terms() -> None:
    order = orders.replacing(orders.acknowledged())
    message = request_message(order, order.requests[0], NOW)
    fields = sent(message)
    assert message.msg_type == "G"
    assert (fields[38], fields[44], fields[40], fields[59], fields[41]) == ("50", "101.25", "2", "0", ORDER_ID)


def test_a_cancel_after_a_sent_replace_chains_to_the_replace() -> None:
    """41 is the last that was not refused (FIX 4.4 Appendix D.2)."""
    order = orders.replacing(orders.acknowledged(), sent=True)
    replace_id = order.requests[0].venue_client_order_id
    order = orders.cancelling(order)
    assert sent(request_message(order, order.requests[-1], NOW))[41] == replace_id


def test_after_an_accepted_replace_the_chain_goes_on_from_it() -> None:
    order = orders.replacing(orders.acknowledged(), sent=True)
    replace_id = order.requests[0].venue_client_order_id
    order = orders.reported(order, [(11, replace_id), (41, ORDER_ID), (17, "E-2"), (39, "0"), (150, "5"), (38, "50"), (44, "101.25")])
    order = orders.cancelling(order)
    assert sent(request_message(order, order.requests[-1], NOW))[41] == replace_id


def test_status_requests() -> None:
    order = orders.acknowledged()
    assert sent(status_request(order, "S-1")) == {11: ORDER_ID, 37: "V-1", 54: "2", 55: "AAPL", 790: "S-1"}
    assert sent(mass_status_request("M-1")) == {584: "M-1", 585: "7"}


def test_everything_we_send_passes_the_dictionary() -> None:
    order = orders.cancelling(orders.replacing(orders.acknowledged(), sent=True))
    messages: list[AppMessage] = [
        new_order(order, NOW),
        new_order(orders.placed(kind=OrderType.MARKET), NOW),
        *(request_message(order, request, NOW) for request in order.requests),
        status_request(order, "S"),
        mass_status_request("M"),
    ]
    assert [validate(received(message.msg_type, message.body)) for message in messages] == [None] * 6


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (ORDER_ID, ORDER_ID),
        (f"{ORDER_ID}-c12", ORDER_ID),
        (f"{ORDER_ID}x", ""),
        (ORDER_ID.upper(), ""),
        ("", ""),
        ("V-1", ""),
        (ORDER_ID[:-1], ""),
    ],
)
def test_order_id_of_a_client_order_id(text: str, expected: str) -> None:
    assert order_id_of(text) == expected


def test_fill() -> None:
    report = read_one(ORDER_ID, t17="E-9", t150="F", t39="1", t32="40", t31="101.50", t14="40", t151="60", t75="20260804")
    assert report.order_id == ORDER_ID
    read = report.report
    assert read.kind is ReportKind.TRADE
    assert read.key == ("XSIM", "2026-08-04", "E-9")
    assert (read.last_quantity, read.last_price, read.cumulative_quantity) == (Decimal(40), Decimal("101.5"), Decimal(40))
    assert read.state is OrderState.PARTIALLY_FILLED
    assert read.transact_time == datetime(2026, 8, 3, 9, 30, 0, 250000, tzinfo=UTC)
    assert parse(read.raw).get(17) == "E-9"


def test_trade_date_falls_back_to_the_transaction_and_then_to_the_message() -> None:
    assert read_one(ORDER_ID, t60="20260805-23:59:59.999").report.trade_date == "2026-08-05"
    body = [(6, "0"), (11, ORDER_ID), (14, "0"), (17, "E"), (37, "V"), (39, "0"), (54, "2"), (55, "AAPL"), (150, "0"), (151, "0")]
    (report,) = read_delivery(delivered(received("8", body)), "XSIM")
    assert isinstance(report, OrderReport)
    assert report.report.trade_date == "2026-08-03"


@pytest.mark.parametrize(
    ("exec_type", "kind"),
    [
        ("0", ReportKind.ACKNOWLEDGED),
        ("3", ReportKind.DONE_FOR_DAY),
        ("4", ReportKind.CANCELED),
        ("5", ReportKind.REPLACED),
        ("6", ReportKind.PENDING),
        ("7", ReportKind.STOPPED),
        ("8", ReportKind.REFUSED),
        ("9", ReportKind.SUSPENDED),
        ("A", ReportKind.PENDING),
        ("B", ReportKind.STATUS),
        ("C", ReportKind.EXPIRED),
        ("D", ReportKind.RESTATED),
        ("E", ReportKind.PENDING),
        ("F", ReportKind.TRADE),
        ("G", ReportKind.TRADE_CORRECT),
        ("H", ReportKind.TRADE_CANCEL),
        ("I", ReportKind.STATUS),
    ],
)
def test_every_execution_type_has_a_meaning(exec_type: str, kind: ReportKind) -> None:
    assert read_one(ORDER_ID, t150=exec_type).report.kind is kind


def test_bust_and_correction_name_their_fill() -> None:
    assert read_one(ORDER_ID, t150="H", t17="E-3", t19="E-2").report.exec_ref_id == "E-2"
    assert read_one(ORDER_ID, t150="G", t17="E-3", t19="E-2", t32="30", t31="101").report.last_quantity == Decimal(30)


@pytest.mark.parametrize(("cumulative", "state"), [("0", OrderState.NEW), ("5", OrderState.PARTIALLY_FILLED)])
def test_a_pending_status_says_that_the_order_works(cumulative: str, state: OrderState) -> None:
    assert read_one(ORDER_ID, t150="I", t39="6", t14=cumulative).report.state is state


def test_an_unknown_order_is_not_any_rejection() -> None:
    assert read_one(ORDER_ID, t150="I", t39="8", t103="5", t17="0").report.kind is ReportKind.UNKNOWN_ORDER
    assert read_one(ORDER_ID, t150="I", t39="8", t103="1").report.kind is ReportKind.STATUS
    assert read_one(ORDER_ID, t150="8", t39="8", t103="5").report.kind is ReportKind.REFUSED
    assert read_one(ORDER_ID, t150="I", t17="0").report.exec_id == ""


def test_an_order_that_is_not_ours_has_no_order_id() -> None:
    report = read_one("someone-else", t37="V-77")
    assert report.order_id == ""
    assert report.report.venue_order_id == "V-77"
    assert read_one("venue-made", t41=f"{ORDER_ID}-r3").order_id == ORDER_ID


def test_the_end_of_a_mass_status() -> None:
    body = [(584, "M-1"), (150, "I"), (911, "2")]
    assert [type(item) for item in read_delivery(delivered(execution_report(ORDER_ID, body)), "XSIM")] == [OrderReport]
    both = read_delivery(delivered(execution_report(ORDER_ID, [*body, (912, "Y")])), "XSIM")
    assert both[1] == MassStatusEnd("M-1", 2)
    none = read_delivery(delivered(execution_report("", [(11, "x"), (584, "M-1"), (150, "I"), (39, "8"), (911, "0")])), "XSIM")
    assert none == (MassStatusEnd("M-1", 0),)


def test_cancel_reject() -> None:
    body = [(11, f"{ORDER_ID}-c4"), (37, "V-1"), (39, "2"), (41, ORDER_ID), (102, "0"), (434, "1"), (58, "too late")]
    (report,) = read_delivery(delivered(received("9", body)), "XSIM")
    assert isinstance(report, OrderReport)
    assert report.order_id == ORDER_ID
    assert report.report.kind is ReportKind.REQUEST_REFUSED
    assert (report.report.client_order_id, report.report.venue_reason, report.report.text) == (f"{ORDER_ID}-c4", 0, "too late")
    assert report.report.state is OrderState.FILLED


def test_a_report_that_cannot_be_read_is_kept_whole() -> None:
    message = execution_report(ORDER_ID, [(32, "many"), (150, "F")])
    (report,) = read_delivery(delivered(message), "XSIM")
    assert isinstance(report, UnreadableReport)
    assert report.raw == message.raw
    assert "32" in report.problem


@pytest.mark.parametrize(
    ("msg_type", "body", "business", "reason"),
    [
        ("3", [(45, "12"), (58, "bad tag"), (371, "55"), (372, "D"), (373, "5")], False, 5),
        ("j", [(45, "12"), (58, "no"), (372, "D"), (380, "3")], True, 3),
        ("3", [(45, "12")], False, -1),
    ],
)
def test_a_refused_message_becomes_a_refusal_of_its_order(msg_type: str, body: list[tuple[int, str]], business: bool, reason: int) -> None:
    (refused,) = read_delivery(delivered(received(msg_type, body)), "XSIM")
    assert isinstance(refused, MessageRefused)
    assert (refused.sequence, refused.business, refused.reason) == (12, business, reason)
    order = orders.routed()
    message = new_order(order, NOW)
    report = refusal_of(refused, StoredMessage(12, "D", encode_body(message.body), "t", ORDER_ID), "XSIM")
    assert report is not None
    assert (report.order_id, report.report.kind, report.report.client_order_id) == (ORDER_ID, ReportKind.REFUSED, ORDER_ID)
    order = orders.cancelling(orders.acknowledged(), sent=True)
    message = request_message(order, order.requests[0], NOW)
    report = refusal_of(refused, StoredMessage(12, "F", encode_body(message.body), "t", ORDER_ID), "XSIM")
    assert report is not None
    assert report.report.kind is ReportKind.REQUEST_REFUSED
    assert report.report.client_order_id == order.requests[0].venue_client_order_id
    assert refusal_of(refused, StoredMessage(12, "H", b"11=x\x01", "t", ORDER_ID), "XSIM") is None


@pytest.mark.parametrize(
    ("msg_type", "kind"), [("D", ReportKind.REFUSED), ("F", ReportKind.REQUEST_REFUSED), ("G", ReportKind.REQUEST_REFUSED)]
)
def test_a_business_reject_without_a_number_names_our_message_by_its_id(msg_type: str, kind: ReportKind) -> None:
    """45 is optional in 35=j; 379 then is the ClOrdID of what was refused (FIX 4.4 Volume 2, Business Message Reject)."""
    identity = ORDER_ID if msg_type == "D" else f"{ORDER_ID}-c1"
    message = received("j", [(58, "no"), (372, msg_type), (379, identity), (380, "4")])
    assert validate(message) is None
    (refused,) = read_delivery(delivered(message), "XSIM")
    assert isinstance(refused, MessageRefused)
    report = refusal_by_reference(refused, "XSIM")
    assert report is not None
    assert (report.order_id, report.report.kind, report.report.client_order_id) == (ORDER_ID, kind, identity)
    assert (report.report.venue_reason, report.report.text) == (4, "no")


@pytest.mark.parametrize(
    ("msg_type", "body"),
    [
        ("j", [(372, "D"), (379, "theirs"), (380, "4")]),
        ("j", [(372, "D"), (380, "4")]),
        ("j", [(372, "AF"), (379, ORDER_ID), (380, "4")]),
        ("3", [(45, "12"), (372, "D"), (379, ORDER_ID)]),
        ("j", [(45, "12"), (372, "D"), (379, ORDER_ID), (380, "4")]),
    ],
)
def test_what_names_no_order_of_ours_or_has_a_number_is_not_looked_up_by_id(msg_type: str, body: list[tuple[int, str]]) -> None:
    (refused,) = read_delivery(delivered(received(msg_type, body)), "XSIM")
    assert isinstance(refused, MessageRefused)
    assert refusal_by_reference(refused, "XSIM") is None


def test_reports_drive_the_domain() -> None:
    order = orders.acknowledged()
    order = orders.reported(order, [(17, "E-2"), (150, "F"), (39, "1"), (32, "40"), (31, "101.5"), (14, "40")])
    order = orders.reported(order, [(17, "E-2"), (150, "F"), (39, "1"), (32, "40"), (31, "101.5"), (14, "40")])
    assert order.filled_quantity == 40
    order = orders.reported(order, [(17, "E-3"), (150, "F"), (39, "2"), (32, "60"), (31, "101.5"), (14, "100")])
    assert order.state is OrderState.FILLED
    order = orders.reported(order, [(17, "E-4"), (19, "E-3"), (150, "H"), (39, "1"), (14, "40")])
    assert (order.state, order.filled_quantity) == (OrderState.PARTIALLY_FILLED, Decimal(40))


def test_a_fill_without_transact_time_has_one_trade_date_however_often_it_is_resent() -> None:
    """Its key is (venue, trade date, ExecID): resent after midnight with another SendingTime, it must not count twice."""
    fields = [(6, "0"), (11, ORDER_ID), (14, "1"), (17, "E-1"), (31, "10"), (32, "1"), (37, "V"), (39, "1"), (54, "1"), (55, "AAPL")]
    body = encode_body([*fields, (150, "F"), (151, "0")])
    keys = []
    for now, original in (("20260803-23:59:59.900", None), ("20260804-00:00:01.000", "20260803-23:59:59.900")):
        data = frame("FIX.4.4", "8", sequence=5, sender="XSIM", target="TM", sending_time=now, body=body, orig_sending_time=original)
        (read,) = read_delivery(delivered(parse(data)), "XSIM")
        assert isinstance(read, OrderReport)
        keys.append(read.report.key)
    assert keys[0] == keys[1]
