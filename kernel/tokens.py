"""Opaque tokens that a client hands back: page tokens and resume tokens. Sealed, so that nobody makes one, and bound to what they were
issued for, so that nobody moves one to another list, filter or user.

They are no authorisation: the call that carries one is authorised like any other.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Iterable

from kernel.config import Secret

KEY_LENGTH_MIN = 32
PAYLOAD_BYTES_MAX = 256

_MAC_BYTES = 16
_TOKEN = re.compile(r"[A-Za-z0-9_-]{1,512}", re.ASCII)


class TokenError(Exception):
    """The token is not one that was issued for this purpose and binding; whoever reads tokens turns it into a refusal of his own."""


class TokenSealer:
    """Seals short payloads with HMAC-SHA-256 (RFC 2104), cut to 128 bits.

    Args:
        key: shared by all replicas of a deployment, at least 32 characters; a new key only makes clients begin anew.
        purpose: keeps kinds of tokens apart, such as `page`.
    """

    def __init__(self, key: Secret, purpose: str) -> None:
        if len(key.reveal()) < KEY_LENGTH_MIN:
            raise ValueError(f"the token key must have at least {KEY_LENGTH_MIN} characters")
        self._key = hashlib.sha256(f"{purpose}\0{key.reveal()}".encode()).digest()

    def seal(self, payload: bytes, binding: Iterable[str]) -> str:
        """Return a token of URL-safe characters for a payload of at most 256 bytes; `binding` says for whom and for what it is."""
        if len(payload) > PAYLOAD_BYTES_MAX:
            raise ValueError(f"a token carries at most {PAYLOAD_BYTES_MAX} bytes")
        return base64.urlsafe_b64encode(self._mac(payload, binding) + payload).rstrip(b"=").decode()

    def open(self, token: str, binding: Iterable[str]) -> bytes:
        """Return the payload of a token that was sealed under this key, purpose and binding.

        Raises:
            TokenError: it was not.
        """
        if _TOKEN.fullmatch(token) is None or len(token) % 4 == 1:
            raise TokenError("not a token")
        content = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
        mac, payload = content[:_MAC_BYTES], content[_MAC_BYTES:]
        if not hmac.compare_digest(mac, self._mac(payload, binding)):
            raise TokenError("not a token for this caller and these filters")
        return payload

    def _mac(self, payload: bytes, binding: Iterable[str]) -> bytes:
        # Lengths keep ("ab", "c") and ("a", "bc") apart.
        parts = b"".join(len(part.encode()).to_bytes(4) + part.encode() for part in binding)
        return hmac.digest(self._key, len(parts).to_bytes(4) + parts + payload, "sha256")[:_MAC_BYTES]
