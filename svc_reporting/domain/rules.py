"""The rules by which reports are written. A version is never changed: what has to differ is another version."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kernel.errors import FieldViolation, InvalidArgumentError, Reason
from svc_reporting.domain import audit_trail, blotter
from svc_reporting.domain.cells import Column
from svc_reporting.domain.vocabulary import ReportKind


@dataclass(frozen=True, slots=True)
class Rule:
    """One version of the rules of a kind."""

    version: str
    kind: ReportKind
    columns: Sequence[Column]


RULES: Mapping[str, Rule] = {
    rule.version: rule
    for rule in (
        Rule("blotter/1", ReportKind.TRADE_BLOTTER, blotter.COLUMNS),
        Rule("audit-trail/1", ReportKind.ORDER_AUDIT_TRAIL, audit_trail.COLUMNS),
    )
}
_LATEST = {ReportKind.TRADE_BLOTTER: "blotter/1", ReportKind.ORDER_AUDIT_TRAIL: "audit-trail/1"}


def rule_of(kind: ReportKind, version: str) -> Rule:
    """Return the rules of a kind; the latest for an empty version.

    Raises:
        InvalidArgumentError: FIELD_INVALID, no such version of this kind.
    """
    rule = RULES.get(version or _LATEST[kind])
    if rule is None or rule.kind is not kind:
        known = ", ".join(sorted(rule.version for rule in RULES.values() if rule.kind is kind))
        violation = FieldViolation("rule_version", "rule_version.known", f"must be one of: {known}")
        raise InvalidArgumentError(Reason.FIELD_INVALID, f"rule_version: must be one of: {known}", field_violations=(violation,))
    return rule
