"""A gateway process of a test."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.wire.gateway.world import KEY, SECRET

ROOT = Path(__file__).parents[3]
DEADLINE_SECONDS = 30


def environment(folder: Path, **changes: str) -> dict[str, str]:
    """Return what the process is configured by; an empty text leaves a key out."""
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


async def start(keys: Mapping[str, str], **options: Any) -> asyncio.subprocess.Process:
    """Start a process."""
    return await asyncio.create_subprocess_exec(sys.executable, "-m", "svc_gateway", env=keys, **options)


@asynccontextmanager
async def serving(keys: Mapping[str, str]) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run a process that serves, until the block ends; it is killed if it has not ended by then."""
    process = await start(keys, stderr=asyncio.subprocess.DEVNULL)
    try:
        await _healthy(f"unix:{keys['TRADEMESH_SOCKET_PATH']}")
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def _healthy(target: str) -> None:
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
