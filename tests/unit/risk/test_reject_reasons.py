"""The reference of reject reasons names every reason once, and risk's rules in the order in which risk reports them."""

from __future__ import annotations

import re
from pathlib import Path

from kernel.errors import Reason
from svc_risk.domain.decide import RULES
from trademesh.error.v1 import error_reason_pb2

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "reject-reasons.md"
_ROW = re.compile(r"^\| `([A-Z_]+)` \|", re.MULTILINE)
_RULE = re.compile(r"^\| `([A-Z_]+)` \| (\d+) \|", re.MULTILINE)


def test_every_reason_has_one_row() -> None:
    rows = _ROW.findall(PAGE.read_text())
    assert sorted(rows) == sorted(reason.value for reason in Reason)


def test_risk_s_rules_stand_in_the_order_of_their_numbers() -> None:
    rules = _RULE.findall(PAGE.read_text())
    assert [(name, int(number)) for name, number in rules] == [
        (name, error_reason_pb2.ErrorReason.Value(f"ERROR_REASON_{name}")) for name, _ in sorted(rules, key=lambda rule: int(rule[1]))
    ]
    assert len(rules) == len(RULES)
