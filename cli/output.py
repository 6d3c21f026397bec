"""What a command shows: tables for people, one JSON document (JSON lines for streams) for machines. Errors likewise."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from cli.exits import Exit, exit_code, next_step
from kernel.errors import TrademeshError

RIGHT_ALIGNED = frozenset(
    {
        *("quantity", "filled", "leaves", "price", "average", "limit", "actual", "value", "notional", "tick", "lot", "position"),
        *("bid", "ask", "last", "volume", "prior close", "orders", "average cost", "cost", "realised", "unrealised", "mark", "remaining"),
        *("available", "held", "pending in", "pending out", "securities", "cash", "rows", "bytes"),
    }
)

TABLE_WIDTH_MAX = 1_000

Rows = Sequence[Sequence[object]]


class Output:
    """Standard output, and standard error for what is not the answer."""

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json
        # Cells are never cut: a narrow terminal wraps lines, and an id that lost its end is no id.
        self.console = Console(highlight=False, soft_wrap=True, width=TABLE_WIDTH_MAX)
        self.notes = Console(highlight=False, soft_wrap=True, stderr=True)

    def document(self, content: Message | Mapping[str, Any]) -> None:
        """Write a message, or what stands for one, as a single line of JSON: proto field names, enum names, 64-bit integers as strings."""
        sys.stdout.write(json.dumps(as_mapping(content), ensure_ascii=False) + "\n")
        sys.stdout.flush()

    def table(self, columns: Sequence[str], rows: Rows, *, empty: str) -> None:
        """Write a table; `empty` stands for one without rows."""
        if not rows:
            self.line(empty)
            return
        table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
        for column in columns:
            table.add_column(column, justify="right" if column in RIGHT_ALIGNED else "left", no_wrap=True)
        for row in rows:
            table.add_row(*(escape(str(cell)) for cell in row))
        self.console.print(table)

    def line(self, text: str) -> None:
        """Write a line for people."""
        self.console.print(escape(text))

    def note(self, text: str) -> None:
        """Write a line that is not part of the answer; to standard error, and never with JSON."""
        if not self.as_json:
            self.notes.print(escape(text))

    def next_page(self, token: str) -> None:
        """Say how to see more, where there is more."""
        if token:
            self.note(f"There is more: --page-token {token}")

    def error(self, error: TrademeshError) -> Exit:
        """Write an error with its reason, every bad field and rule, and the next step; return the exit code."""
        code = exit_code(error)
        content: dict[str, Any] = {"reason": error.reason.value, "message": error.message}
        content["fields"] = [{"field": item.field, "rule": item.rule, "description": item.description} for item in error.field_violations]
        content["metadata"] = error.metadata
        if error.retry_after_seconds is not None:
            content["retry_after_seconds"] = error.retry_after_seconds
        content["next"] = next_step(error)
        self._write_error(content, code)
        return code

    def failure(self, reason: str, text: str, advice: str, code: Exit) -> Exit:
        """Write what went wrong before any service was asked; return the exit code."""
        self._write_error({"reason": reason, "message": text, "fields": [], "metadata": {}, "next": advice}, code)
        return code

    def _write_error(self, content: dict[str, Any], code: Exit) -> None:
        if self.as_json:
            self.document({"error": {**content, "exit_code": int(code)}})
            return
        lines = [f"  reason  {content['reason']}"]
        for item in content["fields"]:
            lines.append(f"  field   {item['field'] or '(the whole request)'}: {item['description']} [{item['rule']}]")
        if "retry_after_seconds" in content:
            lines.append(f"  retry   after {content['retry_after_seconds']:g} s")
        if content["next"]:
            lines.append(f"  next    {content['next']}")
        self.notes.print(f"[red]error[/red]: {escape(content['message'])}")
        for line in lines:
            self.notes.print(line, markup=False)


def as_mapping(content: Message | Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a message as its canonical JSON form, every field with a value shown."""
    if isinstance(content, Message):
        return MessageToDict(content, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
    return content


def enum_name(enum: Any, value: int, prefix: str) -> str:
    """Return the name of an enum's value without the prefix that the contract gives it; the number for one that we do not know."""
    try:
        return str(enum.Name(value)).removeprefix(prefix)
    except ValueError:
        return str(value)


def optional(message: Message, field: str) -> str:
    """Return a text that may be unset; empty where it is."""
    return str(getattr(message, field)) if message.HasField(field) else ""


def clock_time(stamp: Timestamp) -> str:
    """Return a time of day, UTC, to the millisecond; empty for an unset one."""
    return stamp.ToDatetime().strftime("%H:%M:%S.%f")[:-3] if stamp.seconds else ""
