"""The lock, the Makefile and the import contracts hold what they promise."""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from tools.descriptors import ROOT

SERVICE_MODULES = ("__init__", "__main__", "main", "consumer", "servicer", "clients", "store", "codec", "domain")


def pyproject() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


APART = ("interop", "bench", "conformance")


@pytest.mark.parametrize("lock_name", ["requirements.lock", *(f"requirements-{group}.lock" for group in APART)])
def test_the_locks_pin_every_requirement_with_hashes_and_name_no_host(lock_name: str) -> None:
    lock = (ROOT / lock_name).read_text(encoding="utf-8")
    pinned = re.findall(r"^([a-z0-9-]+)==[^ ]+(?: ; [^\\]+)? \\$", lock, re.MULTILINE)
    groups = pyproject()["dependency-groups"]
    if lock_name == "requirements.lock":
        wanted = [each for name, group in groups.items() if name not in APART for each in group] + pyproject()["project"]["dependencies"]
    else:
        wanted = groups[lock_name.removeprefix("requirements-").removesuffix(".lock")]

    assert "://" not in lock
    assert not re.search(r"^-", lock, re.MULTILINE)
    assert len(pinned) == len(re.findall("==[0-9]", re.sub(r" ; .*", "", lock)))
    assert {re.split("[>=<]", each)[0] for each in wanted} <= set(pinned)


def test_the_build_backend_is_locked_too() -> None:
    assert set(pyproject()["build-system"]["requires"]) == set(pyproject()["dependency-groups"]["build"])


def test_help_lists_what_people_run() -> None:
    shown = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout

    names = [line.split()[1] for line in shown.splitlines()]
    for name in (
        "up",
        "down",
        "status",
        "logs",
        "demo",
        "test",
        "test-fast",
        "chaos",
        "interop",
        "check",
        "gen",
        "bench",
        "conformance",
        "lock",
        "system",
        "help",
    ):
        assert name in names


def test_an_old_python_is_refused_by_name(tmp_path: Path) -> None:
    for name in ("Makefile", "pyproject.toml", "requirements.lock"):
        shutil.copy(ROOT / name, tmp_path)
    old = tmp_path / "python3.9"
    old.write_text('#!/bin/sh\n[ "$1" = --version ] && echo "Python 3.9.2"\nexit 1\n')
    old.chmod(0o755)

    done = subprocess.run(["make", "setup", f"PYTHON={old}"], cwd=tmp_path, capture_output=True, text=True, check=False)

    assert done.returncode != 0
    assert "Trademesh needs Python 3.11 or newer; found: Python 3.9.2" in done.stderr
    assert not (tmp_path / ".venv").exists()


@pytest.fixture
def house(tmp_path: Path) -> Path:
    """Return a small tree with every package that the import contracts name, which keeps them."""
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    modules = [f"{service}/{module}" for service in ("svc_oms", "svc_risk") for module in SERVICE_MODULES]
    packages = ("sandbox", "mesh", "cli", "tools", "trademesh", "kernel", "kernel/fix", "kernel/itch", "kernel/events")
    modules += [f"{package}/__init__" for package in packages]
    kernel = (
        "retry_hints",
        "values",
        "ids",
        "errors",
        "ports",
        "wire",
        "batcher",
        "clock",
        "config",
        "grpc_client",
        "grpc_server",
        "postgres",
        "status",
        "telemetry",
    )
    modules += [f"kernel/{module}" for module in kernel]
    for module in modules:
        path = tmp_path / f"{module}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    return tmp_path


def lint_imports(house: Path) -> subprocess.CompletedProcess[str]:
    # -P keeps this checkout off the path: the planted tree is what gets linted.
    call = "import sys; sys.path.insert(0, sys.argv.pop(1)); from importlinter.cli import lint_imports_command; lint_imports_command()"
    arguments = [sys.executable, "-P", "-c", call, str(house), "--no-cache", "--no-logo"]
    return subprocess.run(arguments, cwd=house, capture_output=True, text=True, check=False)


def test_the_import_contracts_pass_a_house_in_order(house: Path) -> None:
    done = lint_imports(house)

    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("module", "line", "found"),
    [
        ("kernel/values", "import kernel.postgres", "kernel.values -> kernel.postgres"),
        ("kernel/fix/__init__", "import trademesh", "kernel.fix -> trademesh"),
        ("kernel/itch/__init__", "import kernel.clock", "kernel.itch -> kernel.clock"),
        ("kernel/errors", "from google.protobuf import message", "kernel.errors -> google"),
        ("kernel/unplaced", "", "kernel.unplaced"),
        ("svc_oms/codec", "import svc_risk.domain", "svc_oms.codec -> svc_risk.domain"),
        ("svc_oms/store", "import svc_oms.servicer", "svc_oms.store -> svc_oms.servicer"),
        ("svc_risk/domain", "import svc_risk.codec", "svc_risk.domain -> svc_risk.codec"),
        ("svc_risk/domain", "import grpc", "svc_risk.domain -> grpc"),
        ("svc_risk/domain", "import kernel.clock", "svc_risk.domain -> kernel.clock"),
        ("kernel/postgres", "import svc_oms.store", "kernel.postgres -> svc_oms.store"),
        ("sandbox/__init__", "import trademesh", "sandbox -> trademesh"),
        ("sandbox/__init__", "import svc_oms.domain", "sandbox -> svc_oms.domain"),
        ("cli/__init__", "import svc_oms.domain", "cli -> svc_oms.domain"),
        ("mesh/__init__", "import tools", "mesh -> tools"),
    ],
)
def test_a_planted_import_is_found(house: Path, module: str, line: str, found: str) -> None:
    (house / f"{module}.py").write_text(line + "\n")

    done = lint_imports(house)

    assert done.returncode == 1
    assert found in done.stdout
