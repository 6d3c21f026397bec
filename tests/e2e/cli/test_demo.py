"""`trademesh demo` and its commands against a real mesh."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from mesh.local.harness import LocalMesh
from mesh.local.layout import DIRECTORY_KEY

pytestmark = pytest.mark.e2e


def trademesh(mesh: LocalMesh, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, DIRECTORY_KEY: str(mesh.layout.root)}
    command = [sys.executable, "-m", "cli.main", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=180)


def test_every_step_of_the_demo_holds_twice(mesh: LocalMesh) -> None:
    mesh.await_ready()
    for arguments in ((), ("--account", "DEMO-SECOND")):
        done = trademesh(mesh, "demo", *arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        tally = json.loads(done.stdout.splitlines()[-1])
        assert tally["orders_accepted"] == 9
        assert tally["orders_rejected_by_risk"] == 3
        assert tally["fills"] >= 7
        assert tally["replays_identical"] is True
        assert tally["exposures_match_orders"] is True
        assert tally["position_matches_fills"] is True
        assert tally["ledger_balanced"] is True
        assert tally["fills"] == tally["settled_trades"] == tally["report_rows"]
        assert tally["stream_gaps"] == 0
        assert "✗" not in done.stdout


def test_commands_answer_with_one_document(mesh: LocalMesh) -> None:
    mesh.await_ready()
    order = trademesh(mesh, "order", "buy", "1", "MSFT", "--account", "ACC-2", "--wait", "20", "--json")
    assert order.returncode == 0, order.stdout + order.stderr
    assert json.loads(order.stdout)["order"]["state"] == "ORDER_STATE_FILLED"
    own = ("--account", "ACC-2")
    for words in (
        *(("orders", *own), ("risk", "ACC-2"), ("limits", "list"), ("accounts", "list"), ("status",), ("token", *own)),
        *(("book", "MSFT"), ("quotes", "AAPL", "MSFT"), ("trades", "AAPL"), ("positions", *own), ("lots", *own)),
        *(("balances", *own), ("settlements", *own), ("deposit", "cash", "5", "USD", *own), ("business-date", "show")),
        *(("report", "create", "audit-trail", *own), ("report", "list", *own)),
    ):
        answered = trademesh(mesh, *words, "--json")
        assert answered.returncode == 0, answered.stdout + answered.stderr
        assert json.loads(answered.stdout)


@pytest.mark.parametrize(
    ("words", "code", "reason"),
    [
        (("order", "buy", "1", "AAPL", "--account", "NOBODY"), 4, "ACCOUNT_NOT_ALLOWED"),
        (("order", "buy", "1", "AAPL", "--account", "ACC-1", "--tenant", "other"), 4, "ACCOUNT_NOT_ALLOWED"),
        (("order", "buy", "1", "AAPL", "--account", "ACC-1", "--role", "viewer"), 4, "ROLE_REQUIRED"),
        (("order", "buy", "1.5", "AAPL", "--account", "ACC-1"), 2, "QUANTITY_OFF_LOT"),
        (("order", "buy", "1", "AAPL", "--limit", "232.123", "--account", "ACC-1"), 2, "PRICE_OFF_TICK"),
        (("cancel", "9b2f8a54-5c9f-5e0b-9d3e-3a5f6a1f9c11", "--account", "ACC-1"), 5, "ORDER_NOT_FOUND"),
        (("limits", "set", "account", "ACC-1", "max-notional", "5", "--role", "trader"), 4, "ROLE_REQUIRED"),
    ],
)
def test_refusals_of_services_are_typed(mesh: LocalMesh, words: tuple[str, ...], code: int, reason: str) -> None:
    done = trademesh(mesh, *words, "--json")
    error = json.loads(done.stdout)["error"]
    assert (done.returncode, error["reason"]) == (code, reason)
    assert error["next"]
