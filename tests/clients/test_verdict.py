"""What the driver must not forgive a client, or the mesh: planted faults in what a runner reports."""

from __future__ import annotations

from typing import Any

import pytest

from tests.clients.table import Facts, TableError, for_runner, names, scenarios
from tests.clients.verdict import complaints

FACTS = Facts("go-1", "230.01", "NVDA")


def message(sequence: int, *, kind: str = "event", version: int = 0, last: int = 0) -> dict[str, Any]:
    if kind == "heartbeat":
        return {"kind": kind, "sequence": sequence, "last_sequence": last, "versions": {}}
    return {"kind": kind, "sequence": sequence, "versions": {"order": version} if version else {}}


def streamed(*parts: list[dict[str, Any]]) -> list[str]:
    """The complaints about one stream that was broken between the parts."""
    row = {"name": "planted", "steps": [{"verb": "read", "stream": "orders"} for _ in parts]}
    return complaints(row, {"steps": [{"code": "OK", "messages": part} for part in parts]})


def test_a_stream_without_fault_passes() -> None:
    assert not streamed(
        [message(1, kind="snapshot", version=2), message(2, version=2), message(2, kind="heartbeat", last=2)],
        [message(3, version=3), message(4, version=4)],
    )


@pytest.mark.parametrize(
    ("parts", "complaint"),
    [
        (([message(1), message(3)],), "event 3 after 1"),
        (([message(2)],), "event 2 after 0"),
        (([message(1), message(2)], [message(2)]), "event 2 after 2"),
        (([message(1)], [message(3)]), "event 3 after 1"),
        (([message(1), message(2, kind="heartbeat", last=2)],), "a heartbeat says 2 after 1"),
        (([message(1, version=2), message(2, version=2)],), "version 2 of order after 2"),
        (([message(1, version=2)], [message(2, version=1)]), "version 1 of order after 2"),
    ],
)
def test_gaps_and_repetitions_are_told(parts: tuple[list[dict[str, Any]], ...], complaint: str) -> None:
    (told,) = streamed(*parts)
    assert complaint in told


@pytest.mark.parametrize(
    ("wanted", "seen"),
    [
        ({"code": "OK"}, {"code": "NOT_FOUND"}),
        ({"reason": "TOKEN_EXPIRED"}, {"code": "UNAUTHENTICATED"}),
        ({"response.order.id": {"same_as": "first.response.order.id"}}, {"response": {"order": {"id": "b"}}}),
        ({"response.order.id": {"same_as": "first.response.order.nothing"}}, {"response": {"order": {}}}),
        ({"code": {"in": ["A", "B"]}}, {"code": "C"}),
        ({"messages.*.kind": {"excludes": "snapshot"}}, {"messages": [{"kind": "event"}, {"kind": "snapshot"}]}),
        ({"messages.*.kind": {"excludes": "snapshot"}}, {"code": "OK"}),
        ({"replayed": True}, {"replayed": False}),
    ],
)
def test_what_differs_from_the_table_is_told(wanted: dict[str, Any], seen: dict[str, Any]) -> None:
    steps = [{"verb": "call", "save": "first"}, {"verb": "call", "expect": wanted}]
    row = {"name": "planted", "steps": steps}
    assert len(complaints(row, {"steps": [{"response": {"order": {"id": "a"}}}, seen]})) == 1


def test_a_runner_that_gives_up_or_leaves_out_a_step_fails() -> None:
    row = {"name": "planted", "steps": [{"verb": "call"}, {"verb": "call"}]}
    assert complaints(row, {"steps": [{}], "error": "step 2: no verb"}) == ["the runner gave up: step 2: no verb"]
    assert complaints(row, {"steps": [{}]}) == ["2 steps, but 1 were reported"]


def test_the_runner_is_not_told_what_is_expected() -> None:
    rows = scenarios(FACTS)
    assert [row["name"] for row in rows] == names()
    assert all(any(step.get("expect") for step in row["steps"]) for row in rows)
    assert all("expect" not in step for row in for_runner(rows) for step in row["steps"])


def test_every_key_is_of_one_run() -> None:
    for row in scenarios(FACTS):
        for step in row["steps"]:
            assert step["request"].get("client_order_id", "go-1").startswith("go-1"), row["name"]


def test_a_table_that_no_runner_could_play_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for step in ({"verb": "jump"}, {"verb": "call", "quantity": "1"}, {"verb": "call", "request": {"account_id": "{nobody}"}}):
        table = {"requests": {}, "scenarios": [{"name": "planted", "steps": [step]}]}
        monkeypatch.setattr("tests.clients.table._read", lambda table=table: table)
        with pytest.raises(TableError):
            scenarios(FACTS)
