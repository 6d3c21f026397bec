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


class Day:
    """A day of trading with accidents, decided by a seed."""

    names = ("ALPHA", "BETA")

    def __init__(self, seed: int, directory: Path) -> None:
        self.dice = random.Random(seed)
        self.world = World(directory)
        self.auditor = Auditor()
        self.clients = {name: Client(self.world, name) for name in self.names}
        self.seen = dict.fromkeys(self.names, 0)
        self.live: dict[str, list[tuple[str, str]]] = {name: [] for name in self.names}
        for client in self.clients.values():
            assert client.logon()

    def read_all(self) -> None:
        """Every member reads what came on its present connection."""
        for name, client in self.clients.items():
            for message in client.received:
                if message.get(43) != "Y":
                    assert int(message.require(34)) == self.seen[name] + 1, "a report was skipped"
                    self.seen[name] += 1
                    self.auditor.read(name, message)
            client.received.clear()

    def rejoin(self, name: str) -> None:
        """A member comes back and catches up."""
        self.clients[name] = catch_up(self.world, self.auditor, self.clients[name], self.seen[name])
        self.seen[name] = last_number(self.clients[name], self.seen[name])
        self.clients[name].received.clear()

    def step(self, number: int) -> None:
        """One thing happens."""
        name = self.dice.choice(self.names)
        client, kind = self.clients[name], self.dice.random()
        if kind < 0.6:
            side, price = self.dice.choice("12"), 100 + self.dice.randrange(-3, 4)
            order_id = f"{name[0]}{number}"
            client.send(client.order(order_id, side, str(self.dice.randrange(1, 90)), str(price)))
            self.live[name].append((order_id, side))
        elif kind < 0.75 and self.live[name]:
            order_id, side = self.dice.choice(self.live[name])
            client.send(client.cancel(f"c{number}", order_id, side))
        elif kind < 0.85:
            self.world.exchange.venue.step_flow()
            self.world.exchange.commit()
        elif kind < 0.92:
            self.read_all()
            client.drop()
            self.rejoin(name)
        else:
            self.read_all()
            self.world.crash_and_restart()
            for other in self.names:
                self.rejoin(other)
        self.read_all()


def play(seed: int, directory: Path, steps: int = 120) -> Auditor:
    """Play a day and audit it."""
    day = Day(seed, directory)
    for number in range(steps):
        day.step(number)
    day.auditor.check(day.world, day.names)
    return day.auditor


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


def report(exec_id: str, exec_type: str, last: str, cum: str) -> Message:
    """A report as a member would read it."""
    return Message("FIX.4.4", [(35, "8"), (34, "2"), (37, "X-1"), (17, exec_id), (150, exec_type), (32, last), (14, cum)])


@pytest.mark.parametrize(
    ("planted", "complaint"),
    [
        ([report("E1", "F", "10", "10"), report("E1", "F", "20", "30")], "means two things"),
        ([report("E1", "F", "10", "10"), report("E2", "F", "10", "30")], "missing or doubled"),
        ([report("E1", "F", "10", "10"), report("E2", "F", "10", "10")], "missing or doubled"),
    ],
)
def test_the_auditor_sees_planted_violations(planted: list[Message], complaint: str) -> None:
    auditor = Auditor()
    with pytest.raises(AssertionError, match=complaint):
        for message in planted:
            auditor.read("ALPHA", message)


def test_the_auditor_misses_no_fill_that_was_never_told(tmp_path: Path) -> None:
    day = Day(3, tmp_path / "journal")
    day.world.exchange.faults.add({"action": "mute", "on": ["trade"]})
    for number in range(60):
        day.step(number)
    with pytest.raises(AssertionError):
        day.auditor.check(day.world, day.names)
