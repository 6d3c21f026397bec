"""`python -m sandbox.idp` over HTTP: discovery, tokens by each method, every refusal, rotation, registration, restart."""

import asyncio
import base64
import json
import signal
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import jwt
import pytest

from kernel.identity import SECRET_HEADER, Authenticator, xfcc
from tests.wire.idp.issuer import DEADLINE_SECONDS, OPERATOR, SECRET, IssuerProcess, basic

METADATA: dict[str, Any] = {"client_name": "Partner", "tenant": "globex", "roles": ["viewer"], "accounts": ["ACC-9"]}
GRANT = {"grant_type": "client_credentials"}
BEARER = {"Authorization": f"Bearer {OPERATOR}"}
DESK = basic("desk", SECRET)


@pytest.fixture
async def issuer(tmp_path: Path) -> AsyncIterator[IssuerProcess]:
    process = IssuerProcess(tmp_path)
    await process.start()
    yield process
    assert await process.stop() == 0
    assert not (tmp_path / "ready").exists()


async def register(issuer: IssuerProcess, **changes: Any) -> dict[str, Any]:
    status, body, _ = await issuer.call("POST", "/register", json={**METADATA, **changes}, headers=BEARER)
    assert status == 201, body
    return body


async def test_discovery_names_the_endpoints(issuer: IssuerProcess) -> None:
    status, document, _ = await issuer.call("GET", "/.well-known/openid-configuration")
    assert status == 200
    assert document["issuer"] == issuer.url
    assert document["jwks_uri"] == f"{issuer.url}/jwks"
    assert document["token_endpoint"] == f"{issuer.url}/token"
    assert document["registration_endpoint"] == f"{issuer.url}/register"
    assert document["grant_types_supported"] == ["client_credentials"]
    assert (await issuer.call("GET", "/.well-known/oauth-authorization-server"))[1] == document
    assert (await issuer.call("GET", "/healthz"))[1] == {"status": "serving", "clients": 1}


async def test_a_token_says_who_and_what(issuer: IssuerProcess) -> None:
    status, answer = await issuer.token()
    assert status == 200
    assert {**answer, "access_token": ""} == {"access_token": "", "token_type": "Bearer", "expires_in": 300, "scope": "trader viewer"}
    claims = await issuer.verify(answer["access_token"])
    assert abs(claims["iat"] - time.time()) < DEADLINE_SECONDS
    assert claims["exp"] - claims["iat"] == 300
    assert claims["nbf"] == claims["iat"]
    assert {name: claims[name] for name in ("sub", "client_id", "tenant", "roles", "accounts")} == {
        "sub": "desk",
        "client_id": "desk",
        "tenant": "acme",
        "roles": ["trader", "viewer"],
        "accounts": ["ACC-1", "ACC-2"],
    }
    assert jwt.get_unverified_header(answer["access_token"])["typ"] == "at+jwt"
    second = await issuer.verify((await issuer.token())[1]["access_token"])
    assert second["jti"] != claims["jti"]


async def test_services_understand_the_claims(issuer: IssuerProcess) -> None:
    payload = (await issuer.token(scope="trader"))[1]["access_token"].split(".")[1]
    secret = f"{SECRET_HEADER} of this test"
    authenticator = Authenticator(secret, trust_domain="trademesh.local", namespace="trading", now=time.time)
    user = authenticator.authenticate(secret, xfcc("edge", trust_domain="trademesh.local", namespace="trading"), payload).user
    assert user is not None
    assert (user.principal, user.tenant, user.roles, user.accounts) == (
        "desk", "acme", frozenset({"trader"}), frozenset({"ACC-1", "ACC-2"}),
    )  # fmt: skip


async def test_the_largest_client_still_fits_the_sidecars_header(issuer: IssuerProcess) -> None:
    accounts = [f"{number:032}" for number in range(140)]
    body = await register(issuer, accounts=accounts)
    status, answer = await issuer.token(body["client_id"], body["client_secret"])
    assert status == 200
    assert len(answer["access_token"].split(".")[1]) <= 8_192


async def test_a_client_may_authenticate_in_the_body(issuer: IssuerProcess) -> None:
    form = {**GRANT, "client_id": "desk", "client_secret": SECRET, "scope": "viewer"}
    status, answer, headers = await issuer.call("POST", "/token", data=form)
    assert status == 200
    assert answer["scope"] == "viewer"
    assert (await issuer.verify(answer["access_token"]))["roles"] == ["viewer"]
    assert headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize(
    ("options", "status", "error"),
    [
        ({"data": GRANT}, 401, "invalid_client"),
        ({"data": GRANT, "headers": basic("desk", "wrong")}, 401, "invalid_client"),
        ({"data": GRANT, "headers": basic("nobody", SECRET)}, 401, "invalid_client"),
        ({"data": GRANT, "headers": {"Authorization": "Bearer abc"}}, 401, "invalid_client"),
        ({"data": {**GRANT, "client_id": "desk"}}, 401, "invalid_client"),
        ({"data": {**GRANT, "client_id": "desk", "client_secret": SECRET}, "headers": DESK}, 400, "invalid_request"),
        ({"data": {"scope": "viewer"}, "headers": DESK}, 400, "invalid_request"),
        ({"data": {"grant_type": "password"}, "headers": DESK}, 400, "unsupported_grant_type"),
        ({"data": {**GRANT, "scope": "admin"}, "headers": DESK}, 400, "invalid_scope"),
        ({"data": [*GRANT.items(), *GRANT.items()], "headers": DESK}, 400, "invalid_request"),
        ({"json": GRANT, "headers": DESK}, 400, "invalid_request"),
        ({"data": GRANT, "params": {"client_secret": SECRET}, "headers": DESK}, 400, "invalid_request"),
        ({"data": {**GRANT, "padding": "x" * 40_000}, "headers": DESK}, 413, "invalid_request"),
    ],
)  # fmt: skip
async def test_every_refusal_of_a_token_has_its_code(issuer: IssuerProcess, options: dict[str, Any], status: int, error: str) -> None:
    answered, body, headers = await issuer.call("POST", "/token", **options)
    assert (answered, body["error"]) == (status, error)
    assert set(body) == {"error", "error_description"}
    assert SECRET not in body["error_description"]
    assert headers["Cache-Control"] == "no-store"
    assert ("WWW-Authenticate" in headers) == (status == 401)


async def test_unknown_paths_and_methods_are_answered_in_json(issuer: IssuerProcess) -> None:
    assert (await issuer.call("GET", "/authorize"))[0:2] == (404, {"error": "not_found", "error_description": "Not Found"})
    status, body, headers = await issuer.call("GET", "/token")
    assert (status, body["error"], headers["Allow"]) == (405, "method_not_allowed", "POST")


async def test_a_forged_token_is_not_verified(issuer: IssuerProcess) -> None:
    token: str = (await issuer.token())[1]["access_token"]
    header, payload, signature = token.split(".")
    claims = json.loads(base64.urlsafe_b64decode(payload + "=="))
    forged = base64.urlsafe_b64encode(json.dumps({**claims, "roles": ["admin"]}).encode()).rstrip(b"=").decode()
    with pytest.raises(jwt.InvalidSignatureError):
        await issuer.verify(f"{header}.{forged}.{signature}")
    unsigned = jwt.encode(claims, "", algorithm="none", headers={"kid": jwt.get_unverified_header(token)["kid"]})
    with pytest.raises(jwt.InvalidAlgorithmError):
        await issuer.verify(unsigned)
    with pytest.raises(jwt.InvalidAudienceError):
        await issuer.verify(token, audience="elsewhere")
    with pytest.raises(jwt.InvalidIssuerError):
        await issuer.verify(token, issuer="https://elsewhere.test")


async def test_a_token_ends(tmp_path: Path) -> None:
    async with IssuerProcess(tmp_path, token_seconds="5") as issuer:
        token = (await issuer.token())[1]["access_token"]
        await issuer.verify(token)
        with pytest.raises(jwt.ExpiredSignatureError):
            # A verifier whose clock is past the end, instead of a test that waits for it.
            await issuer.verify(token, leeway=-6, options={"verify_iat": False, "verify_nbf": False})


async def test_rotation_publishes_the_next_key_before_it_signs(issuer: IssuerProcess) -> None:
    first = jwt.get_unverified_header((await issuer.token())[1]["access_token"])["kid"]
    assert (await issuer.call("POST", "/admin/rotate"))[0] == 401
    status, answer, _ = await issuer.call("POST", "/admin/rotate", headers=BEARER)
    assert status == 200
    assert answer["signs_from"] > time.time() + 600
    _, document, headers = await issuer.call("GET", "/jwks")
    assert [key["kid"] for key in document["keys"]] == [first, answer["kid"]]
    assert all("d" not in key for key in document["keys"])
    assert headers["Cache-Control"] == "public, max-age=300"
    assert jwt.get_unverified_header((await issuer.token())[1]["access_token"])["kid"] == first


async def test_the_next_key_takes_over_and_old_tokens_stay_good(tmp_path: Path) -> None:
    async with IssuerProcess(tmp_path, token_seconds="5", key_lead_seconds="5", key_seconds="10", requests_per_minute="10000") as issuer:
        old = (await issuer.token())[1]["access_token"]
        assert issuer.process is not None
        issuer.process.send_signal(signal.SIGHUP)
        kid = jwt.get_unverified_header(old)["kid"]
        async with asyncio.timeout(DEADLINE_SECONDS):
            while jwt.get_unverified_header((await issuer.token())[1]["access_token"])["kid"] == kid:
                await asyncio.sleep(0.05)
        await issuer.verify(old, options={"verify_exp": False})


async def test_keys_and_clients_survive_kill_9(tmp_path: Path) -> None:
    async with IssuerProcess(tmp_path) as issuer:
        registered = await register(issuer)
        token = (await issuer.token())[1]["access_token"]
        keys = (await issuer.call("GET", "/jwks"))[1]
        await issuer.stop(kill=True)
        await issuer.start()
        assert (await issuer.call("GET", "/jwks"))[1] == keys
        assert (await issuer.verify(token))["sub"] == "desk"
        status, answer = await issuer.token(registered["client_id"], registered["client_secret"])
        assert status == 200
        assert (await issuer.verify(answer["access_token"]))["tenant"] == "globex"
        for path in issuer.data.iterdir():
            assert path.name == "lock" or path.stat().st_mode & 0o777 == 0o600
            assert registered["client_secret"] not in path.read_text()


async def test_a_client_registers_and_leaves(issuer: IssuerProcess) -> None:
    registered = await register(issuer, token_endpoint_auth_method="client_secret_post", logo_uri="ignored, as RFC 7591 asks")
    assert registered["client_secret_expires_at"] == 0
    assert registered["token_endpoint_auth_method"] == "client_secret_post"
    path = f"/register/{registered['client_id']}"
    assert registered["registration_client_uri"] == f"{issuer.url}{path}"
    wrong = {"Authorization": "Bearer somebody.elses"}
    assert (await issuer.call("DELETE", path, headers=wrong))[0] == 401
    assert (await issuer.call("DELETE", path))[0] == 401
    assert (await issuer.call("DELETE", "/register/desk", headers=BEARER))[0] == 401
    own = {"Authorization": f"Bearer {registered['registration_access_token']}"}
    assert (await issuer.call("DELETE", path, headers=own))[0] == 204
    assert (await issuer.token(registered["client_id"], registered["client_secret"]))[0] == 401
    assert (await issuer.call("DELETE", path, headers=own))[0] == 401


@pytest.mark.parametrize(
    ("options", "status", "error"),
    [
        ({"json": METADATA}, 401, "invalid_token"),
        ({"json": METADATA, "headers": {"Authorization": "Bearer wrong"}}, 401, "invalid_token"),
        ({"data": "{}", "headers": BEARER}, 400, "invalid_client_metadata"),
        ({"json": [], "headers": BEARER}, 400, "invalid_client_metadata"),
        ({"json": {**METADATA, "tenant": "No"}, "headers": BEARER}, 400, "invalid_client_metadata"),
        ({"json": {**METADATA, "grant_types": ["password"]}, "headers": BEARER}, 400, "invalid_client_metadata"),
        ({"json": {**METADATA, "token_endpoint_auth_method": "none"}, "headers": BEARER}, 400, "invalid_client_metadata"),
        ({"data": '{"a": 1, "a": 2}', "headers": {**BEARER, "Content-Type": "application/json"}}, 400, "invalid_client_metadata"),
    ],
)  # fmt: skip
async def test_every_refusal_of_a_registration_has_its_code(
    issuer: IssuerProcess, options: dict[str, Any], status: int, error: str
) -> None:
    answered, body, _ = await issuer.call("POST", "/register", **options)
    assert (answered, body["error"]) == (status, error)


async def test_clients_are_capped_each_for_itself_and_in_number(tmp_path: Path) -> None:
    async with IssuerProcess(tmp_path, requests_per_minute="3", registered_clients_max="1") as issuer:
        registered = await register(issuer)
        status, body, _ = await issuer.call("POST", "/register", json=METADATA, headers=BEARER)
        assert (status, body["error"]) == (503, "temporarily_unavailable")
        assert [(await issuer.token())[0] for _ in range(3)] == [200] * 3
        status, body, headers = await issuer.call("POST", "/token", data=GRANT, headers=DESK)
        assert (status, body["error"]) == (429, "temporarily_unavailable")
        assert 1 <= int(headers["Retry-After"]) <= 20
        assert (await issuer.token(registered["client_id"], registered["client_secret"]))[0] == 200


async def test_without_an_operators_token_nobody_registers(tmp_path: Path) -> None:
    process = IssuerProcess(tmp_path)
    del process.environment["TRADEMESH_IDP_REGISTRATION_TOKEN"]
    async with process as issuer:
        assert "registration_endpoint" not in (await issuer.call("GET", "/.well-known/openid-configuration"))[1]
        assert (await issuer.call("POST", "/register", json=METADATA, headers=BEARER))[0] == 404
        assert (await issuer.call("POST", "/admin/rotate", headers=BEARER))[0] == 404


async def test_a_wrong_configuration_ends_with_its_keys_named(tmp_path: Path) -> None:
    issuer = IssuerProcess(tmp_path, issuer="not a url", token_seconds="0")
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "sandbox.idp", env=issuer.environment, stderr=asyncio.subprocess.PIPE
    )
    _, error = await asyncio.wait_for(process.communicate(), DEADLINE_SECONDS)
    assert process.returncode == 2
    assert b"TRADEMESH_IDP_ISSUER" in error
    assert b"TRADEMESH_IDP_TOKEN_SECONDS" in error
