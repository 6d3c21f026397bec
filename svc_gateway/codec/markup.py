"""Texts of the contracts as HTML. Everything is escaped; of Markdown only what the comments use: `code`, paragraphs, lists."""

from __future__ import annotations

import re
from html import escape

_EXAMPLE = re.compile(r"\s+Example: ")
_CODE = re.compile(r"`([^`]+)`")


def inline(text: str) -> str:
    """Return a line of text with its `code` marked."""
    return _CODE.sub(r"<code>\1</code>", escape(text, quote=False))


def block(text: str) -> str:
    """Return text of several lines as paragraphs and lists."""
    parts: list[str] = []
    items: list[str] = []
    lines: list[str] = []

    def flush() -> None:
        if lines:
            parts.append(f"<p>{inline(' '.join(lines))}</p>")
            lines.clear()
        if items:
            parts.append("<ul>" + "".join(f"<li>{inline(item)}</li>" for item in items) + "</ul>")
            items.clear()

    for line in text.splitlines():
        stripped = line.strip()
        if stripped.startswith("- "):
            if lines:
                flush()
            items.append(stripped[2:])
        elif not stripped:
            flush()
        elif items:
            items[-1] += f" {stripped}"
        else:
            lines.append(stripped)
    flush()
    return "".join(parts)


def without_example(text: str) -> tuple[str, str]:
    """Return a comment's words and its example, which is empty where there is none."""
    parts = _EXAMPLE.split(text, maxsplit=1)
    return parts[0], parts[1].rstrip(".") if len(parts) > 1 else ""
