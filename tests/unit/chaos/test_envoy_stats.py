"""Numbers of an Envoy: a dead one has none, and one that lives and gives none is an error."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mesh.local.edge import EDGE
from tests.chaos import envoy_stats
from tests.chaos.envoy_stats import NoNumberError, edge_stats

ACTIVE = {"name": "cluster.one.upstream_rq_active", "value": 3}
TEXT = {"name": "server.version", "value": "1.0"}
HISTOGRAMS: dict[str, Any] = {"histograms": {"supported_quantiles": []}}


@pytest.fixture
def directory() -> Iterator[Path]:
    # Short: a socket's path has room for 107 bytes.
    with tempfile.TemporaryDirectory(prefix="tms-") as folder:
        yield Path(folder)


def mesh(directory: Path, pid: int | None) -> Any:
    return SimpleNamespace(layout=SimpleNamespace(private=lambda name: directory), instance=lambda name: SimpleNamespace(pid=pid))


@asynccontextmanager
async def answering(directory: Path, *entries: object, status: str = "200 OK") -> AsyncIterator[None]:
    """An administration, which answers in chunks as Envoy does."""
    content = json.dumps({"stats": entries}).encode()
    half = len(content) // 2

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(f"HTTP/1.1 {status}\r\ntransfer-encoding: chunked\r\n\r\n".encode())
        for part in (content[:half], content[half:], b""):
            writer.write(b"%x\r\n%s\r\n" % (len(part), part))
        writer.close()

    async with await asyncio.start_unix_server(answer, directory / "envoy.sock"):
        yield


async def test_numbers_are_read_in_chunks_and_texts_left_out(directory: Path) -> None:
    async with answering(directory, TEXT, ACTIVE, HISTOGRAMS):
        assert await edge_stats(mesh(directory, os.getpid()), "active") == {"cluster.one.upstream_rq_active": 3}


async def test_a_pattern_that_matches_nothing_is_an_error(directory: Path) -> None:
    async with answering(directory, HISTOGRAMS):
        with pytest.raises(NoNumberError, match=f"{EDGE} has no number that matches activ"):
            await edge_stats(mesh(directory, os.getpid()), "activ")


async def test_one_that_lives_and_does_not_answer_is_an_error(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(envoy_stats, "BEGINS_SECONDS_MAX", 0.2)
    with pytest.raises(NoNumberError, match="lives and does not answer"):
        await edge_stats(mesh(directory, os.getpid()), "active")
    async with answering(directory, status="503 Service Unavailable"):
        with pytest.raises(NoNumberError, match="status 503"):
            await edge_stats(mesh(directory, os.getpid()), "active")


async def test_a_dead_one_has_no_numbers(directory: Path) -> None:
    ended = await asyncio.create_subprocess_exec(sys.executable, "-c", "")
    await ended.wait()
    assert await edge_stats(mesh(directory, ended.pid), "active") == {}
    assert await edge_stats(mesh(directory, None), "active") == {}
