"""The parts of identity that the wire tests do not reach."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from kernel.errors import PermissionDeniedError, Reason, UnauthenticatedError
from kernel.identity import Authenticator, User, claims_header, xfcc

SECRET = "a-secret-of-this-test-run"
PEER = xfcc("edge", trust_domain="trademesh.local", namespace="trading")
USER = User("alice", "acme", frozenset({"trader"}), frozenset({"ACC-1"}), 2_000)


def authenticator(now: float = 1_000.0, secret: str = SECRET) -> Authenticator:
    return Authenticator(secret, trust_domain="trademesh.local", namespace="trading", now=lambda: now)


def test_claims_survive_their_header() -> None:
    identity = authenticator().authenticate(SECRET, PEER, claims_header(USER))
    assert identity.user == USER
    assert identity.log_fields == '"peer":"edge","principal":"alice","tenant":"acme"'


def test_a_log_field_cannot_be_forged() -> None:
    user = User('a","level":"error', "t\u2028", frozenset(), frozenset(), 2_000)
    with pytest.raises(UnauthenticatedError):
        authenticator().authenticate(SECRET, PEER, claims_header(user))
    user = User('a","level":"error', "acme", frozenset(), frozenset(), 2_000)
    assert r"a\",\"level\":\"error" in authenticator().authenticate(SECRET, PEER, claims_header(user)).log_fields


@pytest.mark.parametrize("now", [2_000.0, 2_000.5])
def test_a_token_ends_at_its_second(now: float) -> None:
    with pytest.raises(UnauthenticatedError) as caught:
        authenticator(now).authenticate(SECRET, PEER, claims_header(USER))
    assert caught.value.reason is Reason.TOKEN_EXPIRED


@pytest.mark.parametrize(("field", "length_max"), [("principal", 128), ("tenant", 64)])
def test_names_are_as_long_as_the_contract_of_a_user_allows(field: str, length_max: int) -> None:
    def named(length: int) -> User:
        changes: dict[str, Any] = {field: "x" * length}
        return dataclasses.replace(USER, **changes)

    longest = named(length_max)
    assert authenticator().authenticate(SECRET, PEER, claims_header(longest)).user == longest
    with pytest.raises(UnauthenticatedError) as caught:
        authenticator().authenticate(SECRET, PEER, claims_header(named(length_max + 1)))
    assert caught.value.reason is Reason.USER_UNAUTHENTICATED


@pytest.mark.parametrize(("secret", "peer", "claims"), [(b"bytes", PEER, ""), (SECRET, b"bytes", ""), ("é" * 20, PEER, "")])
def test_headers_of_another_type_are_refused(secret: object, peer: object, claims: object) -> None:
    with pytest.raises(UnauthenticatedError):
        authenticator().authenticate(secret, peer, claims)


def test_oversized_headers_are_refused_unparsed() -> None:
    with pytest.raises(UnauthenticatedError, match="bounded"):
        authenticator().authenticate(SECRET, PEER + ";Subject=" + "x" * 9_000, "")


def test_the_cache_is_bounded() -> None:
    checks = authenticator()
    for number in range(5_000):
        checks.authenticate(SECRET, f"{PEER};Hash={number}", "")
    assert len(checks._cache) <= 4_096


def test_a_short_secret_is_no_secret() -> None:
    with pytest.raises(ValueError, match="16"):
        authenticator(secret="short")


def test_foreign_and_unknown_accounts_are_refused_alike() -> None:
    USER.require_account("ACC-1")
    texts = set()
    for account in ("ACC-2", "NO-SUCH"):
        with pytest.raises(PermissionDeniedError) as caught:
            USER.require_account(account)
        assert caught.value.reason is Reason.ACCOUNT_NOT_ALLOWED
        texts.add(caught.value.message)
    assert len(texts) == 1
