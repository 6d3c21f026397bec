"""The scenario table: one JSON file that every language's runner plays, and what must be seen of it.

A row has `steps`; a step has a `verb` and what the verb needs, and `expect`, which only the driver reads. In a text `{name}` stands for
what the driver knows (`Facts`), and `${saved.path}` for what an earlier step saw, which the runner fills in. A request that is `like` one
of `requests` takes over what it does not state.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

TABLE = Path(__file__).with_name("scenarios.json")
VERBS = {
    "call": {"method", "user", "door", "request", "timeout_ms", "within_ms", "until", "save"},
    "place": {"user", "door", "request", "within_ms", "save"},
    "pages": {"user", "door", "request", "save"},
    "read": {"stream", "user", "door", "request", "until", "save"},
    "break": {"stream"},
    "follow": {"user", "door", "request", "until"},
}
"""Which fields a verb may have, beside `verb` and `expect`."""

_FACT = re.compile(r"(?<!\$)\{([a-z_]+)\}")


@dataclass(frozen=True)
class Facts:
    """What the texts of the table may name.

    Attributes:
        run: one run of one language; keys begin with it.
        price: of a buy order for AAPL that rests.
        page_instrument: what nobody else trades in ACC-1.
    """

    run: str
    price: str
    page_instrument: str


class TableError(ValueError):
    """The table says something that no runner could do."""


def names() -> list[str]:
    """Return the rows' names in order."""
    found = [str(row["name"]) for row in _read()["scenarios"]]
    if len(set(found)) != len(found):
        raise TableError("two rows have one name")
    return found


def scenarios(facts: Facts) -> list[dict[str, Any]]:
    """Return the rows for one run, with everything filled in that the driver knows.

    Raises:
        TableError: a verb, a field or a fact is unknown.
    """
    table = _read()
    rows = []
    for row in table["scenarios"]:
        known = {**asdict(facts), "request_id": str(uuid.uuid5(uuid.NAMESPACE_URL, f"{facts.run}/{row['name']}"))}
        steps = [_step(_filled(step, known), _filled(table["requests"], known)) for step in row["steps"]]
        rows.append({"name": row["name"], "steps": steps})
    return rows


def for_runner(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows without what must be seen: a runner reports, it does not judge."""
    return [{**row, "steps": [{key: value for key, value in step.items() if key != "expect"} for step in row["steps"]]} for row in rows]


def _read() -> dict[str, Any]:
    table: dict[str, Any] = json.loads(TABLE.read_text(encoding="utf-8"))
    return table


def _step(step: dict[str, Any], requests: Mapping[str, Any]) -> dict[str, Any]:
    unknown = set(step) - VERBS.get(step["verb"], set()) - {"verb", "expect"}
    if step["verb"] not in VERBS or unknown:
        raise TableError(f"{step['verb']} has {', '.join(sorted(unknown)) or 'no meaning'}: {step}")
    request = dict(step.get("request", {}))
    if "like" in request:
        request = {**requests[request.pop("like")], **request}
    defaults = {"door": "edge"} if "door" in VERBS[step["verb"]] else {}
    return {**defaults, **step, "request": request}


def _filled(value: Any, known: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: _filled(item, known) for key, item in value.items()}
    if isinstance(value, list):
        return [_filled(item, known) for item in value]
    if isinstance(value, str):
        try:
            return _FACT.sub(lambda found: known[found[1]], value)
        except KeyError as error:
            raise TableError(f"nothing is known as {error}: {value}") from error
    return value
