"""The REST door of an edge, as a program without gRPC uses it: JSON over HTTP/1.1 with a bearer token."""

from __future__ import annotations

import http.client
import json
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cli.access import Entrance
from kernel.errors import OutcomeUnknownError, Reason, UnavailableError

ANSWER_BYTES_MAX = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class RestAnswer:
    """What came back: the status, the headers by lower-case name, and the JSON document."""

    status: int
    headers: Mapping[str, str]
    document: Mapping[str, Any]


class RestClient:
    """One keep-alive connection to an edge.

    Args:
        entrance: the edge and the user.
        timeout_seconds: bound of connecting and of each answer.
    """

    def __init__(self, entrance: Entrance, *, timeout_seconds: float = 10.0) -> None:
        context = ssl.create_default_context(cafile=entrance.ca_file)
        host, _, port = entrance.endpoint.rpartition(":")
        self._entrance = entrance
        self._connection = http.client.HTTPSConnection(host, int(port), timeout=timeout_seconds, context=context)

    def send(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> RestAnswer:
        """Send a request and return the answer, whatever its status.

        Raises:
            UnavailableError: nothing was sent.
            OutcomeUnknownError: the answer did not come, or is no JSON.
        """
        headers = {"Authorization": f"Bearer {self._entrance.tokens.token().text}"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        try:
            if self._connection.sock is None:
                self._connection.connect()
        except OSError as error:
            raise UnavailableError(Reason.DEPENDENCY_UNAVAILABLE, f"the edge at {self._entrance.endpoint}: {error}") from error
        try:
            self._connection.request(method, path, None if body is None else json.dumps(body), headers)
            answer = self._connection.getresponse()
            text = answer.read(ANSWER_BYTES_MAX)
            document = json.loads(text) if text else {}
        except (OSError, http.client.HTTPException, ValueError) as error:
            self._connection.close()
            raise OutcomeUnknownError(Reason.OUTCOME_UNKNOWN, f"the edge at {self._entrance.endpoint}: {error}") from error
        return RestAnswer(answer.status, {name.lower(): value for name, value in answer.getheaders()}, document)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()
