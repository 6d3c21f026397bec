"""The documentation page: complete, escaped, without outside assets."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from svc_gateway.codec.markup import block, inline
from svc_gateway.codec.openapi import read_document
from svc_gateway.codec.reference_page import render

OPENAPI = Path(__file__).parents[3] / "gen" / "openapi" / "trademesh.json"
VOID = {"meta", "link", "input", "br"}


class Reader(HTMLParser):
    """Checks that tags nest, and collects ids, local links and outside addresses."""

    def __init__(self) -> None:
        super().__init__()
        self.stack: list[str] = []
        self.ids: list[str] = []
        self.links: set[str] = set()
        self.loaded: set[str] = set()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        values = dict(attributes)
        assert not any(name.startswith("on") or name == "style" for name in values), values
        if tag not in VOID:
            self.stack.append(tag)
        if values.get("id"):
            self.ids.append(str(values["id"]))
        if tag == "a":
            self.links.add(str(values["href"]))
        for name in ("src", "action"):
            assert name not in values
        if tag == "link":
            self.loaded.add(str(values["href"]))

    def handle_endtag(self, tag: str) -> None:
        assert self.stack.pop() == tag


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return read_document(OPENAPI)


def read(html: bytes) -> Reader:
    reader = Reader()
    reader.feed(html.decode())
    reader.close()
    assert reader.stack == []
    return reader


def test_every_operation_and_schema_has_its_place(document: dict[str, Any]) -> None:
    reader = read(render(document, None).html)
    operations = {item[method]["operationId"] for item in document["paths"].values() for method in item}
    assert operations <= set(reader.ids)
    assert {f"schema-{name}" for name in document["components"]["schemas"]} <= set(reader.ids)
    assert len(reader.ids) == len(set(reader.ids))


def test_links_lead_somewhere_on_the_page(document: dict[str, Any]) -> None:
    reader = read(render(document, None).html)
    outside = {link for link in reader.links if not link.startswith("#")}
    assert outside == {"/openapi.json"}
    assert {link[1:] for link in reader.links - outside} <= set(reader.ids)
    assert reader.loaded == {"data:,"}


def test_the_policy_allows_only_the_pages_own_style_and_script(document: dict[str, Any]) -> None:
    page = render(document, None)
    assert "unsafe" not in page.policy
    assert page.policy.startswith("default-src 'none'; style-src 'sha256-")
    assert len(re.findall(r"'sha256-[A-Za-z0-9+/]{43}='", page.policy)) == 2


def test_texts_cannot_become_markup(document: dict[str, Any]) -> None:
    evil = '<script>alert(1)</script>" onload="'
    tag = {"name": 'Evil"><b>', "description": evil}
    operation: dict[str, Any] = {"operationId": 'Evil_"><b>', "tags": [tag["name"]], "summary": evil, "description": evil, "responses": {}}
    operation["parameters"] = [{"name": '"><b>', "in": "query", "description": evil, "schema": {"type": "string", "pattern": "<b>"}}]
    schemas = {"a.<b>": {"type": "object", "description": evil, "properties": {"<b>": {"type": "<b>", "description": evil}}}}
    hostile = {**document, "tags": [tag], "paths": {"/<b>": {"get": operation}}, "components": {"schemas": schemas}}
    html = render(hostile, "https://issuer/<b>").html.decode()
    assert "<b>" not in html
    assert html.count("<script>") == 1


def test_the_issuer_is_named_where_it_is_known(document: dict[str, Any]) -> None:
    assert b"https://issuer.test/token" in render(document, "https://issuer.test/token").html
    assert b"ORDER_TERMINAL" in render(document, None).html


def test_comments_become_paragraphs_code_and_lists() -> None:
    assert block("One\ntwo `x<y`.\n\n- a\n  b\n- c") == "<p>One two <code>x&lt;y</code>.</p><ul><li>a b</li><li>c</li></ul>"
    assert inline("a & b") == "a &amp; b"
