"""Signing keys: ES256 (RFC 7518 §3.4), kept over restarts, and rotated so that nobody who fetches the key set now and then meets an
unknown `kid`.

A new key is published for `lead_seconds` before it signs, and stays published after its last signature for as long as a token lives.
Nothing runs on a timer: the key set is brought up to date whenever somebody asks for it.
"""

import base64
import hashlib
import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from sandbox.idp.files import FileError, parse_object, read_private, write_private

# What clocks of verifiers may differ by before a token that is still good to them names a key that is gone.
SKEW_SECONDS = 60
TOKEN_SECONDS_MIN = 5
KEYS_MAX = 64

_log = logging.getLogger(__name__)


class Clock(Protocol):
    """Wall time."""

    def now_ns(self) -> int:
        """Nanoseconds since 1970."""


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A key pair. `signs_from` is in Unix seconds; it signs until the next key does."""

    kid: str
    private: ec.EllipticCurvePrivateKey
    signs_from: int

    def jwk(self) -> dict[str, str]:
        """Return the public half as a JWK (RFC 7517)."""
        return {**_public_members(self.private), "kid": self.kid, "use": "sig", "alg": "ES256"}


@dataclass(frozen=True, slots=True)
class Schedule:
    """How long, in seconds, a key signs, how long before that it is published, and how long the longest token lives."""

    key_seconds: int
    lead_seconds: int
    token_seconds: int

    def __post_init__(self) -> None:
        if self.lead_seconds < self.token_seconds:
            raise ValueError("a key must be published for at least a token's life before it signs")
        if self.key_seconds < 2 * self.lead_seconds:
            raise ValueError("a key must sign for at least twice the time it is published before")
        if self.token_seconds < TOKEN_SECONDS_MIN:
            # With at most one key waiting at a time, this also bounds how many old ones there can be.
            raise ValueError(f"a token must live for at least {TOKEN_SECONDS_MIN} seconds")


class KeySet:
    """The signing keys, in the order in which they sign.

    Args:
        path: the keys' file, mode 0600; made with a first key, which signs at once, if there is none.

    Raises:
        FileError: the file is damaged or open to others.
    """

    def __init__(self, path: Path, schedule: Schedule, clock: Clock) -> None:
        self._path = path
        self._schedule = schedule
        self._clock = clock
        self._keys: list[SigningKey] = _read(path) if path.exists() else []
        if not self._keys:
            self._replace([make_key(self._now())])

    def _now(self) -> int:
        return self._clock.now_ns() // 1_000_000_000

    def signing(self) -> SigningKey:
        """Return the key that signs now."""
        self._refresh()
        return self._current(self._now())

    def published(self) -> list[SigningKey]:
        """Return every key that a verifier may need now or within the lead time, at most 64."""
        self._refresh()
        return list(self._keys)

    def rotate(self) -> SigningKey:
        """Return the next key: the one that already waits for its turn, or a new one, which signs in `lead_seconds`."""
        self._refresh()
        now = self._now()
        if self._keys[-1].signs_from > now:
            return self._keys[-1]
        return self._add(now)

    def _add(self, now: int) -> SigningKey:
        key = make_key(now + self._schedule.lead_seconds)
        self._replace([*self._keys, key])
        _log.info("new signing key", extra={"fields": {"kid": key.kid, "signs_in_seconds": self._schedule.lead_seconds}})
        return key

    def _current(self, now: int) -> SigningKey:
        # Should the wall clock have stepped back before all of them, the oldest signs.
        return next((key for key in reversed(self._keys) if key.signs_from <= now), self._keys[0])

    def _refresh(self) -> None:
        now = self._now()
        kept = [key for key, following in zip(self._keys, self._keys[1:], strict=False) if not self._is_over(following, now)]
        keys = [*kept, self._keys[-1]]
        if len(keys) < len(self._keys):
            self._replace(keys)
        if self._keys[-1].signs_from + self._schedule.key_seconds - self._schedule.lead_seconds <= now:
            self._add(now)

    def _is_over(self, following: SigningKey, now: int) -> bool:
        return following.signs_from + self._schedule.token_seconds + SKEW_SECONDS <= now

    def _replace(self, keys: list[SigningKey]) -> None:
        assert 1 <= len(keys) <= KEYS_MAX
        entries = [{"kid": key.kid, "signs_from": key.signs_from, "private_key": _pem(key.private)} for key in keys]
        write_private(self._path, json.dumps({"keys": entries}, indent=1) + "\n")
        self._keys = keys


def make_key(signs_from: int) -> SigningKey:
    """Return a new P-256 key; its `kid` is its JWK thumbprint (RFC 7638)."""
    private = ec.generate_private_key(ec.SECP256R1())
    return SigningKey(_thumbprint(private), private, signs_from)


def _public_members(private: ec.EllipticCurvePrivateKey) -> dict[str, str]:
    numbers = private.public_key().public_numbers()
    return {"crv": "P-256", "kty": "EC", "x": _encode(numbers.x.to_bytes(32)), "y": _encode(numbers.y.to_bytes(32))}


def _thumbprint(private: ec.EllipticCurvePrivateKey) -> str:
    canonical = json.dumps(_public_members(private), separators=(",", ":"), sort_keys=True)
    return _encode(hashlib.sha256(canonical.encode()).digest())


def _encode(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def _pem(private: ec.EllipticCurvePrivateKey) -> str:
    return private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def _read(path: Path) -> list[SigningKey]:
    try:
        keys = [_read_key(members) for members in parse_object(read_private(path))["keys"]]
        if not 1 <= len(keys) <= KEYS_MAX:
            raise ValueError(f"expected 1 to {KEYS_MAX} keys")
        if keys != sorted(keys, key=lambda key: key.signs_from):
            raise ValueError("keys are not in the order in which they sign")
    except FileError:
        raise
    except (ValueError, KeyError, TypeError) as error:
        raise FileError(f"{path}: damaged: {error}") from error
    return keys


def _read_key(members: dict[str, Any]) -> SigningKey:
    private = load_pem_private_key(members["private_key"].encode(), password=None)
    if not isinstance(private, ec.EllipticCurvePrivateKey) or not isinstance(private.curve, ec.SECP256R1):
        raise ValueError("a key is not on P-256")
    key = SigningKey(members["kid"], private, int(members["signs_from"]))
    if key.kid != _thumbprint(private):
        raise ValueError("a kid is not its key's thumbprint")
    return key
