import json
from pathlib import Path
from typing import Any

import pytest

from kernel.fix.message import Message
from sandbox.exchange.members import CredentialsError, parse_credentials, read_credentials

GOOD: dict[str, Any] = {"comp_id": "OMS", "username": "oms", "password": "correct horse"}


def test_good_file(tmp_path: Path) -> None:
    path = tmp_path / "credentials.json"
    path.write_text(json.dumps({"members": [GOOD | {"cancel_on_disconnect": True}]}))
    path.chmod(0o600)
    member = read_credentials(path)["OMS"]
    assert member.cancel_on_disconnect
    assert "correct horse" not in repr(member)


def test_a_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "credentials.json"
    path.write_text(json.dumps({"members": [GOOD]}))
    path.chmod(0o640)
    with pytest.raises(CredentialsError, match="0640"):
        read_credentials(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"password": "short"}, "at least 12"),
        ({"password": ""}, "password"),
        ({"password": None}, "password"),
        ({"username": 5}, "username"),
        ({"comp_id": "has space"}, "comp_id"),
        ({"cancel_on_disconnect": "yes"}, "cancel_on_disconnect"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_a_wrong_field_is_named_and_no_secret_shown(change: dict[str, Any], message: str) -> None:
    with pytest.raises(CredentialsError, match=message) as caught:
        parse_credentials(json.dumps({"members": [GOOD | change]}))
    assert "correct horse" not in str(caught.value)


@pytest.mark.parametrize("document", ["", "[]", "{}", '{"members": []}', '{"members": [1]}', '{"members": {}, "x": 1}'])
def test_other_documents_are_refused(document: str) -> None:
    with pytest.raises(CredentialsError):
        parse_credentials(document)


def test_a_member_is_listed_once() -> None:
    with pytest.raises(CredentialsError, match="twice"):
        parse_credentials(json.dumps({"members": [GOOD, GOOD]}))


@pytest.mark.parametrize(
    ("username", "password", "admitted"),
    [
        ("oms", "correct horse", True),
        ("oms", "correct horsf", False),
        ("Oms", "correct horse", False),
        (None, None, False),
        ("oms", "é", False),
    ],
)
def test_admission(username: str | None, password: str | None, admitted: bool) -> None:
    member = parse_credentials(json.dumps({"members": [GOOD]}))["OMS"]
    fields = [(35, "A")] + [(tag, text) for tag, text in ((553, username), (554, password)) if text is not None]
    assert member.admits(Message("FIX.4.4", fields)) is admitted
