"""Sequence numbers, resends and restarts: no report is lost, none is made twice."""

from pathlib import Path

import pytest

from kernel.fix import tags
from kernel.fix.fieldtypes import format_timestamp
from sandbox.exchange.journal import JournalLimits
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


def rejoin(world: World, client: Client) -> Client:
    """The same member on a new connection, with the numbers it had."""
    again = Client(world, client.name)
    again.next_out = client.next_out
    assert again.logon()
    return again


@pytest.mark.parametrize("secret", ["", "wrong", "a secret of this tesT"])
def test_wrong_password_gets_no_answer(world: World, secret: str) -> None:
    client = Client(world)
    assert not client.logon(password=secret or "x")
    assert client.received == []


def test_stranger_and_first_message_that_is_no_logon_get_no_answer(world: World) -> None:
    assert not Client(world, "GAMMA").logon()
    client = Client(world)
    client.logon()
    assert client.received[0].msg_type == tags.LOGON


def test_reports_made_while_away_come_after_the_gap_is_noticed(world: World, alpha: Client, beta: Client) -> None:
    alpha.send(alpha.order("a"))
    seen = int(alpha.received[-1].require(34))
    alpha.drop()
    beta.send(beta.order("b", "2", "100"))
    again = rejoin(world, alpha)
    logon = again.received[-1]
    assert logon.msg_type == tags.LOGON
    assert int(logon.require(34)) == seen + 2, "the logon's number shows the gap"
    resent = again.resend_from(seen + 1)
    assert executions(resent) == [("F", "2", "100", "0")]
    assert fields(resent[0], 34, 43) == (str(seen + 1), "Y")
    assert resent[0].get(122)
    assert fields(resent[1], 35, 123, 36) == ("4", "Y", str(seen + 3))


def test_resend_repeats_reports_and_fills_session_messages(alpha: Client) -> None:
    alpha.send(alpha.order("a"), alpha.frame(tags.TEST_REQUEST, [(112, "T")]), alpha.order("b"))
    first = [message for message in alpha.received if message.msg_type == "8"]
    resent = alpha.resend_from(1)
    again = [message for message in resent if message.msg_type == "8"]
    assert [fields(message, 17, 11, 34) for message in again] == [fields(message, 17, 11, 34) for message in first]
    assert all(message.get(43) == "Y" for message in again)


def test_a_new_logon_replaces_a_stale_connection(world: World, alpha: Client) -> None:
    alpha.send(alpha.order("a"))
    again = rejoin(world, alpha)
    assert (alpha.connected, alpha.end) == (False, "replaced by a new logon of the same member")
    assert executions(again.send(again.order("b"))) == [("0", "0", "0", "100")]
    alpha.drop()
    assert executions(again.send(again.order("c"))) == [("0", "0", "0", "100")]


def test_a_resent_order_is_taken_once(world: World, alpha: Client) -> None:
    alpha.send(alpha.order("a"))
    number = alpha.next_out - 1
    sent_time = alpha.received[0].require(52)
    again = alpha.frame("D", [(11, "a"), (21, "1"), (38, "100"), (40, "2"), (44, "100"), (54, "1"), (55, "AAPL"), (60, sent_time)],
                        sequence=number, orig_sending_time=sent_time)  # fmt: skip
    assert alpha.send(again) == []
    assert len(world.exchange.state.open_orders_of("ALPHA")) == 1


def test_a_gap_from_the_member_is_asked_for_and_then_processed_in_order(alpha: Client) -> None:
    lost, kept = alpha.order("lost"), alpha.order("kept")
    (request,) = alpha.send(kept)
    assert fields(request, 35, 7, 16) == ("2", "2", "0")
    number = alpha.next_out - 2
    sent_time = alpha.received[0].require(52)
    body = [(11, "lost"), (1, "ACC-1"), (21, "1"), (38, "100"), (40, "2"), (44, "100"), (54, "1"), (55, "AAPL"), (60, sent_time)]
    answers = alpha.send(alpha.frame("D", body, sequence=number, orig_sending_time=sent_time))
    assert [message.get(11) for message in answers] == ["lost", "kept"]
    assert lost


def test_an_order_with_possresend_is_answered_with_its_status(alpha: Client) -> None:
    alpha.send(alpha.order("a"))
    now = format_timestamp(alpha.world.clock.now())
    body = [(1, "ACC-1"), (21, "1"), (38, "100"), (40, "2"), (44, "100"), (54, "1"), (55, "AAPL"), (60, now)]
    (answer,) = alpha.send(alpha.frame("D", [*body, (11, "a")], poss_resend=True))
    assert fields(answer, 150, 39, 17) == ("I", "0", "0")
    (answer,) = alpha.send(alpha.frame("D", [*body, (11, "new")], poss_resend=True))
    assert fields(answer, 150, 39) == ("0", "0")


def test_heartbeats_and_silence(world: World) -> None:
    client = Client(world)
    client.logon(heartbeat=30)
    world.pass_time(30)
    assert client.received[-1].msg_type == tags.HEARTBEAT
    world.pass_time(10)
    assert client.received[-1].msg_type == tags.TEST_REQUEST
    world.pass_time(40)
    assert not client.connected
    assert not world.exchange.desk.members["ALPHA"].is_connected


def test_cancel_on_disconnect(tmp_path: Path) -> None:
    world = World(tmp_path / "journal", cancel_on_disconnect=True)
    alpha = Client(world)
    alpha.logon()
    alpha.send(alpha.order("a"), alpha.order("b"))
    alpha.drop()
    assert world.exchange.state.open_orders_of("ALPHA") == []
    again = rejoin(world, alpha)
    assert executions(again.resend_from(4)) == [("4", "4", "0", "0")] * 2


def test_orders_outlive_a_disconnect_by_default(world: World, alpha: Client) -> None:
    alpha.send(alpha.order("a"))
    alpha.drop()
    assert len(world.exchange.state.open_orders_of("ALPHA")) == 1


def test_cancel_on_disconnect_after_a_crash(tmp_path: Path) -> None:
    world = World(tmp_path / "journal", cancel_on_disconnect=True)
    alpha = Client(world)
    alpha.logon()
    alpha.send(alpha.order("a"))
    world.crash_and_restart()
    assert world.exchange.state.open_orders_of("ALPHA") == []


class TestRestart:
    def test_book_numbers_and_ids_go_on(self, world: World, alpha: Client, beta: Client) -> None:
        alpha.send(alpha.order("a", quantity="100"))
        beta.send(beta.order("b", "2", "30"))
        used = [message.get(17) for message in alpha.received + beta.received if message.get(17)]
        world.crash_and_restart()
        again, other = rejoin(world, alpha), rejoin(world, beta)
        other.send(other.order("b2", "2", "70"))
        assert executions(again.received) == [("F", "2", "100", "0")]
        used += [message.get(17) for message in again.received + other.received if message.get(17)]
        assert len(used) == len(set(used))

    def test_reports_of_before_the_crash_can_be_resent(self, world: World, alpha: Client) -> None:
        alpha.send(alpha.order("a"), alpha.order("b"))
        world.crash_and_restart()
        again = rejoin(world, alpha)
        resent = again.resend_from(1)
        assert [message.get(11) for message in resent if message.msg_type == "8"] == ["a", "b"]

    def test_a_member_that_missed_the_answer_gets_the_same_answer(self, world: World, alpha: Client) -> None:
        alpha.send(alpha.order("a"))
        (report,) = (message for message in alpha.received if message.msg_type == "8")
        world.crash_and_restart()
        again = rejoin(world, alpha)
        (resent,) = (message for message in again.resend_from(2) if message.msg_type == "8")
        assert fields(resent, 17, 37, 60) == fields(report, 17, 37, 60)

    def test_through_many_segments_and_snapshots(self, tmp_path: Path) -> None:
        world = World(tmp_path / "journal", limits=JournalLimits(segment_bytes_max=8_000, segments_kept=2))
        alpha = Client(world)
        alpha.logon()
        beta = Client(world, "BETA")
        beta.logon()
        for number in range(60):
            alpha.send(alpha.order(f"a{number}"))
            beta.send(beta.order(f"b{number}", "2", "60"))
        assert len(list((tmp_path / "journal").glob("snapshot-*.json"))) == 2
        before = [(order.client_order_id, order.leaves_quantity) for order in world.exchange.state.open_orders_of("ALPHA")]
        world.crash_and_restart()
        assert [(order.client_order_id, order.leaves_quantity) for order in world.exchange.state.open_orders_of("ALPHA")] == before
        again = rejoin(world, alpha)
        resent = again.resend_from(1)
        assert fields(resent[0], 35, 123) == ("4", "Y"), "what the journal no longer has is gap-filled"
        assert executions(resent)
        assert executions(again.send(again.order("later", price="90"))) == [("0", "0", "0", "100")]

    def test_duplicate_check_spans_the_restart(self, world: World, alpha: Client) -> None:
        alpha.send(alpha.order("a", t59="3"))
        world.crash_and_restart()
        again = rejoin(world, alpha)
        (answer,) = again.send(again.order("a"))
        assert fields(answer, 150, 103) == ("8", "6")
