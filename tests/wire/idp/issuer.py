"""An issuer process, and what a client says to it."""

import asyncio
import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import aiohttp
import jwt

from sandbox.idp.secret_hashes import hash_secret

ROOT = Path(__file__).parents[3]
SECRET = "a secret of this test"
HASH = hash_secret(SECRET)
OPERATOR = "an-operators-token-of-this-test"
DEADLINE_SECONDS = 30
_READY = re.compile(r"ready http=127\.0\.0\.1:(\d+) pid=(\d+)")


def basic(client_id: str, secret: str) -> dict[str, str]:
    """Return the header of client_secret_basic."""
    return {"Authorization": aiohttp.encode_basic_auth(client_id, secret)}


class IssuerProcess:
    """One issuer process after the other, on one data directory; `url` is its issuer identifier, not where it listens."""

    url = "https://issuer.test"

    def __init__(self, directory: Path, **settings: str) -> None:
        clients = directory / "clients.json"
        members = {"tenant": "acme", "roles": ["trader", "viewer"], "accounts": ["ACC-1", "ACC-2"], "secret_hash": HASH}
        clients.write_text(json.dumps({"clients": [{"client_id": "desk", **members}]}))
        clients.chmod(0o600)
        self.directory = directory
        self.data = directory / "data"
        keys = {
            "DATA_DIRECTORY": str(self.data),
            "ISSUER": self.url,
            "CLIENTS_FILE": str(clients),
            "REGISTRATION_TOKEN": OPERATOR,
            "READY_FILE": str(directory / "ready"),
            "PORT": "0",
            **{name.upper(): text for name, text in settings.items()},
        }
        self.environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": f"{ROOT}:{ROOT / 'gen'}",
            **{f"TRADEMESH_IDP_{key}": text for key, text in keys.items()},
        }
        self.process: asyncio.subprocess.Process | None = None
        self.session: aiohttp.ClientSession | None = None

    async def start(self) -> None:
        """Start and wait for the ready line."""
        self.process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "sandbox.idp", env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        assert self.process.stdout is not None
        line = (await asyncio.wait_for(self.process.stdout.readline(), DEADLINE_SECONDS)).decode()
        match = _READY.match(line)
        assert match is not None, line
        assert (self.directory / "ready").read_text() == line
        timeout = aiohttp.ClientTimeout(total=DEADLINE_SECONDS)
        self.session = aiohttp.ClientSession(f"http://127.0.0.1:{match[1]}", timeout=timeout)

    async def stop(self, *, kill: bool = False) -> int:
        """Stop it and return its exit status."""
        if self.session is not None:
            await self.session.close()
        assert self.process is not None
        if self.process.returncode is None:
            (self.process.kill if kill else self.process.terminate)()
        return await asyncio.wait_for(self.process.wait(), DEADLINE_SECONDS)

    async def __aenter__(self) -> "IssuerProcess":
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def call(self, method: str, path: str, **options: Any) -> tuple[int, dict[str, Any], Mapping[str, str]]:
        """Return status, JSON body and headers of one request."""
        assert self.session is not None
        async with self.session.request(method, path, **options) as response:
            text = await response.text()
            return response.status, json.loads(text) if text else {}, dict(response.headers)

    async def token(self, client_id: str = "desk", secret: str = SECRET, **parameters: str) -> tuple[int, dict[str, Any]]:
        """Ask for a token with client_secret_basic."""
        form = {"grant_type": "client_credentials", **parameters}
        status, body, _ = await self.call("POST", "/token", data=form, headers=basic(client_id, secret))
        return status, body

    async def verify(self, token: str, **options: Any) -> dict[str, Any]:
        """Return a token's claims after verifying it with PyJWT against the published keys.

        Raises:
            jwt.InvalidTokenError: it is not good.
        """
        _, document, _ = await self.call("GET", "/jwks")
        keys = jwt.PyJWKSet.from_dict(document)
        header = jwt.get_unverified_header(token)
        found = [key for key in keys.keys if key.key_id == header.get("kid")]
        if not found:
            raise jwt.InvalidKeyError("no published key has this kid")
        checks = {"algorithms": ["ES256"], "audience": "trademesh", "issuer": self.url, **options}
        claims: dict[str, Any] = jwt.decode(token, found[0].key, **checks)
        return claims
