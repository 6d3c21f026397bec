"""The command line's tokens, from the real issuer."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import jwt
import pytest
import pytest_asyncio

from cli.tokens import AccessToken, ClientCredentials, Issuer, RefusedClientError, TokenSource
from kernel.errors import PermissionDeniedError, UnauthenticatedError, UnavailableError
from tests.wire.idp.issuer import OPERATOR, SECRET, IssuerProcess

METADATA = {"client_name": "ada", "tenant": "demo", "roles": ["trader", "viewer"], "accounts": ["ACC-1"]}


def free_port() -> int:
    """Return a TCP port that nobody has now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@pytest_asyncio.fixture
async def url(tmp_path: Path) -> AsyncIterator[str]:
    """Return the URL of a running issuer that is named by where it listens."""
    port = free_port()
    name = f"http://127.0.0.1:{port}"
    async with IssuerProcess(tmp_path, port=str(port), issuer=name):
        yield name


async def test_a_registered_client_gets_tokens_that_say_who_it_is(url: str) -> None:
    issuer = Issuer(url)
    client = await asyncio.to_thread(issuer.register, OPERATOR, METADATA)
    token = await asyncio.to_thread(issuer.token, client)
    claims = jwt.decode(token.text, options={"verify_signature": False})
    assert (claims["iss"], claims["sub"], claims["tenant"], claims["accounts"]) == (url, client.client_id, "demo", ["ACC-1"])
    assert client.client_id.startswith("ada-")
    assert token.lifetime_seconds == claims["exp"] - claims["iat"]
    assert client.client_secret not in repr(client)
    assert token.text not in repr(token)


async def test_scope_narrows_the_roles(url: str) -> None:
    token = await asyncio.to_thread(Issuer(url).token, ClientCredentials("desk", SECRET), "viewer")
    assert jwt.decode(token.text, options={"verify_signature": False})["roles"] == ["viewer"]


async def test_refusals_say_what_can_be_done_about_them(url: str) -> None:
    issuer = Issuer(url)
    with pytest.raises(RefusedClientError, match="unknown or its secret is wrong"):
        await asyncio.to_thread(issuer.token, ClientCredentials("desk", "another secret of this test"))
    with pytest.raises(PermissionDeniedError, match="scope must be some of the client's roles"):
        await asyncio.to_thread(issuer.token, ClientCredentials("desk", SECRET), "admin")
    with pytest.raises(UnauthenticatedError, match="not the right one"):
        await asyncio.to_thread(issuer.register, "not-the-operators-token", METADATA)
    with pytest.raises(PermissionDeniedError, match="roles"):
        await asyncio.to_thread(issuer.register, OPERATOR, {**METADATA, "roles": []})


async def test_an_issuer_that_is_away_or_another_one_gives_no_token(url: str) -> None:
    with pytest.raises(UnavailableError, match="cannot be reached"):
        await asyncio.to_thread(Issuer(f"http://127.0.0.1:{free_port()}").token, ClientCredentials("desk", SECRET))
    # It answers, but it is not the issuer whose name was given (OpenID Connect Discovery 1.0 §4.3).
    with pytest.raises(UnavailableError, match="another name"):
        await asyncio.to_thread(Issuer(url.replace("127.0.0.1", "localhost")).token, ClientCredentials("desk", SECRET))


def test_a_source_asks_again_only_when_a_token_is_old_or_refused() -> None:
    asked: list[bool] = []

    def fetch(renewed: bool) -> AccessToken:
        asked.append(renewed)
        return AccessToken(f"token {len(asked)}", 0.0 if len(asked) == 1 else float("inf"), 60)

    source = TokenSource(fetch)
    assert [source.token().text for _ in range(3)] == ["token 1", "token 2", "token 2"]
    source.renew()
    assert source.token().text == "token 3"
    assert asked == [False, False, True]
