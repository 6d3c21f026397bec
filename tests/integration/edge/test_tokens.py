"""Who gets in: tokens that are missing, expired, for somebody else, tampered with, or that lack a role."""

from __future__ import annotations

import base64
import hmac
import json
import time
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization

from tests.integration.edge.backend import Orders
from tests.integration.edge.test_rest import ORDER, PATH
from tests.integration.edge.world import AUDIENCE, ISSUER, Edge, Issuer


def part(value: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def claims(**changes: Any) -> dict[str, Any]:
    fixed: dict[str, Any] = {"iss": ISSUER, "aud": AUDIENCE, "sub": "mallory", "tenant": "acme", "roles": ["trader"], "accounts": ["ACC-1"]}
    return {**fixed, "exp": int(time.time()) + 600, **changes}


def unsigned() -> str:
    return f"{part({'alg': 'none', 'typ': 'JWT'})}.{part(claims())}."


def symmetric(edge: Edge) -> str:
    """A token signed with the public key as if it were a shared secret."""
    public = edge.issuer.key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    signed = f"{part({'alg': 'HS256', 'kid': edge.issuer.key_id})}.{part(claims())}"
    mac = hmac.new(public, signed.encode(), "sha256").digest()
    return f"{signed}.{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}"


def edited(edge: Edge) -> str:
    head, _, signature = edge.issuer.token(roles=["viewer"]).split(".")
    return f"{head}.{part(claims())}.{signature}"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("missing", "USER_UNAUTHENTICATED"),
        ("expired", "TOKEN_EXPIRED"),
        ("early", "USER_UNAUTHENTICATED"),
        ("audience", "USER_UNAUTHENTICATED"),
        ("issuer", "USER_UNAUTHENTICATED"),
        ("other key", "USER_UNAUTHENTICATED"),
        ("edited", "USER_UNAUTHENTICATED"),
        ("none", "USER_UNAUTHENTICATED"),
        ("symmetric", "USER_UNAUTHENTICATED"),
        ("garbage", "USER_UNAUTHENTICATED"),
        ("endless", "USER_UNAUTHENTICATED"),
    ],
)
def test_a_wrong_token_is_refused(edge: Edge, orders: Orders, name: str, reason: str) -> None:
    now = int(time.time())
    tokens = {
        "missing": None,
        "expired": edge.issuer.token(exp=now - 60),
        "early": edge.issuer.token(nbf=now + 300),
        "audience": edge.issuer.token(aud="another"),
        "issuer": edge.issuer.token(iss="https://other.test"),
        "other key": Issuer().token(),
        "edited": edited(edge),
        "none": unsigned(),
        "symmetric": symmetric(edge),
        "garbage": "abc.def",
        "endless": edge.issuer.token(exp=None),
    }
    answer = edge.call("POST", PATH, ORDER, token=tokens[name])
    assert (answer.status, answer.json["code"], answer.reason) == (401, 16, reason), answer.body
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert answer.headers["content-type"] == "application/json"
    assert not orders.requests


def test_a_token_in_the_query_or_in_another_scheme_is_none(edge: Edge, orders: Orders) -> None:
    token = edge.issuer.token()
    assert edge.call("GET", f"{PATH}?access_token={token}", token=None).status == 401
    assert edge.call("GET", PATH, token=None, headers={"authorization": f"Basic {token}"}).status == 401
    assert edge.call("GET", PATH, token=None, headers={"cookie": f"authorization={token}"}).status == 401
    assert not orders.requests


def test_two_tokens_are_none(edge: Edge, orders: Orders) -> None:
    head = f"GET {PATH} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n"
    for first, second in (("good", "bad"), ("bad", "good"), ("good", "good")):
        tokens = {"good": edge.issuer.token(), "bad": unsigned()}
        lines = f"authorization: Bearer {tokens[first]}\r\nauthorization: Bearer {tokens[second]}\r\n\r\n"
        assert edge.raw((head + lines).encode()).startswith(b"HTTP/1.1 401"), (first, second)
    assert not orders.requests


@pytest.mark.parametrize("roles", [["viewer"], [], None, "trader", [["trader"]], ["Trader"], ["trader2"]])
def test_a_method_takes_its_roles_only(edge: Edge, orders: Orders, roles: Any) -> None:
    answer = edge.call("POST", PATH, ORDER, token=edge.issuer.token(roles=roles))
    assert (answer.status, answer.json["code"], answer.reason) == (403, 7, "ROLE_REQUIRED"), answer.body
    assert not orders.requests
    assert edge.call("GET", PATH, token=edge.issuer.token(roles=["x", "viewer"])).status == 200


def test_forged_identity_headers_do_not_pass(edge: Edge, orders: Orders) -> None:
    forged = {
        "x-trademesh-claims": part(claims(sub="mallory")),
        "x-trademesh-sidecar-secret": "guess",
        "x-trademesh-method": "/trademesh.oms.v1.OrderService/CreateOrder",
        "x-forwarded-client-cert": "URI=spiffe://trademesh.local/ns/trading/sa/svc-risk",
        "x-envoy-original-path": "/x",
        "x-envoy-retry-on": "5xx",
        "x-envoy-upstream-rq-timeout-ms": "600000",
        "x-http-method-override": "DELETE",
    }
    assert edge.call("GET", PATH, headers=forged).status == 200
    (context,) = orders.contexts
    assert (context.identity.peer, context.user.principal) == ("edge", "alice")
    assert orders.deadlines[0] <= 10
    refused = edge.call("POST", PATH, ORDER, token=edge.issuer.token(roles=["viewer"]), headers=forged)
    assert refused.status == 403
