"""Fixtures that every suite shares: real servers, started once per run, and a fresh schema for each test that asks."""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from kernel.config import Dsn
from kernel.values import use_exact_decimals
from mesh.local.postgres import DATABASE, EmbeddedPostgres, installed_programs
from mesh.local.provision import Provisioner, ServiceDatabase
from mesh.local.redis import EmbeddedRedis


@pytest.fixture(scope="session", autouse=True)
def exact_decimals() -> None:
    """Give tests the decimal context that every process of ours sets in its composition root."""
    use_exact_decimals()


@pytest.fixture(scope="session")
def scratch() -> Iterator[Path]:
    """Return a directory with a short path that other uids may pass through, as pytest's own temporary directories are not."""
    directory = Path(tempfile.mkdtemp(prefix="tmt-"))
    directory.chmod(0o711)
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres(scratch: Path) -> Iterator[Provisioner]:
    """Return what makes roles and schemas on a running PostgreSQL: embedded, or the one at TRADEMESH_TEST_POSTGRES_DSN (a superuser's)."""
    external = os.environ.get("TRADEMESH_TEST_POSTGRES_DSN")
    if external:
        provisioner = Provisioner(Dsn(external), psql=installed_programs() / "psql", secrets=scratch / "secrets")
        provisioner.create_database(DATABASE)
        yield provisioner
        return
    with EmbeddedPostgres(scratch / "postgres") as server:
        yield server.provisioner()


@pytest.fixture
def service_database(postgres: Provisioner) -> Iterator[ServiceDatabase]:
    """Return a fresh schema with its two roles, empty: the test applies the migrations that it needs."""
    service = f"t_{secrets.token_hex(6)}"
    yield postgres.provision(service, DATABASE)
    postgres.remove(service, DATABASE)


@pytest.fixture(scope="session")
def redis_server(scratch: Path) -> Iterator[EmbeddedRedis]:
    """Return a running Redis of this test run alone."""
    with EmbeddedRedis(scratch / "redis") as server:
        yield server
