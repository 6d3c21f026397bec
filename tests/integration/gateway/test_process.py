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
from typing import Any

import aiohttp
import grpc
import psutil
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.wire.gateway.world import KEY, PROTOCOL, SECRET, headers, user

ROOT = Path(__file__).parents[3]
DEADLINE_SECONDS = 30
IMPORT_CPU_SECONDS_MAX = 0.6
RESIDENT_BYTES_MAX = 150 * 1024 * 1024


@pytest.fixture
def folder() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="tmg-", dir="/tmp"))
    yield made
    shutil.rmtree(made)


def environment(folder: Path, **changes: str) -> dict[str, str]:
    keys = {
        "INSTANCE": "svc_gateway-0",
        "SOCKET_PATH": str(folder / "grpc.sock"),
        "HTTP_SOCKET_PATH": str(folder / "http.sock"),
        "SIDECAR_SECRET": SECRET,
        "TOKEN_KEY": KEY.reveal(),
        "OMS_TARGETS": f"unix:{folder / 'no-oms.sock'}",
        "ALLOWED_ORIGINS": "https://app.example.com,http://127.0.0.1:8080",
        **changes,
    }
    return {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": f"{ROOT}:{ROOT / 'gen'}",
        **{f"TRADEMESH_{name}": text for name, text in keys.items() if text},
    }


async def serving(target: str) -> None:
    async with asyncio.timeout(DEADLINE_SECONDS), grpc.aio.insecure_channel(target) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        while True:
            try:
                answer = await stub.Check(health_pb2.HealthCheckRequest())
            except grpc.aio.AioRpcError:
                await asyncio.sleep(0.05)
                continue
            if answer.status == health_pb2.HealthCheckResponse.SERVING:
                return
            await asyncio.sleep(0.05)


async def test_a_replica_serves_and_ends_its_sockets_on_sigterm(folder: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "svc_gateway", env=environment(folder), stderr=asyncio.subprocess.DEVNULL
    )
    try:
        await serving(f"unix:{folder / 'grpc.sock'}")
        assert (folder / "http.sock").stat().st_mode & 0o777 == 0o600
        connector = aiohttp.UnixConnector(str(folder / "http.sock"))
        async with aiohttp.ClientSession("http://gateway", connector=connector) as session:
            async with session.get("/docs", headers=headers()) as response:
                assert response.status == 200
            async with session.ws_connect("/v1/ws", protocols=(PROTOCOL,), headers=headers(user())) as socket:
                assert psutil.Process(process.pid).memory_info().rss < RESIDENT_BYTES_MAX
                call = {"id": "1", "method": "trademesh.oms.v1.OrderService/GetOrder", "request": {"account_id": "ACC-1"}}
                await socket.send_json(call)
                frame = await socket.receive_json(timeout=DEADLINE_SECONDS)
                assert frame["end"]["status"]["details"][0]["reason"] == "DEPENDENCY_UNAVAILABLE"
                process.terminate()
                message = await socket.receive(timeout=DEADLINE_SECONDS)
                assert message.type is aiohttp.WSMsgType.CLOSE
                assert message.data == 1012
        assert await asyncio.wait_for(process.wait(), DEADLINE_SECONDS) == 0
        assert os.listdir(folder) == []
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


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
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "svc_gateway", env=environment(folder, **changes), stderr=asyncio.subprocess.PIPE
    )
    _, error = await asyncio.wait_for(process.communicate(), DEADLINE_SECONDS)
    assert process.returncode == 78
    assert named in error.decode()
    assert "short" not in error.decode()


def test_importing_it_is_cheap() -> None:
    text = "import time; before = time.process_time(); import svc_gateway.main; print(time.process_time() - before)"
    done = subprocess.run([sys.executable, "-c", text], cwd=ROOT, capture_output=True, text=True, check=True)
    assert float(done.stdout) < IMPORT_CPU_SECONDS_MAX
