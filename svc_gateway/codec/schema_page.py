"""Schemas of the OpenAPI document as tables of fields."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from svc_gateway.codec.markup import block, inline

Schema = Mapping[str, Any]
_REFERENCE = "#/components/schemas/"
_BOUNDS = (
    ("pattern", "matches"),
    ("minimum", "at least"),
    ("maximum", "at most"),
    ("minLength", "length at least"),
    ("maxLength", "length at most"),
    ("minItems", "items at least"),
    ("maxItems", "items at most"),
)


def anchor(name: str) -> str:
    """Return the anchor of a schema."""
    return f"schema-{escape(name)}"


def type_of(schema: Schema) -> str:
    """Return a schema's type in a few words, with a link where it has a name."""
    reference = schema.get("$ref")
    if isinstance(reference, str):
        name = reference.removeprefix(_REFERENCE)
        return f'<a href="#{anchor(name)}">{escape(name.rpartition(".")[2])}</a>'
    kind = schema.get("type", "any")
    if kind == "array":
        return f"list of {type_of(schema.get('items', {}))}"
    if kind == "object" and isinstance(schema.get("additionalProperties"), Mapping):
        return f"map of {type_of(schema['additionalProperties'])}"
    form = schema.get("format")
    return escape(f"{kind} ({form})" if form else str(kind))


def bounds_of(schema: Schema) -> str:
    """Return a schema's bounds, each on a line of its own."""
    rules = [f"{words} <code>{escape(str(schema[key]))}</code>" for key, words in _BOUNDS if key in schema]
    excluded = schema.get("not", {}).get("enum", ())
    rules += [f"not <code>{escape(str(value))}</code>" for value in excluded]
    return "<br>".join(rules)


def fields_table(schema: Schema) -> str:
    """Return the fields of an object as a table; empty for anything else."""
    properties = schema.get("properties")
    if not properties:
        return ""
    required = set(schema.get("required", ()))
    rows = [
        f"<tr><td><code>{escape(name)}</code>{required_mark(name in required)}</td><td>{type_of(field)}</td>"
        f'<td>{inline(str(field.get("description", "")))}<div class="bounds">{bounds_of(field)}</div></td></tr>'
        for name, field in properties.items()
    ]
    return table(("field", "type", "meaning"), rows)


def required_mark(required: bool) -> str:
    """Return what stands beside a required name."""
    return ' <span class="required">required</span>' if required else ""


def table(heads: tuple[str, ...], rows: list[str]) -> str:
    """Return a table that scrolls by itself on narrow screens."""
    head = "".join(f"<th>{name}</th>" for name in heads)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'


def schema_section(name: str, schema: Schema) -> str:
    """Return one schema, folded."""
    package, _, short = name.rpartition(".")
    return (
        f'<details class="schema" id="{anchor(name)}"><summary><code>{escape(short)}</code> <span class="package">{escape(package)}</span>'
        f"</summary>{block(str(schema.get('description', '')))}{fields_table(schema)}</details>"
    )
