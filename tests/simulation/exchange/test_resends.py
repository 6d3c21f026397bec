"""Resends that are longer than a part: bounded, in order, and overtaken by nothing."""

from collections.abc import Callable
from pathlib import Path

import pytest

from kernel.fix import tags
from kernel.fix.message import Message
from tests.simulation.exchange.harness import Client, World, fields

PART = 4


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr("sandbox.exchange.sessions.RESEND_MESSAGES_MAX", PART)
    return World(tmp_path / "journal")


@pytest.fixture
def alpha(world: World) -> Client:
    """A member with ten resting orders: numbers 2 to 11."""
    client = Client(world)
    client.logon()
    client.send(*(client.order(f"a{number}", price="90") for number in range(10)))
    return client


def ids(messages: list[Message]) -> list[str | None]:
    return [message.get(11) for message in messages if message.msg_type == tags.EXECUTION_REPORT]


def numbers(messages: list[Message]) -> list[int]:
    return [int(message.require(34)) for message in messages]


def asks_and_stops_reading(client: Client, begin: int = 2) -> None:
    """Ask for everything from a number on, and let the link fill up with the first part."""
    write: Callable[[bytes], None] = client.write

    def fill_up(data: bytes) -> None:
        write(data)
        client.is_behind = True

    client.write = fill_up  # type: ignore[method-assign]
    client.send(client.frame(tags.RESEND_REQUEST, [(7, str(begin)), (16, "0")]))


def takes_a_part(world: World, client: Client) -> list[Message]:
    """The link is empty again."""
    before = len(client.received)
    client.is_behind = False
    world.settle()
    return client.received[before:]


def test_a_long_resend_is_whole_and_in_order(alpha: Client) -> None:
    resent = alpha.resend_from(2)
    assert ids(resent) == [f"a{number}" for number in range(10)]
    assert numbers(resent) == list(range(2, 12))


def test_a_part_waits_until_the_one_before_was_taken(world: World, alpha: Client) -> None:
    before = len(alpha.received)
    asks_and_stops_reading(alpha)
    world.pass_time(1)
    assert numbers(alpha.received[before:]) == [2, 3, 4, 5]
    assert not alpha.is_heard, "whoever owes a resend takes no orders"
    assert numbers(takes_a_part(world, alpha)) == [6, 7, 8, 9]
    assert numbers(takes_a_part(world, alpha)) == [10, 11]
    assert alpha.is_heard


def test_what_happens_meanwhile_is_told_after_it_and_told_once(world: World, alpha: Client) -> None:
    asks_and_stops_reading(alpha)
    beta = Client(world, "BETA")
    beta.logon()
    beta.send(beta.order("b", "2", "200", "90"))
    assert alpha.connected
    rest = [*takes_a_part(world, alpha), *takes_a_part(world, alpha), *takes_a_part(world, alpha)]
    assert numbers(rest) == list(range(6, 14))
    assert [fields(message, 11, 150) for message in rest[-2:]] == [("a0", "F"), ("a1", "F")]
    assert ids(takes_a_part(world, alpha)) == []
    beta.send(beta.order("b2", "2", "100", "90"))
    assert fields(alpha.received[-1], 34, 11, 43) == ("14", "a2", None), "and then live again"


def test_what_happens_meanwhile_survives_a_crash(world: World, alpha: Client) -> None:
    asks_and_stops_reading(alpha)
    beta = Client(world, "BETA")
    beta.logon()
    beta.send(beta.order("b", "2", "200", "90"))
    world.crash_and_restart()
    again = Client(world)
    again.next_out = alpha.next_out
    again.logon()
    resent = again.resend_from(2)
    assert [fields(message, 34, 11) for message in resent if message.get(150) == "F"] == [("12", "a0"), ("13", "a1")]


def test_requests_sent_behind_a_resend_request_wait_for_it(world: World, alpha: Client) -> None:
    request = alpha.frame(tags.RESEND_REQUEST, [(7, "2"), (16, "0")])
    answers = alpha.send(request, alpha.order("late", price="90"))
    assert ids(answers) == [*(f"a{number}" for number in range(10)), "late"]
    assert numbers(answers) == list(range(2, 13))


def test_a_connection_that_ends_within_a_resend_owes_nothing(world: World, alpha: Client) -> None:
    asks_and_stops_reading(alpha)
    alpha.drop()
    world.settle()
    assert not world.exchange.desk.resend_is_due
    again = Client(world)
    again.next_out = alpha.next_out
    assert again.logon()
    assert numbers(again.resend_from(2))[-1] == 12
