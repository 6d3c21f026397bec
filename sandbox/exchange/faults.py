"""Scripted faults: rules that make the venue misbehave for some orders, counted, so that a script always plays the same.

A rule is a JSON object (see README.md):

    {"action": "reject", "session": "OMS-*", "instrument": "AAPL", "account": "*", "client_order_id": "*",
     "on": ["new"], "skip": 0, "count": 1, "text": "not today"}

Patterns are shell globs. Of the rules of one stage, the first that matches and has uses left applies; `skip` matching messages
pass first. Rules live as long as the process: a restart starts from its script again.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum, unique
from fnmatch import fnmatchcase
from typing import Any

from sandbox.exchange.engine import events
from sandbox.exchange.engine.events import Event

RULES_MAX = 1_000
DELAY_MS_MAX = 3_600_000
COUNT_MAX = 1_000_000_000


class FaultError(ValueError):
    """The rule is malformed; the message names field and rule."""


@unique
class Action(StrEnum):
    """What happens to a message that a rule matches."""

    REJECT = "reject"
    """A request is refused with `text`."""
    SILENT = "silent"
    """A request is read and forgotten: no order, no report."""
    DISCONNECT = "disconnect"
    """A request is carried out, then the connection drops before anything is sent; what the member sent after it is not read."""
    MUTE = "mute"
    """A report is never sent; only a status request tells."""
    DELAY = "delay"
    """A report is sent `delay_ms` later, as it was; later reports may overtake it."""
    HOLD_FILLS = "hold_fills"
    """Fills happen, but the member is told `delay_ms` later, or once the order is closed (`until_closed`); until then its reports
    and statuses are as if they had not happened."""
    DUPLICATE = "duplicate"
    """A report is sent twice, with one ExecID and two MsgSeqNums."""
    BUST = "bust"
    """The trade behind a report is cancelled `delay_ms` later (150=H to both sides)."""
    CORRECT = "correct"
    """The trade behind a report gets another `price` or a lower `quantity` `delay_ms` later (150=G)."""


_REQUEST_ACTIONS = frozenset({Action.REJECT, Action.SILENT, Action.DISCONNECT})
REQUESTS = ("new", "cancel", "replace")
_REPORT_NAMES: Mapping[type[Event], str] = {
    events.Accepted: "new",
    events.Rejected: "rejected",
    events.Traded: "trade",
    events.Canceled: "canceled",
    events.Replaced: "replaced",
    events.Expired: "expired",
    events.ChangeRejected: "change_rejected",
    events.TradeCorrected: "corrected",
}
REPORTS = tuple(_REPORT_NAMES.values())
_TRADE_ACTIONS = frozenset({Action.HOLD_FILLS, Action.BUST, Action.CORRECT})


@dataclass(frozen=True, slots=True)
class Subject:
    """What rules are matched against. `client_order_ids` is an order's chain: a pattern needs to match one of them."""

    session: str
    instrument: str
    account: str
    client_order_ids: tuple[str, ...]


@dataclass(slots=True)
class Rule:
    """A rule with its counters. `delay_ms` 0 means at once; `quantity` and `price` are decimals, empty for unchanged."""

    rule_id: int
    action: Action
    session: str
    instrument: str
    account: str
    client_order_id: str
    on: tuple[str, ...]
    skip: int
    count: int
    text: str
    delay_ms: int
    until_closed: bool
    price: str
    quantity: str
    used: int = 0

    def matches(self, subject: Subject, name: str) -> bool:
        """Whether the rule is about such a message."""
        return (
            name in self.on
            and fnmatchcase(subject.session, self.session)
            and fnmatchcase(subject.instrument, self.instrument)
            and fnmatchcase(subject.account, self.account)
            and any(fnmatchcase(client_order_id, self.client_order_id) for client_order_id in subject.client_order_ids)
        )

    def describe(self) -> dict[str, Any]:
        """Return the rule as JSON values."""
        return {name: getattr(self, name) for name in self.__slots__}


_PATTERNS = ("session", "instrument", "account", "client_order_id")
_TEXTS = {**dict.fromkeys(_PATTERNS, "*"), "text": "refused by a scripted fault", "price": "", "quantity": ""}
_NUMBERS = {"skip": (0, COUNT_MAX, 0), "count": (1, COUNT_MAX, COUNT_MAX), "delay_ms": (0, DELAY_MS_MAX, 0)}


def _default_names(action: Action) -> tuple[str, ...]:
    if action in _REQUEST_ACTIONS:
        return REQUESTS if action is not Action.REJECT else ("new",)
    return ("trade",) if action in _TRADE_ACTIONS else REPORTS


def parse_rule(rule_id: int, fields: Mapping[str, Any]) -> Rule:
    """Check a rule's JSON object.

    Raises:
        FaultError: an unknown field or action, a wrong type, a number outside its bounds.
    """
    known = {"action", "on", "until_closed", *_TEXTS, *_NUMBERS}
    unknown = sorted(set(fields) - known)
    if unknown:
        raise FaultError(f"{unknown[0]}: unknown field; known are {', '.join(sorted(known))}")
    try:
        action = Action(fields.get("action", ""))
    except ValueError:
        raise FaultError(f"action: expected one of {', '.join(Action)}") from None
    values: dict[str, Any] = {}
    for name, default in _TEXTS.items():
        values[name] = fields.get(name, default)
        if not isinstance(values[name], str) or len(values[name]) > 200 or not (values[name].isascii() and values[name].isprintable()):
            raise FaultError(f"{name}: expected at most 200 printable ASCII characters")
    for name, (minimum, maximum, default_number) in _NUMBERS.items():
        number = values[name] = fields.get(name, default_number)
        if not isinstance(number, int) or isinstance(number, bool) or not minimum <= number <= maximum:
            raise FaultError(f"{name}: expected a whole number from {minimum} to {maximum}")
    names = fields.get("on", list(_default_names(action)))
    allowed = REQUESTS if action in _REQUEST_ACTIONS else ("trade",) if action in _TRADE_ACTIONS else REPORTS
    if not isinstance(names, list) or not names or any(name not in allowed for name in names):
        raise FaultError(f"on: expected a list out of {', '.join(allowed)}")
    until_closed = fields.get("until_closed", False)
    if not isinstance(until_closed, bool):
        raise FaultError("until_closed: expected true or false")
    if until_closed and action is not Action.HOLD_FILLS:
        raise FaultError(f"until_closed: only for {Action.HOLD_FILLS}")
    if (values["price"] or values["quantity"]) and action is not Action.CORRECT:
        raise FaultError(f"price, quantity: only for {Action.CORRECT}")
    return Rule(rule_id, action, on=tuple(names), until_closed=until_closed, **values)


class FaultBook:
    """The rules in force. `active` is False while there are none, so that a well-behaved venue pays nothing for them."""

    def __init__(self) -> None:
        self._rules: dict[int, Rule] = {}
        self._next_id = 1
        self.active = False

    def add(self, fields: Mapping[str, Any]) -> Rule:
        """Add a rule.

        Raises:
            FaultError: malformed, or more than `RULES_MAX`.
        """
        if len(self._rules) >= RULES_MAX:
            raise FaultError(f"at most {RULES_MAX} rules")
        rule = parse_rule(self._next_id, fields)
        self._next_id += 1
        self._rules[rule.rule_id] = rule
        self.active = True
        return rule

    def remove(self, rule_id: int) -> bool:
        """Remove a rule; return whether it was there."""
        removed = self._rules.pop(rule_id, None) is not None
        self.active = bool(self._rules)
        return removed

    def clear(self) -> None:
        """Remove all rules."""
        self._rules.clear()
        self.active = False

    def rules(self) -> list[Rule]:
        """Return the rules, oldest first, used up ones included."""
        return list(self._rules.values())

    def for_request(self, subject: Subject, name: str) -> Rule | None:
        """Return the rule that applies to a request (`new`, `cancel`, `replace`), and count its use."""
        return self._first(subject, name, requests=True)

    def for_report(self, subject: Subject, event: Event) -> Rule | None:
        """Return the rule that applies to a report, and count its use."""
        return self._first(subject, _REPORT_NAMES[type(event)], requests=False)

    def _first(self, subject: Subject, name: str, *, requests: bool) -> Rule | None:
        for rule in self._rules.values():
            if (rule.action in _REQUEST_ACTIONS) is not requests or rule.used >= rule.skip + rule.count or not rule.matches(subject, name):
                continue
            rule.used += 1
            if rule.used > rule.skip:
                return rule
        return None
