"""FIX 4.4 Appendix D, seen from a member."""

from pathlib import Path

import pytest

from kernel.fix import dictionary
from tests.simulation.exchange.harness import Client, World, executions, fields


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "journal")


@pytest.fixture
def alpha(world: World) -> Client:
    client = Client(world)
    assert client.logon()
    return client


@pytest.fixture
def beta(world: World) -> Client:
    client = Client(world, "BETA")
    assert client.logon()
    return client


def test_new_then_partial_then_filled(alpha: Client, beta: Client) -> None:
    assert executions(alpha.send(alpha.order("a"))) == [("0", "0", "0", "100")]
    beta.send(beta.order("b1", "2", "40"))
    beta.send(beta.order("b2", "2", "60"))
    assert executions(alpha.received)[1:] == [("F", "1", "40", "60"), ("F", "2", "100", "0")]
    fill = alpha.received[-1]
    assert fields(fill, 31, 32, 6, 75, 851, 11, 1) == ("100", "60", "100", "20260105", "1", "a", "ACC-1")
    assert fields(beta.received[-1], 150, 39, 851) == ("F", "2", "2")


def test_every_message_of_the_venue_passes_the_dictionary(alpha: Client, beta: Client) -> None:
    alpha.send(alpha.order("a"), alpha.order("a"), alpha.replace("a2", "a", "120", "100.5"), alpha.cancel("x", "nothing"))
    beta.send(beta.order("b", "2", "50"))
    alpha.send(alpha.cancel("c", "a2"), alpha.frame("H", [(11, "a"), (54, "1"), (55, "AAPL"), (790, "S1")]))
    alpha.send(alpha.frame("AF", [(584, "M1"), (585, "7")]), alpha.frame("AF", [(584, "M1"), (585, "3")]))
    alpha.send(alpha.order("i", t59="3"), alpha.order("z", price="-1"))
    assert len(alpha.received) == 13
    for message in alpha.received + beta.received:
        assert dictionary.validate(message) is None, message.fields


def test_average_price_over_fills(alpha: Client, beta: Client) -> None:
    beta.send(beta.order("b1", "2", "10", "99.99"), beta.order("b2", "2", "20", "100"))
    alpha.send(alpha.order("a", quantity="30"))
    assert fields(alpha.received[-1], 6, 14) == ("99.99666667", "30")


@pytest.mark.parametrize(("terms", "expected"), [({"t59": "3"}, "3"), ({"t59": "4"}, "4"), ({"t40": "1", "t44": ""}, "0")])
def test_orders_that_do_not_rest_are_new_then_canceled(alpha: Client, terms: dict[str, str], expected: str) -> None:
    answers = alpha.send(alpha.order("a", **terms))
    assert executions(answers) == [("0", "0", "0", "100"), ("4", "4", "0", "0")]
    assert fields(answers[1], 59, 41) == (expected, None)
    assert answers[1].get(58)


def test_cancel_names_both_ids(alpha: Client) -> None:
    alpha.send(alpha.order("a"))
    (answer,) = alpha.send(alpha.cancel("c", "a"))
    assert fields(answer, 150, 39, 11, 41, 14, 151, 38) == ("4", "4", "c", "a", "0", "0", "100")


def test_replace_chain(alpha: Client, beta: Client) -> None:
    alpha.send(alpha.order("a"))
    beta.send(beta.order("b", "2", "30"))
    (answer,) = alpha.send(alpha.replace("a2", "a", "80", "100.5"))
    assert fields(answer, 150, 39, 11, 41, 38, 44, 14, 151) == ("5", "1", "a2", "a", "80", "100.5", "30", "50")
    (refused,) = alpha.send(alpha.replace("a3", "a", "70", "100"))
    assert fields(refused, 35, 102, 434, 39, 11, 41) == ("9", "2", "2", "1", "a3", "a")
    (filled,) = alpha.send(alpha.replace("a4", "a2", "10", "100.5"))
    assert fields(filled, 150, 39, 38, 14, 151) == ("5", "2", "30", "30", "0")
    (late,) = alpha.send(alpha.cancel("c", "a4"))
    assert fields(late, 35, 102, 434, 39) == ("9", "0", "1", "2")


def test_cancel_of_an_unknown_order(alpha: Client) -> None:
    (answer,) = alpha.send(alpha.cancel("c", "ghost"))
    assert fields(answer, 35, 102, 434, 39, 37, 41) == ("9", "1", "1", "8", "NONE", "ghost")


def test_one_member_cannot_touch_anothers_order(alpha: Client, beta: Client) -> None:
    alpha.send(alpha.order("a"))
    (answer,) = beta.send(beta.cancel("c", "a"))
    assert fields(answer, 35, 102) == ("9", "1")
    (status,) = beta.send(beta.frame("H", [(11, "a"), (54, "1"), (55, "AAPL")]))
    assert fields(status, 150, 39, 103, 37) == ("I", "8", "5", "NONE")


class TestStatus:
    def test_of_an_open_and_of_a_closed_order(self, alpha: Client) -> None:
        alpha.send(alpha.order("a"))
        (answer,) = alpha.send(alpha.frame("H", [(11, "a"), (54, "1"), (55, "AAPL"), (790, "S1")]))
        assert fields(answer, 150, 39, 17, 11, 14, 151, 790) == ("I", "0", "0", "a", "0", "100", "S1")
        alpha.send(alpha.cancel("c", "a"))
        (answer,) = alpha.send(alpha.frame("H", [(11, "c"), (54, "1"), (55, "AAPL")]))
        assert fields(answer, 150, 39, 11, 151) == ("I", "4", "a", "0")

    def test_of_a_rejected_order(self, alpha: Client) -> None:
        alpha.send(alpha.order("a", price="-1"))
        (answer,) = alpha.send(alpha.frame("H", [(11, "a"), (54, "1"), (55, "AAPL")]))
        assert fields(answer, 150, 39, 103) == ("I", "8", "99")

    def test_mass_status_lists_open_orders_and_says_which_is_last(self, alpha: Client) -> None:
        alpha.send(alpha.order("a"), alpha.order("b"), alpha.order("gone", t59="3"), alpha.order("c", t55="BTC-USD", t38="1"))
        answers = alpha.send(alpha.frame("AF", [(584, "M1"), (585, "7")]))
        assert [fields(answer, 11, 584, 911, 912) for answer in answers] == [
            ("a", "M1", "3", "N"), ("b", "M1", "3", "N"), ("c", "M1", "3", "Y"),
        ]  # fmt: skip
        answers = alpha.send(alpha.frame("AF", [(584, "M2"), (585, "1"), (55, "BTC-USD")]))
        assert [fields(answer, 11, 912) for answer in answers] == [("c", "Y")]
        assert len(alpha.send(alpha.frame("AF", [(584, "M3"), (585, "7"), (1, "ACC-2")]))) == 1

    def test_mass_status_without_orders(self, alpha: Client) -> None:
        (answer,) = alpha.send(alpha.frame("AF", [(584, "M1"), (585, "7")]))
        assert fields(answer, 150, 39, 584, 911, 912, 103) == ("I", "8", "M1", "0", "Y", "5")

    def test_mass_status_of_another_kind_is_a_business_reject(self, alpha: Client) -> None:
        (answer,) = alpha.send(alpha.frame("AF", [(584, "M1"), (585, "8")]))
        assert fields(answer, 35, 372, 379, 380) == ("j", "AF", "M1", "0")


class TestBadInput:
    @pytest.mark.parametrize(
        ("terms", "reason", "text"),
        [
            ({"t38": "-5"}, "13", "OrderQty"),
            ({"t38": "-0"}, "13", "OrderQty"),
            ({"t38": "0"}, "13", "OrderQty"),
            ({"t38": "1.5"}, "13", "OrderQty"),
            ({"t38": ""}, "13", "OrderQty"),
            ({"t38": "10001"}, "3", "maximum"),
            ({"t44": "-100"}, "99", "Price"),
            ({"t44": "100.001"}, "99", "Price"),
            ({"t44": "0"}, "99", "Price"),
            ({"t44": ""}, "99", "Price"),
            ({"t40": "1"}, "99", "market order"),
            ({"t40": "3", "t99": "5"}, "11", "StopPx"),
            ({"t40": "P"}, "11", "OrdType"),
            ({"t54": "5"}, "11", "Side"),
            ({"t59": "6", "t432": "20260105"}, "11", "ExpireDate"),
            ({"t110": "10"}, "11", "MinQty"),
            ({"t55": "GHOST"}, "1", "symbol"),
            ({"t11": "x" * 65}, "0", "ClOrdID"),
            ({"t1": "x" * 33}, "0", "Account"),
            ({"t40": "1", "t44": "", "t59": "1"}, "11", "good till cancel"),
            ({"t44": "101", "t38": "10000"}, "3", "value"),
        ],
    )
    def test_orders_that_break_a_rule_are_rejected(self, alpha: Client, terms: dict[str, str], reason: str, text: str) -> None:
        (answer,) = alpha.send(alpha.order("a", **terms))
        assert fields(answer, 35, 150, 39, 103, 37, 14, 151) == ("8", "8", "8", reason, "NONE", "0", "0")
        assert text in (answer.get(58) or "")
        assert alpha.world.exchange.state.open_orders_of("ALPHA") == []

    @pytest.mark.parametrize(
        ("terms", "reason", "tag"),
        [
            ({"t38": "NaN"}, "6", "38"),
            ({"t38": "1e5"}, "6", "38"),
            ({"t38": "1.0000000000000000001"}, "6", "38"),
            ({"t44": "9" * 21}, "6", "44"),
            ({"t54": "Z"}, "5", "54"),
            ({"t35x": "", "t60": "yesterday"}, "6", "60"),
            ({"t60": ""}, "1", "60"),
            ({"t7": "1"}, "2", "7"),
            ({"t0": "1"}, "0", "0"),
        ],
    )  # fmt: skip
    def test_fields_of_the_wrong_form_are_rejected_at_the_session(
        self, alpha: Client, terms: dict[str, str], reason: str, tag: str
    ) -> None:
        terms.pop("t35x", None)
        number = alpha.next_out
        (answer,) = alpha.send(alpha.order("a", **terms))
        assert fields(answer, 35, 373, 371, 45, 372) == ("3", reason, tag, str(number), "D")
        assert executions(alpha.send(alpha.order("a"))) == [("0", "0", "0", "100")]

    def test_unsupported_message_types_are_business_rejects(self, alpha: Client) -> None:
        (answer,) = alpha.send(alpha.frame("V", [(262, "R"), (263, "0"), (264, "1"), (267, [[(269, "0")]]), (146, [[(55, "AAPL")]])]))
        assert fields(answer, 35, 372, 380) == ("j", "V", "3")

    def test_duplicate_client_order_id(self, alpha: Client) -> None:
        alpha.send(alpha.order("a"))
        (answer,) = alpha.send(alpha.order("a", price="101"))
        assert fields(answer, 150, 39, 103) == ("8", "8", "6")
        assert len(alpha.world.exchange.state.open_orders_of("ALPHA")) == 1

    @pytest.mark.parametrize(
        ("terms", "text"),
        [({"t38": "0"}, "OrderQty"), ({"t44": "1.001"}, "Price"), ({"t55": "GHOST"}, "symbol"), ({"t110": "5"}, "MinQty")],
    )
    def test_replacements_that_break_a_rule_leave_the_order_alone(self, alpha: Client, terms: dict[str, str], text: str) -> None:
        alpha.send(alpha.order("a"))
        (answer,) = alpha.send(alpha.replace("b", "a", "50", "100", **terms))
        assert fields(answer, 35, 434, 102) == ("9", "2", "2")
        assert text in (answer.get(58) or "")
        order = alpha.world.exchange.state.find("ALPHA", "a")
        assert order is not None
        assert (order.leaves_quantity, order.client_order_id) == (100, "a")
