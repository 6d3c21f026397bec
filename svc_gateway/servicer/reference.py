"""`GET /docs` and `GET /openapi.json`: for everybody who comes through the edge, made when first asked for."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from aiohttp import web

from svc_gateway.codec.openapi import read_document
from svc_gateway.codec.reference_page import render
from svc_gateway.servicer.door import Doorkeeper

CACHE_SECONDS = 300


@dataclass(frozen=True, slots=True)
class _Asset:
    plain: bytes
    zipped: bytes
    etag: str


def _asset(content: bytes) -> _Asset:
    return _Asset(content, gzip.compress(content, mtime=0), f'"{hashlib.sha256(content).hexdigest()[:32]}"')


class Reference:
    """The documents about the API.

    Args:
        openapi: the file of the OpenAPI document.
        token_url: where tokens come from, for the page's example.
    """

    def __init__(self, door: Doorkeeper, openapi: Path, token_url: str | None = None) -> None:
        self._door = door
        self._openapi = openapi
        self._token_url = token_url
        self._making = asyncio.Lock()

    @cached_property
    def _made(self) -> tuple[_Asset, _Asset, str]:
        document = read_document(self._openapi)
        page = render(document, self._token_url)
        return _asset(page.html), _asset(json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()), page.policy

    async def _documents(self) -> tuple[_Asset, _Asset, str]:
        async with self._making:
            return await asyncio.to_thread(lambda: self._made)

    async def page(self, request: web.Request) -> web.Response:
        """Answer the documentation page."""
        self._door.admit(request)
        page, _, policy = await self._documents()
        response = _answer(request, page, "text/html")
        response.headers["Content-Security-Policy"] = policy
        response.headers["Cross-Origin-Opener-Policy"] = "same-origin"
        response.headers["X-Frame-Options"] = "DENY"
        return response

    async def document(self, request: web.Request) -> web.Response:
        """Answer the OpenAPI document."""
        self._door.admit(request)
        _, document, _ = await self._documents()
        return _answer(request, document, "application/json")


def _answer(request: web.Request, asset: _Asset, content_type: str) -> web.Response:
    headers = {
        "Cache-Control": f"public, max-age={CACHE_SECONDS}",
        "ETag": asset.etag,
        "Referrer-Policy": "no-referrer",
        "Vary": "Accept-Encoding",
        "X-Content-Type-Options": "nosniff",
    }
    if asset.etag in request.headers.get("If-None-Match", ""):
        return web.Response(status=304, headers=headers)
    body = asset.plain
    if "gzip" in request.headers.get("Accept-Encoding", ""):
        headers["Content-Encoding"], body = "gzip", asset.zipped
    return web.Response(body=body, content_type=content_type, charset="utf-8", headers=headers)
