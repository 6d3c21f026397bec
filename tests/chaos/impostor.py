"""Somebody who calls a sidecar's inbound port without a sidecar of his own, with whatever certificate he has."""

from __future__ import annotations

import asyncio
import datetime
import http.client
import ssl
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mesh.local.ca import Authority
from mesh.local.ca.authority import Svid
from mesh.local.operator import TRUST_DOMAIN

ANSWER_SECONDS_MAX = 10.0
EMPTY_MESSAGE = b"\0\0\0\0\0"


class TurnedAwayError(Exception):
    """There was no connection to be had."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back: gRPC's status where a header says it, empty otherwise, and the status of HTTP."""

    grpc_status: str
    http_status: int


class Impostor:
    """Calls one sidecar.

    Args:
        address: `address:port`.
        root: PEM of the mesh's authority.
    """

    def __init__(self, address: str, root: str) -> None:
        self._host, _, port = address.partition(":")
        self._port, self._root = int(port), root

    async def call(self, identity: Svid | None, path: str, headers: Mapping[str, str] | None = None) -> Answer:
        """Send an empty message to a method.

        Raises:
            TurnedAwayError: the sidecar ends the connection.
        """
        return await asyncio.to_thread(self._call, identity, path, headers or {})

    def _call(self, identity: Svid | None, path: str, headers: Mapping[str, str]) -> Answer:
        context = ssl.create_default_context(cadata=self._root)
        # Workloads are named by URI, which Python does not look at; who is asked is certain by his address.
        context.check_hostname = False
        with tempfile.TemporaryDirectory() as folder:
            if identity is not None:
                chain, key = Path(folder) / "crt", Path(folder) / "key"
                chain.write_text(identity.certificate)
                key.write_text(identity.key)
                context.load_cert_chain(chain, key)
        connection = http.client.HTTPSConnection(self._host, self._port, context=context, timeout=ANSWER_SECONDS_MAX)
        try:
            connection.request("POST", path, EMPTY_MESSAGE, {"content-type": "application/grpc", "te": "trailers", **headers})
            response = connection.getresponse()
            response.read()
            return Answer(response.headers.get("grpc-status", ""), response.status)
        except (ssl.SSLError, ConnectionError, http.client.RemoteDisconnected) as error:
            raise TurnedAwayError(str(error)) from error
        finally:
            connection.close()

    @contextmanager
    def foreign_authority(self) -> Iterator[Authority]:
        """Give an authority that calls itself as the mesh's does and is another one."""
        with tempfile.TemporaryDirectory() as folder:
            yield Authority.open(Path(folder) / "ca", trust_domain=TRUST_DOMAIN, now=lambda: datetime.datetime.now(datetime.UTC))
