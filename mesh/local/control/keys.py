"""The issuer's public keys: fetched, checked, and kept for when the issuer is away."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm

from mesh.local.embedded import write_private

KEYS_BYTES_MAX = 64 * 1024
KEYS_MAX = 32
FETCH_SECONDS_MAX = 2.0
ANSWER_SECONDS_MAX = 5.0
"""For the whole answer, each part of which may take `FETCH_SECONDS_MAX`."""

_PUBLIC_TYPES = {"EC", "RSA", "OKP"}
_PRIVATE_MEMBERS = {"d", "p", "q", "dp", "dq", "qi", "oth", "k"}

Fetch = Callable[[str], bytes]


class KeysError(Exception):
    """No usable keys came from the issuer; the text says why."""


def fetch(address: str) -> bytes:
    """Return what an HTTP address answers, at most a byte more than `KEYS_BYTES_MAX`.

    Raises:
        KeysError: it does not answer.
    """
    if not address.startswith(("http://", "https://")):
        raise KeysError(f"{address} is no HTTP address")
    content, deadline = b"", time.monotonic() + ANSWER_SECONDS_MAX
    try:
        with urllib.request.urlopen(address, timeout=FETCH_SECONDS_MAX) as answer:  # noqa: S310 (the scheme is checked above)
            while len(content) <= KEYS_BYTES_MAX and (part := answer.read1(KEYS_BYTES_MAX + 1 - len(content))):
                content += part
                if time.monotonic() > deadline:
                    raise KeysError(f"{address} has not answered whole after {ANSWER_SECONDS_MAX:g} s")
            return content
    except (OSError, ValueError, urllib.error.URLError) as error:
        raise KeysError(f"{address} does not answer: {error}") from error


def check(content: bytes) -> str:
    """Return a key set (RFC 7517) as JSON text in one form, so that the same keys are the same text.

    Raises:
        KeysError: it is no set of public keys.
    """
    if len(content) > KEYS_BYTES_MAX:
        raise KeysError(f"the key set is longer than {KEYS_BYTES_MAX} bytes")
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        document = None
    keys = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(keys, list) or not 1 <= len(keys) <= KEYS_MAX:
        raise KeysError(f"the key set must be an object with 1 to {KEYS_MAX} keys")
    for key in keys:
        if not isinstance(key, dict) or key.get("kty") not in _PUBLIC_TYPES or _PRIVATE_MEMBERS & key.keys():
            raise KeysError("the key set must hold public keys only")
        try:
            jwt.PyJWK.from_dict(key)
        except jwt.PyJWTError as error:
            raise KeysError(f"the key set has a malformed key: {error}") from error
    return json.dumps({"keys": keys}, sort_keys=True)


def nobody() -> str:
    """Return a key set whose private key nobody has: until the issuer's keys are known every token is refused, as with istiod."""
    key: Any = ECAlgorithm.to_jwk(ec.generate_private_key(ec.SECP256R1()).public_key(), as_dict=True)
    return json.dumps({"keys": [{**key, "kid": "nobody", "alg": "ES256", "use": "sig"}]}, sort_keys=True)


class IssuerKeys:
    """The last good keys of an issuer.

    Args:
        address: of its key set; None where there is no issuer.
        kept: the file that holds the last good ones over restarts.
        fetcher: returns what an address answers.
    """

    def __init__(self, address: str | None, kept: Path, fetcher: Fetch = fetch) -> None:
        self._address = address
        self._kept = kept
        self._fetch = fetcher
        self.known = False
        self.current = self._read() or nobody()

    def ask(self) -> str:
        """Fetch and check the keys, for `take`; changes nothing, so that another thread may wait for the issuer.

        Raises:
            KeysError: no usable ones came.
        """
        return self.current if self._address is None else check(self._fetch(self._address))

    def take(self, fresh: str) -> bool:
        """Have these from now on, the issuer's answer; return whether they are others than before."""
        if self._address is None:
            return False
        self.known = True
        if fresh == self.current:
            return False
        self.current = fresh
        write_private(self._kept, json.dumps({"address": self._address, "keys": fresh}))
        return True

    def _read(self) -> str | None:
        """Kept keys count only for the issuer that they came from."""
        try:
            document = json.loads(self._kept.read_text())
            if document["address"] != self._address:
                return None
            return check(document["keys"].encode())
        except (OSError, ValueError, KeyError, TypeError, AttributeError, KeysError):
            return None
