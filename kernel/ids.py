"""Identifiers: time-ordered UUIDs (RFC 9562) from an injected source, and the derived order id."""

from __future__ import annotations

import hashlib
import os
import random
import re
import threading
import uuid
from collections.abc import Callable

from kernel.errors import FieldViolation, InvalidArgumentError, Reason
from kernel.ports import Clock, IdSource

__all__ = ["ORDER_NAMESPACE", "DeterministicIdSource", "IdSource", "Uuid7Source", "check_uuid", "order_id"]

ORDER_NAMESPACE = uuid.UUID("6f1d3c52-0f0e-5d0b-9d3e-3a5f6a1f9c11")
"""Namespace of `order_id`; changing it would change every order id ever derived."""

_ORDER_NAMESPACE_BYTES = ORDER_NAMESPACE.bytes
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[1-8][0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", re.ASCII)
_RANDOM_BITS = 74
_RANDOM_LIMIT = 1 << _RANDOM_BITS
_TIMESTAMP_LIMIT = 1 << 48


def order_id(account_id: str, client_order_id: str) -> str:
    r"""Return the id of the order that this client key names: UUIDv5 of `account_id + "\0" + client_order_id` (RFC 9562 §5.5).

    Two replicas with one key derive one id, so the order's own stream is the idempotency key.
    """
    if not account_id or not client_order_id or "\x00" in account_id or "\x00" in client_order_id:
        raise ValueError("account_id and client_order_id must be non-empty and free of NUL")
    name = f"{account_id}\x00{client_order_id}".encode()
    digest = bytearray(hashlib.sha1(_ORDER_NAMESPACE_BYTES + name, usedforsecurity=False).digest()[:16])
    digest[6] = (digest[6] & 0x0F) | 0x50
    digest[8] = (digest[8] & 0x3F) | 0x80
    return _hyphenated(digest.hex())


def check_uuid(text: str, *, field: str = "id") -> str:
    """Return the id if it is a UUID in lowercase canonical text.

    Raises:
        InvalidArgumentError: it is not.
    """
    if _UUID.fullmatch(text) is None:
        description = "must be a UUID in lowercase canonical text"
        raise InvalidArgumentError(
            Reason.FIELD_INVALID, f"{field}: {description}", field_violations=(FieldViolation(field, "uuid.canonical", description),)
        )
    return text


def _hyphenated(digits: str) -> str:
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


class Uuid7Source:
    """UUIDv7 text (RFC 9562 §5.7), strictly increasing within a process, also while the wall clock stands still or steps back.

    Within one millisecond the 74 random bits grow by a random step (§6.2, method 2), so ids stay unguessable. Safe across threads.
    """

    def __init__(self, clock: Clock, *, entropy: Callable[[int], bytes] = os.urandom) -> None:
        self._clock = clock
        self._entropy = entropy
        self._lock = threading.Lock()
        self._timestamp_ms = -1
        self._random = 0

    def new_id(self) -> str:
        """Return a fresh id."""
        now_ms = self._clock.now_ns() // 1_000_000
        with self._lock:
            if now_ms > self._timestamp_ms:
                self._timestamp_ms = now_ms
                # The top bit starts clear, so that a burst in one millisecond has room to grow.
                self._random = int.from_bytes(self._entropy(10)) >> 7
            else:
                self._random += 1 + int.from_bytes(self._entropy(4))
                if self._random >= _RANDOM_LIMIT:
                    self._timestamp_ms += 1
                    self._random = int.from_bytes(self._entropy(10)) >> 7
            return _uuid7(self._timestamp_ms, self._random)


class DeterministicIdSource:
    """UUIDv7 text that depends on the seed alone: the same run gives the same ids. For tests and simulation only."""

    def __init__(self, seed: int = 0, *, start_ms: int = 1_700_000_000_000) -> None:
        generator = random.Random(seed)
        self._prefix = generator.getrandbits(32) << 40
        self._timestamp_ms = start_ms
        self._count = 0

    def new_id(self) -> str:
        """Return the next id of the sequence."""
        self._count += 1
        return _uuid7(self._timestamp_ms, self._prefix + self._count)


def _uuid7(timestamp_ms: int, random_bits: int) -> str:
    if not 0 <= timestamp_ms < _TIMESTAMP_LIMIT or not 0 <= random_bits < _RANDOM_LIMIT:
        raise ValueError(f"not representable in UUIDv7: {timestamp_ms} ms")
    high, low = random_bits >> 62, random_bits & ((1 << 62) - 1)
    value = timestamp_ms << 80 | 0x7 << 76 | high << 64 | 0b10 << 62 | low
    return _hyphenated(f"{value:032x}")
