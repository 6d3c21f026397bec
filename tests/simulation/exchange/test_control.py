import json
from pathlib import Path
from typing import Any

import pytest

from sandbox.exchange.control import Control, ControlError
from sandbox.exchange.pacer import FlowPacer
from tests.simulation.exchange.harness import Client, World, executions


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "journal")


@pytest.fixture
def control(world: World) -> Control:
    return Control(world.exchange, FlowPacer(world.exchange.venue, 4, world.clock.monotonic()))


def ask(control: Control, world: World, operation: str, **fields: Any) -> dict[str, Any]:
    answer = json.loads(control.handle(json.dumps({"op": operation, **fields})))
    world.exchange.commit()
    assert isinstance(answer, dict)
    return answer


@pytest.mark.parametrize(
    "line",
    [
        "", "nonsense", "[]", "{}", '{"op": "unknown"}', '{"op": "fault.add"}', '{"op": "flow.step", "ticks": -1}', '{"op": "trade.bust"}',
        '{"op": "trade.bust", "exec_id": "X-1"}', '{"op": "flow.rate", "ticks_per_second": 1e9}', '{"op": "flow.rate"}', "[" * 100_000,
        '{"op": "member.cancel_all", "comp_id": "GAMMA"}', b"\xff\xfe",
    ],
)  # fmt: skip
def test_bad_lines_are_answered(control: Control, line: str | bytes) -> None:
    answer = json.loads(control.handle(line))
    assert answer["ok"] is False
    assert answer["error"]


def test_rules_come_and_go(control: Control, world: World) -> None:
    rule_id = ask(control, world, "fault.add", action="mute")["rule_id"]
    assert [rule["action"] for rule in ask(control, world, "fault.list")["rules"]] == ["mute"]
    assert ask(control, world, "fault.remove", rule_id=rule_id) == {"ok": True, "removed": True}
    ask(control, world, "fault.add", action="mute")
    assert ask(control, world, "fault.clear") == {"ok": True}
    assert not world.exchange.faults.active


def test_flow_is_paced_paused_and_stepped(world: World) -> None:
    start = world.clock.monotonic()
    pacer = FlowPacer(world.exchange.venue, 4, start)
    control = Control(world.exchange, pacer)
    pacer.run(start + 1)
    assert world.exchange.venue.flow_tick == 5
    ask(control, world, "flow.pause")
    pacer.run(start + 2)
    assert world.exchange.venue.flow_tick == 5
    assert ask(control, world, "flow.step", ticks=3)["tick"] == 8
    ask(control, world, "flow.resume")
    ask(control, world, "flow.rate", ticks_per_second=0)
    pacer.run(start + 3)
    assert world.exchange.venue.flow_tick == 8
    ask(control, world, "flow.rate", ticks_per_second=1000)
    pacer.run(start + 60)
    assert world.exchange.venue.flow_tick <= 8 + 6, "missed ticks are not made up for"


def test_flow_goes_on_where_it_was_after_a_restart(world: World) -> None:
    for _ in range(5):
        world.exchange.venue.step_flow()
    world.exchange.commit()
    bids = world.exchange.state.markets["AAPL"].book.bids.best
    world.crash_and_restart()
    assert world.exchange.venue.flow_tick == 5
    again = world.exchange.state.markets["AAPL"].book.bids.best
    assert bids is not None
    assert again is not None
    assert (bids.price, bids.quantity) == (again.price, again.quantity)


def test_bust_and_correct_by_either_sides_execution(control: Control, world: World) -> None:
    alpha, beta = Client(world), Client(world, "BETA")
    alpha.logon()
    beta.logon()
    alpha.send(alpha.order("a"))
    beta.send(beta.order("b", "2", "40"))
    seller = beta.received[-1].require(17)
    assert ask(control, world, "trade.correct", exec_id=seller, price="99.5") == {"ok": True, "changed": True}
    assert alpha.received[-1].get(150) == "G"
    assert ask(control, world, "trade.bust", exec_id=alpha.received[-2].require(17))["changed"]
    assert executions(alpha.received)[-1] == ("H", "0", "0", "100")
    assert not ask(control, world, "trade.bust", exec_id=seller)["changed"]
    assert "decimals" in ask(control, world, "trade.correct", exec_id=seller, quantity="0.5")["error"]


def test_members_can_be_listed_dropped_and_cancelled(control: Control, world: World) -> None:
    alpha = Client(world)
    alpha.logon()
    alpha.send(alpha.order("a"))
    (listed, _) = ask(control, world, "member.list")["members"]
    assert (listed["comp_id"], listed["connected"], listed["open_orders"], listed["next_in"]) == ("ALPHA", True, 1, 3)
    assert ask(control, world, "member.cancel_all", comp_id="ALPHA") == {"ok": True, "canceled": 1}
    assert executions(alpha.received)[-1] == ("4", "4", "0", "0")
    assert ask(control, world, "member.disconnect", comp_id="ALPHA") == {"ok": True, "disconnected": True}
    assert not alpha.connected
    assert ask(control, world, "member.disconnect", comp_id="ALPHA") == {"ok": True, "disconnected": False}
    assert ask(control, world, "status")["members_connected"] == 0


def test_a_script_stops_at_its_first_bad_line(control: Control) -> None:
    control.run_script(["# a comment", "", '{"op": "fault.add", "action": "mute"}'])
    with pytest.raises(ControlError, match="line 2"):
        control.run_script(['{"op": "flow.pause"}', '{"op": "fault.add", "action": "unheard of"}'])
