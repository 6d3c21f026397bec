"""What a replica of portfolio is told by its environment."""

from __future__ import annotations

from pathlib import Path

import pytest

from kernel.config import ConfigError, load
from kernel.process import CONFIGURATION_EXIT_CODE
from svc_portfolio.config import PortfolioConfig, check
from svc_portfolio.main import main

NEEDED = {
    "TRADEMESH_INSTANCE": "svc_portfolio-0",
    "TRADEMESH_SOCKET_PATH": "/run/x.sock",
    "TRADEMESH_SIDECAR_SECRET": "s" * 32,
    "TRADEMESH_DATABASE_DSN": "postgresql://u:p@h/d",
    "TRADEMESH_TOKEN_KEY": "k" * 32,
    "TRADEMESH_OMS_TARGETS": "unix:/run/oms-0.sock,unix:/run/oms-1.sock",
    "TRADEMESH_RISK_TARGETS": "unix:/run/risk.sock",
}
PRICES = {"TRADEMESH_MARKETDATA_TARGETS": "unix:/run/md.sock", "TRADEMESH_PRICE_VENUES": "XSIM, XTWO"}


def test_what_is_needed_is_enough() -> None:
    config = check(load(PortfolioConfig, NEEDED))
    assert config.oms_targets == ("unix:/run/oms-0.sock", "unix:/run/oms-1.sock")
    assert (config.marketdata_targets, config.price_venues, config.redis_url) == ((), (), None)
    assert config.socket_path == Path("/run/x.sock")
    assert check(load(PortfolioConfig, NEEDED | PRICES)).price_venues == ("XSIM", "XTWO")


@pytest.mark.parametrize("half", PRICES)
def test_market_data_is_described_whole_or_not_at_all(half: str) -> None:
    (missing,) = PRICES.keys() - {half}
    with pytest.raises(ConfigError, match=missing):
        check(load(PortfolioConfig, NEEDED | {half: PRICES[half]}))


def test_a_wrong_key_ends_the_process_with_its_name(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for key, value in (NEEDED | {"TRADEMESH_PRICE_VENUE": "XSIM"}).items():
        monkeypatch.setenv(key, value)
    assert main() == CONFIGURATION_EXIT_CODE
    assert "TRADEMESH_PRICE_VENUE: is not a known key" in capsys.readouterr().err
