"""`python -m svc_gateway` as a process: configuration, health, what it costs, and how SIGTERM ends its sockets."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import psutil
import pytest

from tests.integration.gateway.process import DEADLINE_SECONDS, ROOT, environment, serving, start
from tests.wire.gateway.world import GET, PROTOCOL, headers
from tests.wire.kernel_net.serving import user

IMPORT_CPU_SECONDS_MAX = 0.6
RESIDENT_BYTES_MAX = 150 * 1024 * 1024


@pytest.fixture
def folder() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="tmg-", dir="/tmp"))
    yield made
    shutil.rmtree(made)


async def test_a_replica_serves_and_ends_its_sockets_on_sigterm(folder: Path) -> None:
    async with serving(environment(folder)) as process:
        assert (folder / "http.sock").stat().st_mode & 0o777 == 0o600
        connector = aiohttp.UnixConnector(str(folder / "http.sock"))
        async with aiohttp.ClientSession("http://gateway", connector=connector) as session:
            async with session.get("/docs", headers=headers()) as response:
                assert response.status == 200
            async with session.ws_connect("/v1/ws", protocols=(PROTOCOL,), headers=headers(user())) as socket:
                assert psutil.Process(process.pid).memory_info().rss < RESIDENT_BYTES_MAX
                await socket.send_json({"id": "1", "method": GET, "request": {"account_id": "ACC-1"}})
                frame = await socket.receive_json(timeout=DEADLINE_SECONDS)
                assert frame["end"]["status"]["details"][0]["reason"] == "DEPENDENCY_UNAVAILABLE"
                process.terminate()
                message = await socket.receive(timeout=DEADLINE_SECONDS)
                assert message.type is aiohttp.WSMsgType.CLOSE
                assert message.data == 1012
        assert await asyncio.wait_for(process.wait(), DEADLINE_SECONDS) == 0
        assert os.listdir(folder) == []


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"TOKEN_KEY": "short"}, "TRADEMESH_TOKEN_KEY"),
        ({"SIDECAR_SECRET": ""}, "TRADEMESH_SIDECAR_SECRET"),
        ({"ALLOWED_ORIGINS": "*"}, "TRADEMESH_ALLOWED_ORIGINS"),
        ({"ALLOWED_ORIGINS": "https://app.example.com/"}, "TRADEMESH_ALLOWED_ORIGINS"),
        ({"OPENAPI_FILE": "/tmp/tmg-no-such-file.json"}, "TRADEMESH_OPENAPI_FILE"),
        ({"UNKNOWN": "1"}, "TRADEMESH_UNKNOWN"),
    ],
)
async def test_a_wrong_key_is_named_and_nothing_starts(folder: Path, changes: dict[str, str], named: str) -> None:
    process = await start(environment(folder, **changes), stderr=asyncio.subprocess.PIPE)
    _, error = await asyncio.wait_for(process.communicate(), DEADLINE_SECONDS)
    assert process.returncode == 78
    assert named in error.decode()
    assert "short" not in error.decode()


def test_importing_it_is_cheap() -> None:
    text = "import time; before = time.process_time(); import svc_gateway.main; print(time.process_time() - before)"
    # The least of three: neighbours on a busy machine make every instruction dearer.
    runs = [subprocess.run([sys.executable, "-c", text], cwd=ROOT, capture_output=True, text=True, check=True).stdout for _ in range(3)]
    assert min(map(float, runs)) < IMPORT_CPU_SECONDS_MAX
