"""Writes that happen once for each client's key: what is asked for, and the answer, which a repetition of the command gets again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

from google.protobuf.message import Message

from kernel.errors import AlreadyExistsError, Reason

Response = TypeVar("Response", bound=Message)


class Written(NamedTuple, Generic[Response]):
    """The answer to a write; `replayed` when it is the recorded one of an earlier call."""

    response: Response
    replayed: bool


@dataclass(frozen=True, slots=True)
class Request(Generic[Response]):
    """One write: the client's key, what it stands for (SHA-256 of the normalised command), and the type of its answer."""

    request_id: str
    command_hash: bytes
    response_type: type[Response]

    def replayed(self, command_hash: bytes, answer: bytes) -> Written[Response]:
        """Return the recorded answer of this key.

        Raises:
            AlreadyExistsError: IDEMPOTENCY_KEY_REUSED, the key was used for another command.
        """
        if command_hash != self.command_hash:
            raise AlreadyExistsError(Reason.IDEMPOTENCY_KEY_REUSED, "the request id was used for another command; nothing was done")
        return Written(self.response_type.FromString(answer), replayed=True)
