"""The documentation page: one HTML document without outside assets, made from the OpenAPI document."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from typing import Any

from svc_gateway.codec.markup import block, inline, without_example
from svc_gateway.codec.schema_page import bounds_of, fields_table, required_mark, schema_section, table, type_of

REASONS = "trademesh.error.v1.ErrorReason"
_BODY = re.compile(r"\{.*\}", re.DOTALL)
_METHODS = ("get", "post", "put", "patch", "delete")


@dataclass(frozen=True, slots=True)
class Page:
    """The page and the policy that lets its own style and script run, and nothing else (Content Security Policy Level 3)."""

    html: bytes
    policy: str


def render(document: Mapping[str, Any], token_url: str | None) -> Page:
    """Return the page of an OpenAPI document; `token_url` is where tokens come from, for the example."""
    style, script = _asset("style.css"), _asset("script.js")
    schemas: Mapping[str, Any] = document["components"]["schemas"]
    operations = _by_tag(document)
    title = f"{document['info']['title']} API"
    html = _asset("page.html")
    parts = {
        "title": escape(title),
        "version": escape(str(document["info"]["version"])),
        "style": style,
        "script": script,
        "about": block(str(document["info"].get("description", ""))),
        "token_url": escape(token_url or "https://issuer.example/token"),
        "navigation": _navigation(document, operations),
        "services": "".join(_service(tag, operations.get(tag["name"], []), schemas) for tag in document["tags"]),
        "schemas": "".join(schema_section(name, schemas[name]) for name in sorted(schemas, key=_short)),
        "reasons": _reasons(schemas),
    }
    for name, content in parts.items():
        html = html.replace(f"<!--{name}-->", content)
    policy = (
        f"default-src 'none'; style-src '{_digest(style)}'; script-src '{_digest(script)}'; connect-src 'self'; img-src data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return Page(html.encode(), policy)


def _asset(name: str) -> str:
    return files("svc_gateway.codec").joinpath("page", name).read_text(encoding="utf-8")


def _digest(content: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()


def _short(name: str) -> tuple[str, str]:
    return name.rpartition(".")[2].lower(), name


def _by_tag(document: Mapping[str, Any]) -> dict[str, list[tuple[str, str, Mapping[str, Any]]]]:
    found: dict[str, list[tuple[str, str, Mapping[str, Any]]]] = {}
    for path, item in document["paths"].items():
        for method in _METHODS:
            if method in item:
                found.setdefault(item[method]["tags"][0], []).append((method, path, item[method]))
    return found


def _navigation(document: Mapping[str, Any], operations: Mapping[str, list[tuple[str, str, Mapping[str, Any]]]]) -> str:
    groups = []
    for tag in document["tags"]:
        links = "".join(
            f'<li><a href="#{escape(operation["operationId"])}">{escape(operation["operationId"].partition("_")[2])}</a></li>'
            for _, _, operation in operations.get(tag["name"], [])
        )
        groups.append(f'<li><a href="#{escape(tag["name"])}">{escape(tag["name"])}</a><ul>{links}</ul></li>')
    return "".join(groups)


def _service(tag: Mapping[str, Any], operations: list[tuple[str, str, Mapping[str, Any]]], schemas: Mapping[str, Any]) -> str:
    body = "".join(_operation(method, path, operation, schemas) for method, path, operation in operations)
    name = escape(tag["name"])
    return f'<section class="service"><h2 id="{name}">{name}</h2>{block(str(tag.get("description", "")))}{body}</section>'


def _operation(method: str, path: str, operation: Mapping[str, Any], schemas: Mapping[str, Any]) -> str:
    parameters = operation.get("parameters", [])
    body = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema")
    words, example = without_example(str(operation.get("description", "")))
    parts = [block(words)]
    if example:
        parts.append(f'<p class="example">Example: {inline(example)}</p>')
    if parameters:
        parts.append(f"<h4>Parameters</h4>{_parameters(parameters)}")
    if body is not None:
        name = f": {type_of(body)}" if "$ref" in body else ""
        parts.append(f"<h4>Body{name}</h4>{fields_table(_resolved(body, schemas))}")
    parts.append(_answer(operation, schemas))
    parts.append(_trial(method, path, parameters, None if body is None else _example_body(example)))
    identity = escape(operation["operationId"])
    search = escape(f"{identity} {path} {operation.get('summary', '')}".lower())
    return (
        f'<details class="operation" id="{identity}" data-search="{search}"><summary><span class="verb {method}">{method.upper()}</span> '
        f'<code class="path">{escape(path)}</code> <span class="summary">{inline(str(operation.get("summary", "")))}</span></summary>'
        f'<div class="body">{"".join(parts)}</div></details>'
    )


def _parameters(parameters: list[Mapping[str, Any]]) -> str:
    rows = []
    for parameter in parameters:
        schema = parameter.get("schema", {})
        rows.append(
            f"<tr><td><code>{escape(parameter['name'])}</code>{required_mark(bool(parameter.get('required')))}</td>"
            f"<td>{escape(parameter['in'])}</td><td>{type_of(schema)}</td>"
            f'<td>{inline(str(parameter.get("description", "")))}<div class="bounds">{bounds_of(schema)}</div></td></tr>'
        )
    return table(("parameter", "in", "type", "meaning"), rows)


def _answer(operation: Mapping[str, Any], schemas: Mapping[str, Any]) -> str:
    answer = operation["responses"].get("200", {})
    parts = []
    for content_type, content in answer.get("content", {}).items():
        schema = content.get("schema", {})
        note = "" if content_type == "application/json" else f" <span class=package>{escape(content_type)}</span>"
        parts.append(f"<h4>Answer: {type_of(schema)}{note}</h4>{fields_table(_resolved(schema, schemas))}")
    return "".join(parts)


def _resolved(schema: Mapping[str, Any], schemas: Mapping[str, Any]) -> Mapping[str, Any]:
    reference = schema.get("$ref")
    resolved: Mapping[str, Any] = schemas[reference.rpartition("/")[2]] if isinstance(reference, str) else schema
    return resolved


def _example_body(example: str) -> str:
    """The JSON body in an example such as `POST /v1/reports {"type":"…"}`, laid out; empty where it has none."""
    match = _BODY.search(example)
    try:
        return json.dumps(json.loads(match[0]), indent=2, ensure_ascii=False) if match else ""
    except ValueError:
        return ""


def _trial(method: str, path: str, parameters: list[Mapping[str, Any]], body: str | None) -> str:
    """A form that the script carries out; without scripts it is hidden."""
    inputs = "".join(
        f'<label><span>{escape(parameter["name"])}</span><input name="{escape(parameter["name"])}" data-in="{escape(parameter["in"])}" '
        f'{"required" if parameter.get("required") else ""} autocomplete="off" spellcheck="false"></label>'
        for parameter in parameters
    )
    text = ""
    if body is not None:
        rows = max(4, body.count("\n") + 1)
        text = f'<label><span>body</span><textarea name="body" rows="{rows}" spellcheck="false">{escape(body or "{}")}</textarea></label>'
    data = escape(json.dumps({"method": method.upper(), "path": path}))
    return (
        f'<form class="trial" data-call="{data}" hidden><h4>Try it</h4><div class="inputs">{inputs}{text}</div>'
        '<button type="submit">Send</button> <button type="button" class="stop" hidden>Stop</button>'
        '<pre class="result" hidden tabindex="0"></pre></form>'
    )


def _reasons(schemas: Mapping[str, Any]) -> str:
    rows = []
    for line in str(schemas.get(REASONS, {}).get("description", "")).splitlines():
        name, found, meaning = line.strip().removeprefix("- ").partition(": ")
        if not found or not line.strip().startswith("- `") or "UNSPECIFIED" in name:
            continue
        status, _, text = meaning.partition(": ")
        cells = (inline(name.replace("ERROR_REASON_", "")), inline(status), inline(text))
        rows.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    return table(("reason", "status", "meaning"), rows)
