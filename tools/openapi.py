"""The REST surface as an OpenAPI 3.1 document, from google.api.http bindings, comments and validation rules.

The known generators that read both google.api.http and protovalidate are Go plugins, which a user's machine need not have. This one also
prints our predefined rules as patterns, and asks the validator itself which fields an empty message lacks.
"""

import json
import re
from collections.abc import Iterator
from typing import Any

from google.protobuf import descriptor_pb2

from tools.image import Image, Method
from tools.openapi_schema import Schema, Schemas

_Field = descriptor_pb2.FieldDescriptorProto
_PATH_VARIABLE = re.compile(r"\{([a-z0-9_.]+)(?:=([^}]*))?\}")
_WILDCARDS = ("*", "**")
_OPERATIONS = "google.longrunning.Operations"
"""A service of another package that the mesh serves. Its descriptor comes without comments, so its texts are here."""
_OPERATIONS_TEXTS = {
    _OPERATIONS: "Work that goes on after its call: reports being made.",
    f"{_OPERATIONS}.ListOperations": "List the caller's operations, newest first; `filter` is `done=true`, `done=false` or nothing.",
    f"{_OPERATIONS}.GetOperation": "Say how far an operation is; done, it holds its response or its error.",
    f"{_OPERATIONS}.DeleteOperation": "Forget an operation that is done, with its content.",
    f"{_OPERATIONS}.CancelOperation": "Cancel an operation; one that is not done never will be.",
}
_STATUS = ".google.rpc.Status"
_HTTP_BODY = ".google.api.HttpBody"
_DESCRIPTION = (
    "Every service of the mesh over REST, transcoded from gRPC. Decimals and 64-bit integers are strings; field names are "
    "snake_case; unset fields may be left out. Errors are google.rpc.Status with an ErrorInfo whose reason the reference lists."
)


class OpenApiError(Exception):
    """An HTTP binding cannot be expressed; the text names the RPC and the cause. For the author of the contract."""


def render(image: bytes) -> str:
    """The document as JSON text, stable for equal contracts.

    Args:
        image: a serialized FileDescriptorSet with imports and source info.

    Raises:
        OpenApiError: a binding names a field that its request has not, or two bindings claim one verb and path.
    """
    return json.dumps(document(Image(image)), indent=2, ensure_ascii=False) + "\n"


def document(image: Image) -> dict[str, Any]:
    """The document as plain data; see render."""
    schemas = Schemas(image)
    paths: dict[str, dict[str, Any]] = {}
    tags: dict[str, str] = {}
    for method, verb, path, rule in _bindings(image):
        operations = paths.setdefault(_PATH_VARIABLE.sub(_template, path), {})
        if verb in operations:
            raise OpenApiError(f"{method.full_name}: {verb.upper()} {path} is bound twice")
        operations[verb] = _operation(schemas, method, path, rule)
        tags[method.service.name] = _comment(image, method.full_name.rpartition(".")[0])
    schemas.reference(_STATUS)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Trademesh", "version": "v1", "description": _DESCRIPTION},
        "security": [{"bearer": []}],
        "tags": [{"name": name, "description": text} for name, text in sorted(tags.items())],
        "paths": {path: paths[path] for path in sorted(paths)},
        "components": {
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}},
            "schemas": {name: schemas.components[name] for name in sorted(schemas.components)},
        },
    }


def _bindings(image: Image) -> Iterator[tuple[Method, str, str, Any]]:
    for method in (*image.methods, *(found for found in image.foreign_methods if found.full_name.startswith(f"{_OPERATIONS}."))):
        first = image.option(method.proto.options, "google.api.http")
        for rule in () if first is None else (first, *first.additional_bindings):
            verb = rule.WhichOneof("pattern")
            if verb not in ("get", "put", "post", "delete", "patch"):
                raise OpenApiError(f"{method.full_name}: the verb of its HTTP binding is {verb}")
            yield method, verb, getattr(rule, verb), rule


def _template(variable: re.Match[str]) -> str:
    """A variable's place in a path: a pattern of one wildcard keeps the segments around it, one of none is those segments alone."""
    name, pattern = variable.groups()
    return "/".join(f"{{{name}}}" if part in _WILDCARDS else part for part in (pattern or "*").split("/"))


def _comment(image: Image, full_name: str) -> str:
    return image.comments.get(full_name) or _OPERATIONS_TEXTS.get(full_name, "")


def _operation(schemas: Schemas, method: Method, path: str, rule: Any) -> dict[str, Any]:
    request = method.proto.input_type.removeprefix(".")
    patterns = dict(_PATH_VARIABLE.findall(path))
    in_path = frozenset(patterns)
    comment = _comment(schemas.image, method.full_name)
    operation: dict[str, Any] = {
        "operationId": f"{method.service.name}_{method.proto.name}",
        "tags": [method.service.name],
        "summary": re.split(r"(?<=\.)\s", comment, maxsplit=1)[0],
        "description": comment,
    }
    if method.proto.options.deprecated:
        operation["deprecated"] = True
    parameters = [
        _path_parameter(schemas, method, request, name, patterns[name])
        for name in sorted(in_path)
        if not patterns[name] or patterns[name].endswith(_WILDCARDS)
    ]
    if rule.body != "*":
        parameters += _query_parameters(schemas, request, in_path | {rule.body})
    if parameters:
        operation["parameters"] = parameters
    if rule.body:
        operation["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": _body(schemas, request, rule.body, in_path)}},
        }
    operation["responses"] = _responses(schemas, method)
    return operation


def _body(schemas: Schemas, request: str, body: str, in_path: frozenset[str]) -> Schema:
    if body != "*":
        return schemas.field(request, _field(schemas.image, request, body))
    # A path field repeated in the body is refused by the transcoder, so the body's schema has no such field.
    return schemas.message(request, without=in_path) if in_path else schemas.reference(request)


def _path_parameter(schemas: Schemas, method: Method, request: str, name: str, pattern: str) -> dict[str, Any]:
    message, field = _resolve(schemas.image, method, request, name)
    described = _described(schemas.field(message, field))
    if "/" in pattern:
        described["description"] = f"What follows `{pattern.rpartition('/')[0]}/` in the `{name}`."
    return {"name": name, "in": "path", "required": True, **described}


def _query_parameters(schemas: Schemas, message: str, without: frozenset[str], prefix: str = "") -> list[dict[str, Any]]:
    """One parameter per scalar leaf; fields of nested messages are joined by dots, as the transcoder reads them."""
    parameters: list[dict[str, Any]] = []
    required = schemas.image.refused_when_unset(message) if not prefix else {}
    for field in schemas.image.messages[message].field:
        nested = field.type_name.removeprefix(".")
        if field.name in without:
            continue
        if field.type == _Field.TYPE_MESSAGE and nested in schemas.image.own:
            if field.label != _Field.LABEL_REPEATED and not prefix:
                parameters += _query_parameters(schemas, nested, frozenset(), f"{field.name}.")
            continue
        parameter = {"name": prefix + field.name, "in": "query", **_described(schemas.field(message, field))}
        if field.name in required:
            parameter["required"] = True
        parameters.append(parameter)
    return parameters


def _described(schema: Schema) -> dict[str, Any]:
    description = schema.pop("description", "")
    return {"description": description, "schema": schema}


def _responses(schemas: Schemas, method: Method) -> dict[str, Any]:
    if method.proto.output_type == _HTTP_BODY:
        # The transcoder writes the body's own bytes under the body's own content type.
        return _answers(schemas, {"type": "string", "contentMediaType": "application/octet-stream"}, "*/*", "The content.")
    kind, text = (
        ("text/event-stream", "Server-sent events; each `data` holds one message.")
        if method.proto.server_streaming
        else ("application/json", "OK")
    )
    return _answers(schemas, schemas.reference(method.proto.output_type), kind, text)


def _answers(schemas: Schemas, answer: Schema, kind: str, text: str) -> dict[str, Any]:
    failure = {"description": "The error, with typed details.", "content": {"application/json": {"schema": schemas.reference(_STATUS)}}}
    return {"200": {"description": text, "content": {kind: {"schema": answer}}}, "default": failure}


def _resolve(image: Image, method: Method, message: str, path: str) -> tuple[str, _Field]:
    *parents, last = path.split(".")
    try:
        for parent in parents:
            message = _field(image, message, parent).type_name.removeprefix(".")
        return message, _field(image, message, last)
    except KeyError as error:
        raise OpenApiError(f"{method.full_name}: its path names {path}, which {message} has not") from error


def _field(image: Image, message: str, name: str) -> _Field:
    for field in image.messages[message].field:
        if field.name == name:
            return field
    raise KeyError(name)
