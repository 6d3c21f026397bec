"""How a client's target names a sidecar's socket and the host behind it."""

from __future__ import annotations

import pytest

from kernel.client_endpoints import split_target
from kernel.config import ConfigError, load
from svc_oms.config import OmsConfig


@pytest.mark.parametrize(
    ("target", "parts"),
    [
        ("unix:/run/x.sock", ("unix:/run/x.sock", None)),
        ("unix:/run/x.sock?authority=svc-risk.local:9000", ("unix:/run/x.sock", "svc-risk.local:9000")),
        ("dns:///svc-risk.local:9000", ("dns:///svc-risk.local:9000", None)),
    ],
)
def test_a_target_is_an_address_and_perhaps_a_host(target: str, parts: tuple[str, str | None]) -> None:
    assert split_target(target) == parts


@pytest.mark.parametrize(
    "target", ["unix:/x?authority=", "unix:/x?authority=host", "unix:/x?authority=:9000", "?authority=host:1", "unix:/x?authority=h:a"]
)
def test_half_a_host_is_refused(target: str) -> None:
    with pytest.raises(ValueError, match=r"must be unix:/path\?authority=host:port"):
        split_target(target)


def test_a_service_names_the_target_that_it_was_not_configured_with() -> None:
    with pytest.raises(ConfigError, match="TRADEMESH_RISK_TARGETS: must match"):
        load(OmsConfig, {"TRADEMESH_RISK_TARGETS": "unix:/x?authority=host"})
