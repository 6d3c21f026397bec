"""Client secrets at rest: scrypt (RFC 7914), compared in constant time."""

import base64
import hashlib
import hmac
import re
import secrets

SECRET_LENGTH_MIN = 16
SECRET_LENGTH_MAX = 256

_COST, _BLOCK, _PARALLEL = 1 << 14, 8, 1
_SALT_BYTES = 16
_HASH_BYTES = 32
_MEMORY_BYTES_MAX = 64 * 1024 * 1024
_TEXT = re.compile(r"scrypt\$([0-9]{1,7})\$([0-9]{1,2})\$([0-9]{1,2})\$([A-Za-z0-9_-]{22})\$([A-Za-z0-9_-]{43})", re.ASCII)


def make_secret() -> str:
    """Return a new client secret: 256 random bits, URL-safe."""
    return secrets.token_urlsafe(32)


def hash_secret(secret: str) -> str:
    """Return `scrypt$N$r$p$salt$hash` of a secret of 16 to 256 characters; takes some 40 ms and 16 MiB.

    Raises:
        ValueError: too short or too long.
    """
    if not SECRET_LENGTH_MIN <= len(secret) <= SECRET_LENGTH_MAX:
        raise ValueError(f"a client secret has {SECRET_LENGTH_MIN} to {SECRET_LENGTH_MAX} characters")
    salt = secrets.token_bytes(_SALT_BYTES)
    digest = _scrypt(secret, salt, _COST, _BLOCK, _PARALLEL)
    return f"scrypt${_COST}${_BLOCK}${_PARALLEL}${_encode(salt)}${_encode(digest)}"


def check_hash(text: str) -> None:
    """Check that a text from a file is a hash that `verify_secret` can afford.

    Raises:
        ValueError: it is not one, or its cost is out of bounds.
    """
    match = _TEXT.fullmatch(text)
    if match is None:
        raise ValueError("expected scrypt$N$r$p$salt$hash, as `python -m sandbox.idp hash-secret` prints it")
    cost, block, parallel = (int(match[index]) for index in (1, 2, 3))
    power_of_two = cost > 1 and cost & (cost - 1) == 0
    if not power_of_two or block < 1 or not 1 <= parallel <= 4 or 128 * cost * block > _MEMORY_BYTES_MAX // 2:
        raise ValueError("scrypt parameters out of bounds: N a power of two, p at most 4, 128·N·r at most 32 MiB")


def verify_secret(secret: str, text: str) -> bool:
    """Whether a secret is the one behind a hash that `check_hash` has passed. Takes the same time either way."""
    match = _TEXT.fullmatch(text)
    assert match is not None, "hashes are checked when they are read"
    digest = _scrypt(secret[:SECRET_LENGTH_MAX], _decode(match[4]), int(match[1]), int(match[2]), int(match[3]))
    return hmac.compare_digest(digest, _decode(match[5])) and len(secret) <= SECRET_LENGTH_MAX


def _scrypt(secret: str, salt: bytes, cost: int, block: int, parallel: int) -> bytes:
    return hashlib.scrypt(secret.encode(), salt=salt, n=cost, r=block, p=parallel, maxmem=_MEMORY_BYTES_MAX, dklen=_HASH_BYTES)


def _encode(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def _decode(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
