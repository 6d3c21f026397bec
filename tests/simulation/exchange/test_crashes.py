"""Members, flow, crashes at any moment, and an auditor who believes only what members were told.

The seed is the bug report: `play(seed)` repeats a failure.
"""

import random
from pathlib import Path

import pytest

from kernel.fix.message import Message
from tests.simulation.exchange.harness import Client, World


class Auditor:
    """Collects every report by execution id and adds up what members were told."""

    def __init__(self) -> None:
        self.reports: dict[str, tuple[tuple[int, str], ...]] = {}
        self.filled: dict[str, int] = {}

    def read(self, name: str, message: Message) -> None:
        """Take one report; the same execution may come again, but only word for word."""
        exec_id = message.get(17)
        if message.msg_type != "8" or exec_id in (None, "0"):
            return
        content = tuple((tag, text) for tag, text in message.fields if tag not in (34, 43, 52, 122))
        known = self.reports.setdefault(str(exec_id), content)
        assert known == content, f"execution {exec_id} means two things"
        if message.get(150) == "F" and known is content:
            order = f"{name}/{message.get(37)}"
            self.filled[order] = self.filled.get(order, 0) + int(message.require(32))
            assert int(message.require(14)) == self.filled[order], "a fill is missing or doubled"

    def check(self, world: World, names: tuple[str, ...]) -> None:
        """Compare with the venue's own state."""
        state = world.exchange.state
        for order in state.orders.values():
            if order.owner in names and order.instrument == "AAPL":
                key = f"{order.owner}/{world.exchange.reports.order_id(order.order_id)}"
                assert self.filled.get(key, 0) == order.cum_quantity


def catch_up(world: World, auditor: Auditor, client: Client, seen: int) -> Client:
    """Reconnect and ask for everything that was missed; `seen` is the last number that was read."""
    again = Client(world, client.name)
    again.next_out = world.exchange.desk.members[client.name].sequences.next_in
    assert again.logon()
    if int(again.received[0].require(34)) > seen + 1:
        for message in again.resend_from(seen + 1):
            auditor.read(client.name, message)
    return again


def play(seed: int, directory: Path, steps: int = 120) -> Auditor:
    """A day of trading with accidents."""
    dice = random.Random(seed)
    world = World(directory)
    auditor = Auditor()
    names = ("ALPHA", "BETA")
    clients = {name: Client(world, name) for name in names}
    seen = dict.fromkeys(names, 0)
    for client in clients.values():
        assert client.logon()
    live: dict[str, list[tuple[str, str]]] = {name: [] for name in names}

    def read(name: str, messages: list[Message]) -> None:
        for message in messages:
            if message.get(43) != "Y":
                assert int(message.require(34)) == seen[name] + 1, "a report was skipped"
                seen[name] += 1
                auditor.read(name, message)

    for step in range(steps):
        name = dice.choice(names)
        client = clients[name]
        kind = dice.random()
        if kind < 0.6:
            side, price = dice.choice("12"), 100 + dice.randrange(-3, 4)
            order_id = f"{name[0]}{step}"
            client.send(client.order(order_id, side, str(dice.randrange(1, 90)), str(price)))
            live[name].append((order_id, side))
        elif kind < 0.75 and live[name]:
            order_id, side = dice.choice(live[name])
            client.send(client.cancel(f"c{step}", order_id, side))
        elif kind < 0.85:
            world.exchange.venue.step_flow()
            world.exchange.commit()
        elif kind < 0.92:
            client.drop()
            clients[name] = catch_up(world, auditor, client, seen[name])
            seen[name] = last_number(clients[name], seen[name])
            clients[name].received.clear()
            continue
        else:
            for other, member in clients.items():
                read(other, member.received)
                member.received.clear()
            world.crash_and_restart()
            for other in names:
                clients[other] = catch_up(world, auditor, clients[other], seen[other])
                seen[other] = last_number(clients[other], seen[other])
                clients[other].received.clear()
            continue
        for other, member in clients.items():
            read(other, member.received)
            member.received.clear()
    auditor.check(world, names)
    return auditor


def last_number(client: Client, seen: int) -> int:
    """The highest number that a member has read, gap fills included."""
    highest = seen
    for message in client.received:
        number = int(message.require(34))
        if message.msg_type == "4":
            number = int(message.require(36)) - 1
        highest = max(highest, number)
    return highest


@pytest.mark.parametrize("seed", range(12))
def test_nothing_is_lost_or_doubled(seed: int, tmp_path: Path) -> None:
    auditor = play(seed, tmp_path / "journal")
    assert auditor.filled, f"seed {seed} traded nothing"
