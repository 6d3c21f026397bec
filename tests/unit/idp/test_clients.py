"""Clients: what a description may say, the file they are read from, their secrets at rest, and who is registered."""

import json
from pathlib import Path
from typing import Any

import pytest

from sandbox.idp.clients import CLAIMS_BYTES_MAX, Client, ClientError, describe, read_clients
from sandbox.idp.files import FileError, parse_object
from sandbox.idp.registry import Registry, RegistryFullError
from sandbox.idp.secret_hashes import check_hash, hash_secret, verify_secret
from sandbox.idp.tokens import ScopeError, narrow_roles

SECRET = "a secret of this test"
HASH = hash_secret(SECRET)
MEMBERS: dict[str, Any] = {"client_name": "Desk", "tenant": "acme", "roles": ["trader", "viewer"], "accounts": ["ACC-1"]}


def client(client_id: str = "desk", **changes: Any) -> Client:
    return describe({**MEMBERS, **changes}, client_id, secret_hash=HASH, registration_hash=HASH)


def write(path: Path, document: object, mode: int = 0o600) -> Path:
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    path.chmod(mode)
    return path


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"client_name": ""}, "client_name"),
        ({"client_name": "a\x07"}, "client_name"),
        ({"client_name": "a" * 129}, "client_name"),
        ({"tenant": None}, "tenant"),
        ({"tenant": "Acme"}, "tenant"),
        ({"roles": []}, "roles: at least one"),
        ({"roles": "trader"}, "roles: must be a list"),
        ({"roles": ["Trader"]}, "roles: every item"),
        ({"roles": ["trader", "trader"]}, "roles: an item comes twice"),
        ({"roles": [f"role-{number}" for number in range(17)]}, "at most 16"),
        ({"accounts": [1]}, "accounts: every item"),
        ({"accounts": ["acc-1"]}, "accounts: every item"),
        ({"accounts": [f"ACC-{number}" for number in range(257)]}, "at most 256"),
        ({"accounts": [f"{number:032}" for number in range(200)]}, f"more than {CLAIMS_BYTES_MAX} bytes"),
    ],
)
def test_a_description_out_of_bounds_names_its_member(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ClientError, match=message):
        client(**changes)


def test_a_client_shows_no_secret() -> None:
    assert "scrypt" not in repr(client())


def test_a_clients_file_takes_a_hash_or_a_secret_file(tmp_path: Path) -> None:
    write(tmp_path / "desk.secret", f"{SECRET}\n")
    entries = [{**MEMBERS, "client_id": "a", "secret_hash": HASH}, {**MEMBERS, "client_id": "b", "secret_file": "desk.secret"}]
    clients = read_clients(write(tmp_path / "clients.json", {"clients": entries}))
    assert sorted(clients) == ["a", "b"]
    assert all(verify_secret(SECRET, found.secret_hash) for found in clients.values())
    assert clients["a"].roles == ("trader", "viewer")


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ("{", "not JSON"),
        ("[]", "not a JSON object"),
        ('{"clients": [], "clients": []}', "a name comes twice"),
        ({"clients": {}}, "expected"),
        ({"clients": [1]}, "an object with a client_id"),
        ({"clients": [{**MEMBERS, "client_id": "a"}]}, "exactly one of secret_hash and secret_file"),
        ({"clients": [{**MEMBERS, "client_id": "a", "secret_hash": HASH, "secret_file": "b"}]}, "exactly one"),
        ({"clients": [{**MEMBERS, "client_id": "a", "secret_hash": "plain"}]}, "secret_hash: expected scrypt"),
        ({"clients": [{**MEMBERS, "client_id": "a", "secret_file": "missing"}]}, "missing"),
        ({"clients": [{**MEMBERS, "client_id": "a", "secret_hash": HASH, "password": "x"}]}, "password: not a member"),
        ({"clients": [{**MEMBERS, "client_id": "A", "secret_hash": HASH}]}, "client_id: must match"),
        ({"clients": [{**MEMBERS, "client_id": "a", "secret_hash": HASH}] * 2}, "listed twice"),
    ],
)
def test_a_wrong_clients_file_says_what_is_wrong(tmp_path: Path, document: object, message: str) -> None:
    with pytest.raises(FileError, match=message):
        read_clients(write(tmp_path / "clients.json", document))


@pytest.mark.parametrize("open_one", ["clients.json", "desk.secret"])
def test_a_file_that_others_may_read_is_refused(tmp_path: Path, open_one: str) -> None:
    write(tmp_path / "desk.secret", SECRET)
    path = write(tmp_path / "clients.json", {"clients": [{**MEMBERS, "client_id": "a", "secret_file": "desk.secret"}]})
    (tmp_path / open_one).chmod(0o604)
    with pytest.raises(FileError, match="chmod 600"):
        read_clients(path)


def test_a_secret_at_rest_is_only_recognised() -> None:
    assert SECRET not in HASH
    assert verify_secret(SECRET, HASH)
    assert not verify_secret(SECRET + " ", HASH)
    assert not verify_secret("", HASH)
    long = "x" * 256
    assert not verify_secret(f"{long}y", hash_secret(long))
    assert hash_secret(SECRET) != HASH


@pytest.mark.parametrize("secret", ["short", "x" * 257])
def test_a_secret_has_bounds(secret: str) -> None:
    with pytest.raises(ValueError, match="characters"):
        hash_secret(secret)


@pytest.mark.parametrize("cost", ["1$8$1", "3$8$1", "65536$8$1", "16384$0$1", "16384$8$5"])
def test_a_hash_that_would_cost_too_much_is_refused(cost: str) -> None:
    with pytest.raises(ValueError, match="out of bounds"):
        check_hash(f"scrypt${cost}${HASH.split('$', 4)[4]}")


def test_constants_that_are_not_json_are_refused() -> None:
    with pytest.raises(ValueError, match="NaN"):
        parse_object('{"a": NaN}')


def test_registered_clients_survive_a_restart_and_a_removal(tmp_path: Path) -> None:
    path = tmp_path / "clients.json"
    registry = Registry(path, {}, registered_max=2)
    registry.add(client("a"))
    registry.add(client("b"))
    with pytest.raises(RegistryFullError):
        registry.add(client("c"))
    registry.remove("a")
    assert path.stat().st_mode & 0o777 == 0o600
    again = Registry(path, {}, registered_max=2)
    assert again.find("a") is None
    assert again.find("b") == client("b")
    assert len(again) == 1


def test_a_static_client_stands_before_a_registered_one(tmp_path: Path) -> None:
    Registry(tmp_path / "clients.json", {}, registered_max=2).add(client("a"))
    registry = Registry(tmp_path / "clients.json", {"a": client("a", tenant="other")}, registered_max=2)
    found = registry.find("a")
    assert found is not None
    assert found.tenant == "other"


def test_a_registration_that_cannot_be_written_is_none(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "missing" / "clients.json", {}, registered_max=2)
    with pytest.raises(OSError, match="No such file"):
        registry.add(client("a"))
    assert registry.find("a") is None


@pytest.mark.parametrize("damage", ["", "{}", '{"clients": [{}]}', '{"clients": 1}'])
def test_a_damaged_register_is_refused(tmp_path: Path, damage: str) -> None:
    with pytest.raises(FileError, match="damaged"):
        Registry(write(tmp_path / "clients.json", damage), {}, registered_max=2)


def test_a_scope_narrows_roles_and_never_adds_one() -> None:
    assert narrow_roles(client(), None) == ("trader", "viewer")
    assert narrow_roles(client(), "viewer") == ("viewer",)
    assert narrow_roles(client(), "viewer trader") == ("trader", "viewer")
    for scope in ("admin", "viewer admin", "viewer  trader", " ", "viewer " * 200):
        with pytest.raises(ScopeError):
            narrow_roles(client(), scope)
