"""The OpenAPI document says what the transcoder and the validator do."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tools.image import Image
from tools.openapi import OpenApiError, document

ROOT = Path(__file__).resolve().parents[3]
PATH = "/v1/shops/{shop_id}/things"


@pytest.fixture
def shop(compile_changed: Callable[..., bytes]) -> dict[str, Any]:
    """Return the document of the small contract."""
    return document(Image(compile_changed()))


def test_a_path_field_is_a_parameter_and_not_part_of_the_body(shop: dict[str, Any]) -> None:
    buy = shop["paths"][PATH]["post"]
    body = buy["requestBody"]["content"]["application/json"]["schema"]

    assert [(each["name"], each["in"], each["schema"]) for each in buy["parameters"]] == [
        ("shop_id", "path", {"type": "string", "minLength": 1, "maxLength": 8})
    ]
    assert set(body["properties"]) == {"price", "count", "tags"}
    assert body["required"] == ["count", "price"]
    assert buy["summary"] == "Buys a thing."


def test_rules_become_schema(shop: dict[str, Any]) -> None:
    fields = shop["paths"][PATH]["post"]["requestBody"]["content"]["application/json"]["schema"]["properties"]

    assert fields["price"]["pattern"] == r"^[0-9]+(\.[0-9]{2})?$"
    assert fields["price"]["allOf"] == [{"not": {"pattern": "^0+$"}}]
    assert fields["price"]["description"] == "The price.\nMust be a price."
    assert (fields["count"]["minimum"], fields["count"]["maximum"]) == (1, 9)
    assert fields["tags"]["maxProperties"] == 2
    assert fields["tags"]["propertyNames"] == {"type": "string", "maxLength": 3}


def test_an_answer_is_its_json_mapping(shop: dict[str, Any]) -> None:
    schemas = shop["components"]["schemas"]
    answer = schemas["trademesh.shop.v1.BuyThingResponse"]["properties"]

    assert answer["receipt"]["type"] == "string"
    assert answer["receipt"]["description"] == "A receipt number.\nAt most one field of `result` is set."
    assert answer["reason"]["$ref"] == "#/components/schemas/trademesh.shop.v1.RefusalReason"
    assert schemas["trademesh.shop.v1.RefusalReason"]["enum"] == ["REFUSAL_REASON_UNSPECIFIED", "REFUSAL_REASON_SOLD_OUT"]
    assert "`REFUSAL_REASON_SOLD_OUT`: None left." in schemas["trademesh.shop.v1.RefusalReason"]["description"]


def test_a_query_is_flat_and_a_stream_is_server_sent_events(shop: dict[str, Any]) -> None:
    listing = shop["paths"][PATH]["get"]

    assert [(each["name"], each["in"]) for each in listing["parameters"]] == [
        ("shop_id", "path"),
        ("filter.prefix", "query"),
        ("page_size", "query"),
    ]
    assert list(listing["responses"]["200"]["content"]) == ["text/event-stream"]
    assert listing["responses"]["default"]["content"]["application/json"]["schema"]["$ref"].endswith("google.rpc.Status")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        pytest.param('{shop_id}/things" body', '{shop}/things" body', "its path names shop", id="unknown field"),
        pytest.param('get: "/v1', 'post: "/v1', "is bound twice", id="twice"),
        pytest.param('get: "/v1/shops/{shop_id}/things"', 'custom: {kind: "HEAD" path: "/v1"}', "verb", id="custom verb"),
    ],
)
def test_what_cannot_be_expressed_is_refused(compile_changed: Callable[..., bytes], old: str, new: str, message: str) -> None:
    with pytest.raises(OpenApiError, match=message):
        document(Image(compile_changed((old, new))))


def test_every_reference_of_the_committed_document_resolves() -> None:
    committed = json.loads((ROOT / "gen" / "openapi" / "trademesh.json").read_text(encoding="utf-8"))
    schemas = committed["components"]["schemas"]

    assert {each.removeprefix("#/components/schemas/") for each in _references(committed)} == set(schemas)
    operations = [operation for path in committed["paths"].values() for operation in path.values()]
    assert len({operation["operationId"] for operation in operations}) == len(operations)
    for path, each in committed["paths"].items():
        for operation in each.values():
            named = {parameter["name"] for parameter in operation.get("parameters", []) if parameter["in"] == "path"}
            assert named == {part.split("}")[0] for part in path.split("{")[1:]}


def _references(node: object) -> Iterator[str]:
    if isinstance(node, dict):
        if "$ref" in node:
            yield node["$ref"]
        for value in node.values():
            yield from _references(value)
    elif isinstance(node, list):
        for value in node:
            yield from _references(value)


def test_operations_are_there_under_their_two_paths() -> None:
    document = json.loads((ROOT / "gen/openapi/trademesh.json").read_text())
    shown = {(verb, path) for path, verbs in document["paths"].items() for verb in verbs if path.startswith("/v1/operations")}
    one = "/v1/operations/{name}"
    assert shown == {("get", "/v1/operations"), ("get", one), ("delete", one), ("post", f"{one}:cancel")}
    assert [parameter["name"] for parameter in document["paths"][one]["get"]["parameters"]] == ["name"]
    assert "name" not in {parameter["name"] for parameter in document["paths"]["/v1/operations"]["get"]["parameters"]}
    assert all(tag["description"] for tag in document["tags"])
