"""Scripted misbehaviour, as a member sees it."""

from pathlib import Path

import pytest

from tests.simulation.exchange.harness import Client, World, executions, fields
from tests.simulation.exchange.test_sessions import rejoin


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


def test_reject_counts_and_skips(world: World, alpha: Client) -> None:
    world.exchange.faults.add({"action": "reject", "client_order_id": "x*", "skip": 1, "count": 2, "text": "not today"})
    answers = alpha.send(*(alpha.order(name) for name in ("x1", "x2", "y", "x3", "x4")))
    assert [fields(answer, 11, 39) for answer in answers] == [("x1", "0"), ("x2", "8"), ("y", "0"), ("x3", "8"), ("x4", "0")]
    assert fields(answers[1], 103, 58) == ("0", "not today")


@pytest.mark.parametrize(("pattern", "hit"), [({"session": "BETA"}, False), ({"instrument": "AA*"}, True), ({"account": "ACC-2"}, False)])
def test_patterns(world: World, alpha: Client, pattern: dict[str, str], hit: bool) -> None:
    world.exchange.faults.add({"action": "reject", **pattern})
    assert executions(alpha.send(alpha.order("a")))[0][0] == ("8" if hit else "0")


def test_reject_of_a_cancel_leaves_the_order(world: World, alpha: Client) -> None:
    world.exchange.faults.add({"action": "reject", "on": ["cancel"], "client_order_id": "a"})
    alpha.send(alpha.order("a"))
    (answer,) = alpha.send(alpha.cancel("c", "a"))
    assert fields(answer, 35, 102, 39) == ("9", "2", "0")
    assert len(world.exchange.state.open_orders_of("ALPHA")) == 1


def test_silent_swallows_the_order(world: World, alpha: Client) -> None:
    world.exchange.faults.add({"action": "silent", "on": ["new"], "count": 1})
    assert alpha.send(alpha.order("a")) == []
    (status,) = alpha.send(alpha.frame("H", [(11, "a"), (54, "1"), (55, "AAPL")]))
    assert fields(status, 39, 103) == ("8", "5")
    assert alpha.send(alpha.order("b"))


def test_mute_keeps_the_order_but_tells_nothing(world: World, alpha: Client) -> None:
    world.exchange.faults.add({"action": "mute", "on": ["new"]})
    assert alpha.send(alpha.order("a")) == []
    (status,) = alpha.send(alpha.frame("AF", [(584, "M"), (585, "7")]))
    assert fields(status, 11, 39) == ("a", "0")


def test_delay(world: World, alpha: Client) -> None:
    world.exchange.faults.add({"action": "delay", "on": ["new"], "delay_ms": 500})
    assert alpha.send(alpha.order("a")) == []
    world.pass_time(0.4)
    assert len(alpha.received) == 1
    world.pass_time(0.2)
    assert executions(alpha.received) == [("0", "0", "0", "100")]


def test_held_fill_comes_late_and_until_then_nobody_would_guess(world: World, alpha: Client, beta: Client) -> None:
    world.exchange.faults.add({"action": "hold_fills", "session": "ALPHA", "delay_ms": 1_000})
    alpha.send(alpha.order("a"))
    beta.send(beta.order("b", "2", "100"))
    assert executions(beta.received)[-1] == ("F", "2", "100", "0")
    (status,) = alpha.send(alpha.frame("H", [(11, "a"), (54, "1"), (55, "AAPL")]))
    assert executions([status]) == [("I", "0", "0", "100")]
    (mass,) = alpha.send(alpha.frame("AF", [(584, "M"), (585, "7")]))
    assert fields(mass, 11, 39, 911) == ("a", "0", "1")
    world.pass_time(1)
    assert executions(alpha.received)[-1] == ("F", "2", "100", "0")


def test_held_fills_come_one_after_the_other(world: World, alpha: Client, beta: Client) -> None:
    world.exchange.faults.add({"action": "hold_fills", "session": "ALPHA", "delay_ms": 1_000})
    alpha.send(alpha.order("a"))
    beta.send(beta.order("b", "2", "40"), beta.order("b2", "2", "60"))
    world.pass_time(1)
    assert executions(alpha.received)[-2:] == [("F", "1", "40", "60"), ("F", "2", "100", "0")]


def test_late_fill_after_the_cancel(world: World, alpha: Client, beta: Client) -> None:
    world.exchange.faults.add({"action": "hold_fills", "session": "ALPHA", "until_closed": True})
    alpha.send(alpha.order("a"))
    beta.send(beta.order("b", "2", "40"))
    answers = alpha.send(alpha.cancel("c", "a"))
    assert executions(answers) == [("4", "4", "0", "0"), ("F", "4", "40", "0")]
    assert [message.get(11) for message in answers] == ["c", "a"]


def test_held_fill_survives_a_crash(world: World, alpha: Client, beta: Client) -> None:
    world.exchange.faults.add({"action": "hold_fills", "session": "ALPHA", "delay_ms": 60_000})
    alpha.send(alpha.order("a"))
    beta.send(beta.order("b", "2", "40"))
    world.crash_and_restart()
    again = rejoin(world, alpha)
    assert executions(again.resend_from(3)) == [("F", "1", "40", "60")]


def test_duplicate_report_has_one_exec_id_and_two_numbers(world: World, alpha: Client) -> None:
    world.exchange.faults.add({"action": "duplicate", "on": ["new"]})
    first, second = alpha.send(alpha.order("a"))
    assert first.get(17) == second.get(17)
    assert int(second.require(34)) == int(first.require(34)) + 1


def test_disconnect_in_the_middle_of_a_batch(world: World, alpha: Client) -> None:
    world.exchange.faults.add({"action": "disconnect", "client_order_id": "b", "count": 1})
    orders = [alpha.order(name) for name in "abc"]
    alpha.send(*orders)
    assert not alpha.connected
    assert len(alpha.received) == 1, "not even the first order's report left"
    alpha.next_out -= 1  # c was never read: its number is still free
    again = rejoin(world, alpha)
    reports = [message for message in again.resend_from(2) if message.msg_type == "8"]
    assert [message.get(11) for message in reports] == ["a", "b"]
    assert executions(again.send(again.order("c"))) == [("0", "0", "0", "100")]


def test_bust_after_the_fill_reaches_both_sides(world: World, alpha: Client, beta: Client) -> None:
    world.exchange.faults.add({"action": "bust", "session": "ALPHA", "delay_ms": 100})
    alpha.send(alpha.order("a"))
    beta.send(beta.order("b", "2", "40"))
    fill = alpha.received[-1]
    world.pass_time(0.2)
    assert executions(alpha.received)[-1] == ("H", "0", "0", "100")
    assert alpha.received[-1].get(19) == fill.get(17)
    assert alpha.received[-1].get(17) != fill.get(17)
    assert executions(beta.received)[-2:] == [("H", "0", "0", "40"), ("4", "4", "0", "0")]


def test_correction_of_price_and_quantity(world: World, alpha: Client, beta: Client) -> None:
    world.exchange.faults.add({"action": "correct", "session": "ALPHA", "price": "99.5", "quantity": "30"})
    alpha.send(alpha.order("a"))
    beta.send(beta.order("b", "2", "40"))
    world.pass_time(0)
    correction = alpha.received[-1]
    assert fields(correction, 150, 39, 14, 151, 32, 31, 6) == ("G", "1", "30", "70", "30", "99.5", "99.5")


def test_rules_play_the_same_twice(tmp_path: Path) -> None:
    def play(directory: Path) -> list[tuple[str | None, ...]]:
        world = World(directory)
        world.exchange.faults.add({"action": "reject", "client_order_id": "*3", "count": 2})
        world.exchange.faults.add({"action": "duplicate", "on": ["trade"], "skip": 1})
        alpha, beta = Client(world), Client(world, "BETA")
        alpha.logon()
        beta.logon()
        for number in range(20):
            alpha.send(alpha.order(f"a{number}"))
            beta.send(beta.order(f"b{number}", "2", "70"))
        return executions(alpha.received + beta.received)

    assert play(tmp_path / "one") == play(tmp_path / "two")


def test_a_held_fill_is_told_before_its_bust(world: World, alpha: Client, beta: Client) -> None:
    world.exchange.faults.add({"action": "hold_fills", "session": "ALPHA", "delay_ms": 60_000})
    world.exchange.faults.add({"action": "bust", "session": "BETA", "delay_ms": 100})
    alpha.send(alpha.order("a"))
    beta.send(beta.order("b", "2", "40"))
    assert len(alpha.received) == 2
    world.pass_time(0.2)
    assert executions(alpha.received)[-2:] == [("F", "1", "40", "60"), ("H", "0", "0", "100")]
    assert alpha.received[-1].get(19) == alpha.received[-2].get(17)


def test_a_delayed_fill_is_told_before_its_bust(world: World, alpha: Client, beta: Client) -> None:
    alpha.send(alpha.order("a"))
    world.exchange.faults.add({"action": "delay", "session": "ALPHA", "count": 1, "delay_ms": 60_000})
    world.exchange.faults.add({"action": "bust", "session": "BETA", "delay_ms": 100})
    told = len(alpha.received)
    beta.send(beta.order("b", "2", "40"))
    assert len(alpha.received) == told
    world.pass_time(0.2)
    assert executions(alpha.received)[-2:] == [("F", "1", "40", "60"), ("H", "0", "0", "100")]
    assert alpha.received[-1].get(19) == alpha.received[-2].get(17)
