"""Tokens and the issuer's keys: clocks that differ, an issuer that is away, and keys that follow each other."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import jwt
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from cli import rpcs
from mesh.local.options import Options
from mesh.local.outside import door
from mesh.local.parts import ISSUER
from mesh.local.sidecar import CONTROL
from mesh.local.topology import sidecar_name
from tests.chaos.fault import Fault
from tests.chaos.faults.certificates import authority, nothing_done, svid
from tests.chaos.faults.kills import NO_CALL
from tests.chaos.impostor import Impostor
from tests.chaos.manifests import control_log
from tests.chaos.pulse import QUOTES
from tests.chaos.scene import Scene
from tests.chaos.sidecars import log_since
from tests.chaos.stage import PLAIN, Stage
from tests.e2e.crash.load import ACCOUNTS
from tests.e2e.crash.world import TRADER
from trademesh.portfolio.v1 import portfolio_service_pb2

TOKEN_SECONDS = 10
SHORT_LIVED = Stage("short-lived tokens and keys", Options(ephemeral_ports=True, own_manifests=True, token_seconds=TOKEN_SECONDS))
AUDIENCE = "trademesh"
LEEWAY_SECONDS = 60
"""By how much clocks may differ, Envoy's own default; a token may be read for so long after its end."""
SKEW_SECONDS = 300
KEYS_SECONDS = 10.0
"""How often the control process fetches the issuer's keys."""
KEPT_SECONDS = TOKEN_SECONDS + LEEWAY_SECONDS
"""How long a key is published after it signed last."""
SIGNS_SECONDS_MAX = 60.0
CALL_SECONDS = 5.0
LOOK_SECONDS = 0.25

EDGE_DOOR, SIDECAR_DOOR = "the edge", "a sidecar"
UNAUTHENTICATED = grpc.StatusCode.UNAUTHENTICATED.value[0]
KEYS_STAY = "the last known keys of the issuer stay in force"
"""What the control process writes when it cannot have them."""


@dataclass(frozen=True, slots=True)
class Key:
    """A signing key of the issuer as it keeps it."""

    kid: str
    signs_from: int
    private: Any


def keys(scene: Scene) -> list[Key]:
    """Return the issuer's keys, in the order in which they sign."""
    document = json.loads((scene.world.mesh.layout.data(ISSUER) / "keys.json").read_text())
    return [Key(entry["kid"], entry["signs_from"], load_pem_private_key(entry["private_key"].encode(), None)) for entry in document["keys"]]


def token(scene: Scene, key: Key, *, begins: int = 0, ends: int = SKEW_SECONDS) -> str:
    """Return a trader's token as the issuer makes it, with its times in seconds from now."""
    now = int(time.time())
    claims = {
        "iss": door(scene.world.mesh.layout).issuer,
        "sub": TRADER.principal,
        "aud": AUDIENCE,
        "client_id": TRADER.principal,
        "iat": now + begins,
        "nbf": now + begins,
        "exp": now + ends,
        "jti": str(uuid.uuid4()),
        "tenant": TRADER.tenant,
        "roles": list(TRADER.roles),
        "accounts": list(ACCOUNTS),
    }
    return jwt.encode(claims, key.private, algorithm="ES256", headers={"kid": key.kid, "typ": "at+jwt"})


async def taken_by(scene: Scene, text: str) -> dict[str, bool]:
    """Return who takes a token: the edge, and a sidecar of svc-portfolio when it is called as by the edge."""
    method: Any = scene.pulse.calls.channel.unary_unary(
        rpcs.GET_PORTFOLIO.path, rpcs.GET_PORTFOLIO.request_type.SerializeToString, rpcs.GET_PORTFOLIO.response_type.FromString
    )
    request = portfolio_service_pb2.GetPortfolioRequest(account_id=ACCOUNTS[0])
    try:
        await method(request, timeout=CALL_SECONDS, metadata=(("authorization", f"Bearer {text}"),))
        outside = True
    except grpc.aio.AioRpcError as error:
        if error.code() not in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED):
            raise
        outside = False
    address = scene.world.mesh.instance(sidecar_name(scene.replicas("svc_portfolio")[0])).address
    impostor = Impostor(address, authority(scene).root_pem)
    answer = await impostor.call(svid(scene, "edge"), rpcs.GET_PORTFOLIO.path, {"authorization": f"Bearer {text}"})
    return {EDGE_DOOR: outside, SIDECAR_DOOR: answer.grpc_status != str(UNAUTHENTICATED)}


TIMES: Mapping[str, tuple[int, int]] = {
    "expired": (-2 * SKEW_SECONDS, -SKEW_SECONDS),
    "not yet valid": (SKEW_SECONDS, 2 * SKEW_SECONDS),
    "expired just beyond the leeway": (-SKEW_SECONDS, -LEEWAY_SECONDS - 15),
    "not yet valid just beyond the leeway": (LEEWAY_SECONDS + 15, SKEW_SECONDS),
}


async def times_count(scene: Scene, target: str) -> list[str]:
    """A token counts in its time, give or take the leeway, at the edge and at the sidecars alike."""
    findings, key = [], [key for key in keys(scene) if key.signs_from <= time.time()][-1]
    for who, taken in (await taken_by(scene, token(scene, key))).items():
        if not taken:
            findings.append(f"{who} refuses a token in its time, so that nothing is proven")
    for what, (begins, ends) in TIMES.items():
        for who, taken in (await taken_by(scene, token(scene, key, begins=begins, ends=ends))).items():
            if taken:
                findings.append(f"{who} takes a token that is {what}: from {begins} s to {ends} s from now")
    return findings


@asynccontextmanager
async def issuer_away(scene: Scene, target: str) -> AsyncIterator[None]:
    """Stop the issuer, and let the control process start anew without it."""
    processes = scene.stop(ISSUER)
    try:
        yield
    finally:
        scene.resume(processes)


async def kept_keys_count(scene: Scene, target: str) -> list[str]:
    """After a restart of the control process the last good keys are in force, though nobody can be asked for them."""
    log = control_log(scene)
    offset, deadline = log.stat().st_size, time.monotonic() + 2 * KEYS_SECONDS + CALL_SECONDS
    scene.kill(CONTROL)
    while KEYS_STAY not in log_since(log, offset):
        if time.monotonic() > deadline:
            return ["the control process does not say that the issuer is away"]
        await asyncio.sleep(LOOK_SECONDS)
    await scene.returned()
    key = [key for key in keys(scene) if key.signs_from <= time.time()][-1]
    began = time.monotonic()
    refusals = [f"{who} refuses a token" for who, taken in (await taken_by(scene, token(scene, key))).items() if not taken]
    while not scene.pulse.since(QUOTES, began):
        if time.monotonic() > began + CALL_SECONDS:
            return [*refusals, "no call was tried"]
        await asyncio.sleep(LOOK_SECONDS)
    return refusals


async def keys_follow(scene: Scene, target: str) -> list[str]:
    """Tokens of a key count from when it signs until it is gone, a while after it signed last."""
    old = [key for key in keys(scene) if key.signs_from <= time.time()][-1]
    text = token(scene, old, ends=3_600)
    findings = await _all(scene, text, "a token of the key that signs", taken=True)
    deadline = time.monotonic() + SIGNS_SECONDS_MAX
    while (new := [key for key in keys(scene) if key.signs_from <= time.time()][-1]).kid == old.kid:
        if time.monotonic() > deadline:
            return [*findings, f"no other key signs after {SIGNS_SECONDS_MAX:g} s"]
        # What makes the issuer look at its schedule is that somebody asks; the control process does.
        await asyncio.sleep(LOOK_SECONDS)
    scene.note("the next key signs")
    findings += await _all(scene, token(scene, new), "a token of the new key", taken=True)
    findings += await _all(scene, text, "a token of the key that signed before", taken=True)
    while old.kid in {key.kid for key in keys(scene)}:
        if time.time() > new.signs_from + KEPT_SECONDS + 2 * KEYS_SECONDS:
            return [*findings, "the old key is never gone"]
        await asyncio.sleep(LOOK_SECONDS)
    gone = time.monotonic()
    scene.note("the old key is gone")
    while any((await taken_by(scene, text)).values()):
        if time.monotonic() > gone + 2 * KEYS_SECONDS:
            return [*findings, f"a token of a key that is gone counts {2 * KEYS_SECONDS:g} s later"]
        await asyncio.sleep(LOOK_SECONDS)
    scene.note(f"its tokens count no more after {time.monotonic() - gone:.1f} s")
    return findings


async def _all(scene: Scene, text: str, what: str, *, taken: bool) -> list[str]:
    found = await taken_by(scene, text)
    return [f"{who} {'refuses' if taken else 'takes'} {what}" for who, takes in found.items() if takes is not taken]


FAULTS = (
    Fault(
        name="token-skew",
        what="tokens of an issuer whose clock is 5 minutes late or early, and of one just beyond the leeway",
        expectation="edge and sidecars refuse what is over or not yet valid, with a leeway of a minute",
        inject=nothing_done,
        during=times_count,
        targets=("svc_portfolio",),
        objective_seconds=1.0,
        unnoticed=NO_CALL,
        stage=PLAIN,
    ),
    Fault(
        name="jwks-outage",
        what="the issuer is away, and the control process dies meanwhile",
        expectation="the last good keys stay in force over its restart; no call fails",
        inject=issuer_away,
        during=kept_keys_count,
        targets=(ISSUER,),
        objective_seconds=1.0,
        unnoticed=NO_CALL,
        stage=PLAIN,
    ),
    Fault(
        name="key-roll",
        what="the issuer signs with another key, and withdraws the old one",
        expectation="no call fails; tokens of the old key count until it is gone, and no longer",
        inject=nothing_done,
        during=keys_follow,
        targets=(ISSUER,),
        objective_seconds=1.0,
        unnoticed=NO_CALL,
        stage=SHORT_LIVED,
    ),
)
