"""A version of the rules is never changed: the same day gives the same bytes in every release."""

from __future__ import annotations

import hashlib

import pytest

from svc_reporting.domain.vocabulary import ReportFormat
from tests.integration.reporting.expectation import Scene, expected
from tests.integration.reporting.replica import AUDIT_TRAIL, BLOTTER
from tests.integration.reporting.world import trading_day


@pytest.mark.parametrize(
    ("kind", "report_format", "digest"),
    [
        (BLOTTER, ReportFormat.CSV, "2cd5be2b7b2dbe1254e24c8be7bcd2f07509472763c5c3384cccd999bcf46d76"),
        (BLOTTER, ReportFormat.JSON, "f1de3850f6b47e3a32d92b03b36ecb80b6e8f2231b50044b0d2a4260fc6fc91e"),
        (AUDIT_TRAIL, ReportFormat.CSV, "c35517af7be195d32214636f1af0001a42b9d8437548310f7581784cbd16aef2"),
        (AUDIT_TRAIL, ReportFormat.JSON, "7ea2f84c1a0191f828abd769ddd091f41b4d93cec8560fdb9d939dfaae628623"),
    ],
)
def test_the_bytes_of_a_day(kind: int, report_format: ReportFormat, digest: str) -> None:
    world = trading_day()
    at = {source: world.source(source).end for source in ("oms", "risk", "custody")}
    content = expected(Scene(world, at), kind, report_format)
    assert hashlib.sha256(content).hexdigest() == digest, content.decode()
