from __future__ import annotations

import dataclasses
from decimal import Decimal
from pathlib import Path

import pytest

from kernel.config import ConfigError, Dsn, Seconds, Secret, load, setting


@dataclasses.dataclass(frozen=True)
class Example:
    database_dsn: Dsn
    token: Secret
    name: str = setting(pattern="[a-z]+")
    batch_size_max: int = setting(256, minimum=1, maximum=4096)
    collar: Decimal = setting(Decimal("0.1"), minimum=0)
    timeout_seconds: Seconds = setting(Seconds(0.5), minimum=0.1)
    tracing: bool = False
    state: Path = Path("/nowhere")
    venues: tuple[str, ...] = setting((), choices=("XSIM", "XTST"))
    otlp_address: str | None = None


GOOD = {"TRADEMESH_DATABASE_DSN": "postgresql://u:hunter2@/db?host=/run/x", "TRADEMESH_TOKEN": "s3cret", "TRADEMESH_NAME": "oms"}


def test_defaults_and_required_fields() -> None:
    config = load(Example, GOOD | {"HOME": "/root"})
    assert config.database_dsn.reveal() == GOOD["TRADEMESH_DATABASE_DSN"]
    assert (config.name, config.batch_size_max, config.otlp_address, config.venues) == ("oms", 256, None, ())


def test_every_type_parses() -> None:
    more = {"BATCH_SIZE_MAX": "4096", "COLLAR": "0.25", "TIMEOUT_SECONDS": "1.5", "TRACING": "TRUE", "STATE": "/var/x"}
    more |= {"VENUES": "XSIM, XTST", "OTLP_ADDRESS": "127.0.0.1:4317"}
    config = load(Example, GOOD | {f"TRADEMESH_{key}": value for key, value in more.items()})
    assert (config.batch_size_max, config.collar, config.timeout_seconds) == (4096, Decimal("0.25"), 1.5)
    assert (config.tracing, config.state, config.venues, config.otlp_address) == (True, Path("/var/x"), ("XSIM", "XTST"), "127.0.0.1:4317")


def test_one_error_names_every_problem_and_no_secret() -> None:
    environment = {
        "TRADEMESH_DATABASE_DSN": "hunter2",
        "TRADEMESH_NAME": "OMS",
        "TRADEMESH_BATCH_SIZE_MAX": "0",
        "TRADEMESH_COLLAR": "NaN",
        "TRADEMESH_TIMEOUT_SECONDS": "5s",
        "TRADEMESH_TRACING": "maybe",
        "TRADEMESH_VENUES": "XSIM,XNYS",
        "TRADEMESH_STATE": "",
        "TRADEMESH_OTLP_ADRESS": "x",
    }
    with pytest.raises(ConfigError) as caught:
        load(Example, environment)
    text = str(caught.value)
    assert len(caught.value.problems) == 10
    for key in environment.keys() | {"TRADEMESH_TOKEN"}:
        assert f"{key}: " in text
    assert "is not a known key" in text
    assert "TRADEMESH_TOKEN: is required (or TRADEMESH_TOKEN_FILE)" in text
    assert "hunter2" not in text


def test_keys_of_others_are_ignored_when_told() -> None:
    load(Example, GOOD | {"TRADEMESH_TEST_POSTGRES_DSN": "x"}, ignore=("TRADEMESH_TEST_",))


def test_secrets_come_from_files(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("from-file\n")
    environment = {key: value for key, value in GOOD.items() if key != "TRADEMESH_TOKEN"}
    assert load(Example, environment | {"TRADEMESH_TOKEN_FILE": str(file)}).token == Secret("from-file")
    with pytest.raises(ConfigError, match="given twice"):
        load(Example, GOOD | {"TRADEMESH_TOKEN_FILE": str(file)})
    with pytest.raises(ConfigError, match="cannot be read"):
        load(Example, environment | {"TRADEMESH_TOKEN_FILE": str(tmp_path / "absent")})
    file.write_bytes(b"\xff")
    with pytest.raises(ConfigError, match="not UTF-8"):
        load(Example, environment | {"TRADEMESH_TOKEN_FILE": str(file)})
    file.write_bytes(b"x" * 70_000)
    with pytest.raises(ConfigError, match="longer than"):
        load(Example, environment | {"TRADEMESH_TOKEN_FILE": str(file)})


def test_only_secrets_may_come_from_files(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="TRADEMESH_NAME_FILE: is not a known key"):
        load(Example, GOOD | {"TRADEMESH_NAME_FILE": str(tmp_path)})


def test_secrets_hide() -> None:
    config = load(Example, GOOD)
    assert "s3cret" not in repr(config)
    assert "hunter2" not in f"{config!r} {config.database_dsn} {config.token!s}"
    assert repr(Dsn("redis://:pw@127.0.0.1:1/0?password=pw")) == "Dsn('redis://:***@127.0.0.1:1/0?password')"
    assert Secret("a") == Secret("a") != Secret("b")
    assert Secret("postgresql://x") != Dsn("postgresql://x")


def test_a_type_that_no_setting_can_have_is_a_bug() -> None:
    @dataclasses.dataclass(frozen=True)
    class Wrong:
        rate: float

    with pytest.raises(TypeError, match="no setting"):
        load(Wrong, {"TRADEMESH_RATE": "0.1"})
