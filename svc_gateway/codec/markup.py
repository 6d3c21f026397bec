"""Texts of the contracts as HTML. Everything is escaped; of Markdown only what the comments use: `code`, paragraphs, lists."""

from __future__ import annotations

import re
from html import escape

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


def first_sentence(text: str) -> str:
    """Return what stands before the first example."""
    return text.partition(" Example: ")[0]
