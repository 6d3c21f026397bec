"""Every house rule fails on a planted violation and passes what it should."""

import subprocess
from pathlib import Path

import pytest

from tools import tidy
from tools.source import Source

LONG_BODY = "\n".join(f"    value_{number} = {number}" for number in range(70))
LATER = "TO" + "DO"
REGISTRY = "py" + "pi.org"
WORK = "/wo" + "rk/main"


@pytest.mark.parametrize(
    ("path", "text", "rule"),
    [
        pytest.param("kernel/values.py", '"""Doc."""\n' + "\n" * 400, "file-length", id="file-length"),
        pytest.param("svc_oms/migrations/001.sql", "\n" * 401, "file-length", id="file-length sql"),
        pytest.param("cli/main.py", f'"""Doc."""\n\n\ndef main():\n{LONG_BODY}\n', "function-length", id="function-length"),
        pytest.param("kernel/utils.py", '"""Doc."""\n', "banned-name", id="banned module"),
        pytest.param("svc_oms/order_helpers.py", '"""Doc."""\n', "banned-name", id="banned part"),
        pytest.param("kernel/common/clock.py", '"""Doc."""\n', "banned-name", id="banned folder"),
        pytest.param("cli/main.py", '"""Doc."""\n\n\nclass OrderManager:\n    pass\n', "banned-name", id="banned class"),
        pytest.param("tests/unit/test_x.py", "import time\n\ntime.sleep(delay)\n", "sleep-in-test", id="time.sleep"),
        pytest.param("tests/unit/test_x.py", "async def test():\n    await asyncio.sleep(0.1)\n", "sleep-in-test", id="asyncio.sleep"),
        pytest.param(
            "tests/unit/test_x.py", "async def test():\n    while a:\n        await asyncio.sleep(1)\n", "sleep-in-test", id="slow poll"
        ),
        pytest.param("tests/unit/test_x.py", "from unittest.mock import Mock\n", "mock", id="mock from"),
        pytest.param("tests/unit/test_x.py", "from unittest import mock\n", "mock", id="mock module"),
        pytest.param("svc_oms/domain.py", '"""Doc."""\nx = float("1")\n', "float-in-domain", id="float call"),
        pytest.param("svc_oms/domain/order.py", '"""Doc."""\nx = 0.5\n', "float-in-domain", id="float literal"),
        pytest.param("kernel/values.py", '"""Doc."""\nx: float\n', "float-in-domain", id="float type"),
        pytest.param("svc_oms/domain.py", '"""Doc."""\nimport random\n', "impure-domain", id="import"),
        pytest.param("svc_oms/domain.py", '"""Doc."""\nx = datetime.now(UTC)\n', "impure-domain", id="clock"),
        pytest.param("svc_oms/domain.py", '"""Doc."""\n\n\nasync def _f() -> None: ...\n', "impure-domain", id="async"),
        pytest.param("svc_oms/store.py", "x = 1\n", "docstring", id="module docstring"),
        pytest.param("kernel/ids.py", '"""Doc."""\n\n\ndef make() -> None:\n    return\n', "docstring", id="function docstring"),
        pytest.param("svc_oms/domain.py", '"""Doc."""\n\n\nclass Order:\n    x = 1\n', "docstring", id="class docstring"),
        pytest.param("cli/main.py", '"""Doc."""\ntry:\n    f()\nexcept Exception:\n    pass\n', "swallowed-exception", id="swallowed"),
        pytest.param("cli/main.py", '"""Doc."""\ntry:\n    f()\nexcept:\n    ...\n', "swallowed-exception", id="bare except"),
        pytest.param("cli/main.py", '"""Doc."""\n\n\ndef f():\n    raise NotImplementedError\n', "stub", id="stub"),
        pytest.param("svc_oms/servicer.py", '"""Doc."""\nQ = "SELECT a FROM b"\n', "sql-outside-store", id="sql"),
        pytest.param("cli/main.py", '"""Doc."""\nimport x  # noqa: F401\n', "bare-exemption", id="noqa"),
        pytest.param("cli/main.py", '"""Doc."""\nx = f()  # type: ignore[no-any-return]\n', "bare-exemption", id="type ignore"),
        pytest.param("svc_oms/migrations/001.sql", f"-- {LATER} index\n", "unfinished", id="unfinished"),
        pytest.param("Makefile", f"# {LATER}\n", "unfinished", id="unfinished makefile"),
        pytest.param("README.md", f"see {REGISTRY}\n", "registry", id="registry"),
        pytest.param("Makefile", "pip install --index" + "-url=http://x/simple y\n", "registry", id="registry option"),
        pytest.param("README.md", f"run `{WORK}/x`\n", "machine-path", id="machine path"),
        pytest.param("cli/main.py", f'"""Doc."""\nP = "{WORK}"\n', "machine-path", id="machine path in code"),
        pytest.param("docs/a.md", "look into /tm" + "p/state\n", "machine-path", id="temporary path"),
        pytest.param("docs/a.md", "[there](none.md)\n", "dead-link", id="dead link"),
    ],
)
def test_a_planted_violation_is_found(tmp_path: Path, path: str, text: str, rule: str) -> None:
    found = tidy.inspect(Source(tmp_path, path, text))

    assert [finding.rule for finding in found] == [rule]


@pytest.mark.parametrize(
    ("path", "text"),
    [
        pytest.param("kernel/values.py", '"""Doc."""\n' + "x = 1\n" * 399, id="400 lines"),
        pytest.param(
            "cli/main.py",
            f'"""Doc."""\n\n\ndef main():\n    """{"long" + chr(10) * 30}"""\n{LONG_BODY[: LONG_BODY.rfind(chr(10))]}\n',
            id="docstring",
        ),
        pytest.param("cli/main.py", '"""Doc."""\nfrom contextlib import asynccontextmanager\n', id="contextmanager"),
        pytest.param("tests/unit/test_x.py", "async def test():\n    await asyncio.sleep(0)\n", id="yield to the loop"),
        pytest.param("tests/unit/test_x.py", "async def test():\n    while a:\n        await asyncio.sleep(0.01)\n", id="poll"),
        pytest.param("tests/unit/test_x.py", "f(1)  # type: ignore[arg-type]\n", id="wrong on purpose"),
        pytest.param("svc_oms/main.py", '"""Doc."""\nTIMEOUT_SECONDS = 0.5\n', id="float outside the domain"),
        pytest.param("svc_oms/store.py", '"""Doc."""\nQ = "SELECT a FROM b"\n', id="sql in the store"),
        pytest.param("svc_oms/store/orders.py", '"""Doc."""\nQ = "INSERT INTO a VALUES (1)"\n', id="sql in the store's folder"),
        pytest.param("cli/main.py", '"""Doc."""\nimport x  # noqa: F401 (registers its codec)\n', id="noqa with a reason"),
        pytest.param(
            "cli/main.py",
            '"""Doc."""\n\n\nclass Port:\n    @abstractmethod\n    def f(self):\n        raise NotImplementedError\n',
            id="abstract",
        ),
        pytest.param(
            "tests/unit/test_x.py", "time.sleep(1)  # tidy: sleep-in-test: proves that the deadline holds\n", id="exempt with a reason"
        ),
        pytest.param("docs/a.md", "[here](a.md) and [there](https://example.org) and [below](#part)\n", id="links"),
        pytest.param("docs/a.md", "GET /v1/work/orders and and/or/root\n", id="not a machine's path"),
    ],
)
def test_what_is_right_passes(tmp_path: Path, path: str, text: str) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "a.md").write_text(text)

    assert tidy.inspect(Source(tmp_path, path, text)) == []


def test_an_exemption_needs_a_reason_and_its_own_rule(tmp_path: Path) -> None:
    for comment in ("# tidy: sleep-in-test:", "# tidy: mock: because", "# tidy"):
        assert tidy.inspect(Source(tmp_path, "tests/test_x.py", f"time.sleep(1)  {comment}\n"))


def test_a_package_that_nobody_lists_is_found(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(
        '[tool.hatch.build.targets.wheel]\npackages = ["kernel"]\n[tool.importlinter]\nroot_packages = ["kernel"]\n'
    )
    for package in ("kernel", "svc_new"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text("")

    assert [finding.text for finding in tidy.unlisted_packages(tmp_path)] == [
        "svc_new is not among import-linter's root_packages",
        "svc_new is not among the wheel's packages",
    ]


def test_looks_at_new_files_and_not_at_generated_or_ignored_ones(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    (tmp_path / "gen").mkdir()
    for name in ("a.py", "gen/b.py", "c.log", "image.binpb", "requirements.lock"):
        (tmp_path / name).write_text("x")
    (tmp_path / ".gitignore").write_text("*.log\n")

    assert tidy.repository_files(tmp_path) == [".gitignore", "a.py"]


def test_reports_file_line_and_rule(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(tidy, "ROOT", tmp_path)
    (tmp_path / "a.md").write_text(f"fine\n{LATER}\n")

    assert tidy.main(["a.md"]) == 1
    assert capsys.readouterr().out == "a.md:2: unfinished: finish it or write an issue\n"
