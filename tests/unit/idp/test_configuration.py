"""The environment of the issuer: every wrong key is named, and nothing starts."""

from pathlib import Path

import pytest

from kernel.config import ConfigError
from sandbox.idp.files import FileError
from sandbox.idp.main import build, parse


def environment(tmp_path: Path, **changes: str) -> dict[str, str]:
    keys = {"DATA_DIRECTORY": str(tmp_path / "data"), "ISSUER": "http://127.0.0.1:9870", **changes}
    return {"TRADEMESH_OTHER": "ignored", **{f"TRADEMESH_IDP_{key}": text for key, text in keys.items()}}


def test_two_keys_are_enough(tmp_path: Path) -> None:
    config = parse(environment(tmp_path))
    assert config.idp_audience == "trademesh"
    assert config.idp_registration_token is None


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"ADDRESS": "192.0.2.1"}, "IDP_ADDRESS"),
        ({"ISSUER": "http://issuer/path?query"}, "IDP_ISSUER"),
        ({"TOKEN_SECONDS": "901"}, "IDP_TOKEN_SECONDS"),
        ({"TOKEN_SECONDS": "4"}, "IDP_TOKEN_SECONDS"),
        ({"KEY_SECONDS": "1000"}, "KEY_SECONDS"),
        ({"REGISTRATION_TOKEN": "short"}, "IDP_REGISTRATION_TOKEN"),
        ({"REGISTRATION_TOKEN": "spaces are no bearer token"}, "IDP_REGISTRATION_TOKEN"),
        ({"PORT": "65536"}, "IDP_PORT"),
        ({"UNKNOWN": "1"}, "IDP_UNKNOWN"),
    ],
)
def test_a_wrong_key_is_named(tmp_path: Path, changes: dict[str, str], named: str) -> None:
    with pytest.raises(ConfigError, match=named) as caught:
        parse(environment(tmp_path, **changes))
    assert "short" not in str(caught.value)


async def test_a_data_directory_has_one_issuer(tmp_path: Path) -> None:
    config = parse(environment(tmp_path))
    parts = build(config)
    assert (tmp_path / "data").stat().st_mode & 0o777 == 0o700
    with pytest.raises(FileError, match="another issuer"):
        build(config)
    parts.lock.close()
    build(config).lock.close()
