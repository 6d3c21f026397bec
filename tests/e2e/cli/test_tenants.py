"""Two tenants on one mesh: the account of one is, to the other, an account that does not exist."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mesh.local.harness import LocalMesh
from mesh.local.seed_data import OTHER_ACCOUNTS, OTHER_TENANT, TENANT
from tests.e2e.cli.test_demo import trademesh

pytestmark = pytest.mark.e2e

FOREIGN, UNKNOWN = OTHER_ACCOUNTS[0].account_id, "NOBODY"
ORDER_ID = "9b2f8a54-5c9f-5e0b-9d3e-3a5f6a1f9c11"

TRADER = ("--accounts", "ACC-1", "--role", "trader", "--role", "viewer")

ASKS_RISK = ("order buy 1 AAPL --account {}", "risk {}")
ASKS_ABOUT_AN_ORDER = (
    f"get {ORDER_ID} --account {{}}",
    f"replace {ORDER_ID} --quantity 2 --account {{}}",
    f"cancel {ORDER_ID} --account {{}}",
)
ASKS_THE_ORDER_SERVICE = ("cancel-all --account {}", "orders --account {}", "executions --account {}")


def answer(mesh: LocalMesh, command: str, account: str, *options: str) -> tuple[int, Any]:
    """The exit code and the document, with the account's name taken out."""
    done = trademesh(mesh, *command.format(account).split(), *options, "--json")
    return done.returncode, json.loads(done.stdout.replace(account, "…"))


@pytest.fixture(scope="module")
def traded(mesh: LocalMesh) -> LocalMesh:
    """A mesh on which each tenant has traded for its own account: both services know both."""
    mesh.await_ready()
    for tenant, account in ((OTHER_TENANT, FOREIGN), (TENANT, "ACC-1")):
        order = trademesh(mesh, "order", "buy", "1", "MSFT", "--account", account, "--tenant", tenant, "--wait", "20", "--json")
        assert json.loads(order.stdout)["order"]["state"] == "ORDER_STATE_FILLED", order.stdout
    return mesh


@pytest.mark.parametrize("command", ASKS_RISK + ASKS_ABOUT_AN_ORDER + ASKS_THE_ORDER_SERVICE)
def test_a_foreign_account_is_refused_as_an_unknown_one_is(traded: LocalMesh, command: str) -> None:
    code, document = answer(traded, command, FOREIGN, *TRADER)
    assert (code, document["error"]["reason"]) == (4, "ACCOUNT_NOT_ALLOWED")
    assert answer(traded, command, UNKNOWN, *TRADER) == (code, document)


@pytest.mark.parametrize("command", ["limits set account {} max-notional 5", "kill activate account {} --comment no"])
def test_an_officer_s_rights_end_with_the_tenant(traded: LocalMesh, command: str) -> None:
    code, document = answer(traded, command, FOREIGN, "--role", "risk-officer")
    assert (code, document["error"]["reason"]) == (4, "ACCOUNT_NOT_ALLOWED")
    assert answer(traded, command, UNKNOWN, "--role", "risk-officer") == (code, document)


@pytest.mark.parametrize("command", ASKS_RISK)
def test_a_token_that_names_a_foreign_account_tells_no_more(traded: LocalMesh, command: str) -> None:
    """Without `TRADER` the token names the account and has every role."""
    code, document = answer(traded, command, FOREIGN)
    assert (code, document["error"]["reason"]) == (4, "ACCOUNT_NOT_ALLOWED")
    assert answer(traded, command, UNKNOWN) == (code, document)


@pytest.mark.parametrize("command", ASKS_THE_ORDER_SERVICE)
def test_a_token_that_names_a_foreign_account_shows_none_of_its_orders(traded: LocalMesh, command: str) -> None:
    """The order service knows accounts by their orders, so one that a token names and nobody has traded for is empty, not refused."""
    code, document = answer(traded, command, FOREIGN)
    assert (code, document["error"]["reason"]) == (4, "ACCOUNT_NOT_ALLOWED")


def test_each_tenant_lists_its_own(traded: LocalMesh) -> None:
    for tenant, own, foreign in ((OTHER_TENANT, FOREIGN, "ACC-1"), (TENANT, "ACC-1", FOREIGN)):
        listed = trademesh(traded, "accounts", "list", "--tenant", tenant, "--json")
        accounts = {item["account_id"] for item in json.loads(listed.stdout)["accounts"]}
        assert own in accounts
        assert foreign not in accounts
