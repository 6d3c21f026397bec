"""JSON schemas (draft 2020-12, as OpenAPI 3.1 uses it) of protobuf messages in their JSON mapping, with protovalidate's rules."""

import re
from collections.abc import Mapping
from typing import Any

from google.protobuf import descriptor_pb2

from tools.image import Image

Schema = dict[str, Any]
_Field = descriptor_pb2.FieldDescriptorProto

# The JSON mapping writes 64-bit integers as strings, because a JavaScript number would round them.
_SCALARS: Mapping[int, Schema] = {
    _Field.TYPE_DOUBLE: {"type": "number", "format": "double"},
    _Field.TYPE_FLOAT: {"type": "number", "format": "float"},
    _Field.TYPE_INT64: {"type": "string", "format": "int64"},
    _Field.TYPE_SINT64: {"type": "string", "format": "int64"},
    _Field.TYPE_SFIXED64: {"type": "string", "format": "int64"},
    _Field.TYPE_UINT64: {"type": "string", "format": "uint64"},
    _Field.TYPE_FIXED64: {"type": "string", "format": "uint64"},
    _Field.TYPE_INT32: {"type": "integer", "format": "int32"},
    _Field.TYPE_SINT32: {"type": "integer", "format": "int32"},
    _Field.TYPE_SFIXED32: {"type": "integer", "format": "int32"},
    _Field.TYPE_UINT32: {"type": "integer", "format": "int64", "minimum": 0},
    _Field.TYPE_FIXED32: {"type": "integer", "format": "int64", "minimum": 0},
    _Field.TYPE_BOOL: {"type": "boolean"},
    _Field.TYPE_STRING: {"type": "string"},
    _Field.TYPE_BYTES: {"type": "string", "contentEncoding": "base64"},
}
_WELL_KNOWN: Mapping[str, Schema] = {
    "google.protobuf.Timestamp": {"type": "string", "format": "date-time"},
    "google.protobuf.Duration": {"type": "string", "pattern": r"^-?\d+(\.\d{1,9})?s$"},
    "google.protobuf.FieldMask": {"type": "string", "description": "Field names, separated by commas."},
    "google.protobuf.Empty": {"type": "object", "additionalProperties": False},
    "google.protobuf.Struct": {"type": "object"},
    "google.protobuf.Any": {
        "type": "object",
        "required": ["@type"],
        "properties": {"@type": {"type": "string", "description": "URL of the message's type; its fields stand beside this one."}},
    },
}
_STRING_FORMATS = {
    "uuid": "uuid",
    "email": "email",
    "hostname": "hostname",
    "uri": "uri",
    "uri_ref": "uri-reference",
    "ipv4": "ipv4",
    "ipv6": "ipv6",
}
_LENGTHS = {"min_len": "minLength", "max_len": "maxLength", "min_bytes": "minLength", "max_bytes": "maxLength", "pattern": "pattern"}
_BOUNDS = {"gte": "minimum", "lte": "maximum", "gt": "exclusiveMinimum", "lt": "exclusiveMaximum"}
_BOUND_WORDS = {"gte": "at least", "lte": "at most", "gt": "more than", "lt": "less than"}
_MATCH = re.compile(r"(!?)this\.matches\('((?:[^'\\]|\\.)*)'\)")


class Schemas:
    """Builds and collects `components.schemas`; only what somebody refers to gets in."""

    def __init__(self, image: Image) -> None:
        self.image = image
        self.components: dict[str, Schema] = {}

    def reference(self, type_name: str) -> Schema:
        """The schema of a message or enum, inline for well-known types and by `$ref` for all others."""
        full_name = type_name.removeprefix(".")
        if full_name in _WELL_KNOWN:
            return dict(_WELL_KNOWN[full_name])
        if full_name not in self.components:
            self.components[full_name] = {}  # Holds the place, so that a recursive message ends.
            is_enum = full_name in self.image.enums
            self.components[full_name] = self._enum(full_name) if is_enum else self.message(full_name)
        return {"$ref": f"#/components/schemas/{full_name}"}

    def message(self, full_name: str, *, without: frozenset[str] = frozenset()) -> Schema:
        """The object schema of a message, leaving out the named fields (those that a path carries)."""
        proto = self.image.messages[full_name]
        schema: Schema = {"type": "object"}
        notes = [self.image.comments.get(full_name, ""), *self._message_rules(proto, without)]
        if any(notes):
            schema["description"] = "\n".join(note for note in notes if note)
        fields = [field for field in proto.field if field.name not in without]
        required = sorted(self.image.refused_when_unset(full_name).keys() - without)
        if required:
            schema["required"] = required
        schema["properties"] = {field.name: self.field(full_name, field) for field in fields}
        return schema

    def field(self, message: str, field: _Field) -> Schema:
        """The schema of one field with its comment and its rules."""
        rules = self.image.option(field.options, "buf.validate.field")
        entry = self.image.messages.get(field.type_name.removeprefix("."))
        if entry is not None and entry.options.map_entry:
            schema = self._map(entry, rules)
        elif field.label == _Field.LABEL_REPEATED:
            schema = self._repeated(field, rules)
        else:
            schema = self._singular(field, rules)
        notes = [self.image.comments.get(f"{message}.{field.name}", ""), schema.get("description", "")]
        if field.HasField("oneof_index") and not field.proto3_optional:
            oneof = self.image.messages[message].oneof_decl[field.oneof_index].name
            notes.append(f"At most one field of `{oneof}` is set.")
        if any(notes):
            schema["description"] = "\n".join(note for note in notes if note)
        if field.options.deprecated:
            schema["deprecated"] = True
        return schema

    def _singular(self, field: _Field, rules: Any) -> Schema:
        schema = self.reference(field.type_name) if field.type_name else dict(_SCALARS[field.type])
        kind = rules.WhichOneof("type") if rules is not None else None
        if kind is not None:
            self._apply(schema, field, kind, getattr(rules, kind))
        return schema

    def _repeated(self, field: _Field, rules: Any) -> Schema:
        limits = rules.repeated if rules is not None and rules.HasField("repeated") else None
        schema: Schema = {"type": "array", "items": self._singular(field, limits.items if limits is not None else None)}
        if limits is not None:
            names = {"min_items": "minItems", "max_items": "maxItems", "unique": "uniqueItems"}
            schema.update({names[rule.name]: value for rule, value in limits.ListFields() if rule.name in names})
        return schema

    def _map(self, entry: descriptor_pb2.DescriptorProto, rules: Any) -> Schema:
        limits = rules.map if rules is not None and rules.HasField("map") else None
        key, value = entry.field
        schema: Schema = {"type": "object", "additionalProperties": self._singular(value, limits.values if limits is not None else None)}
        if limits is not None:
            names = {"min_pairs": "minProperties", "max_pairs": "maxProperties"}
            schema.update({names[rule.name]: count for rule, count in limits.ListFields() if rule.name in names})
            names_schema = self._singular(key, limits.keys)
            if len(names_schema) > 1:
                schema["propertyNames"] = names_schema
        return schema

    def _apply(self, schema: Schema, field: _Field, kind: str, rules: Any) -> None:
        notes = []
        for rule, value in rules.ListFields():
            if rule.is_extension:
                notes.append(self._apply_predefined(schema, rule.full_name))
            elif kind in ("string", "bytes"):
                _apply_text(schema, rule.name, value)
            elif kind == "enum":
                self._apply_enum(schema, field, rule.name, value)
            elif schema.get("type") in ("integer", "number") and rule.name in _BOUNDS:
                schema[_BOUNDS[rule.name]] = value
            elif rule.name in _BOUND_WORDS:
                notes.append(f"Must be {_BOUND_WORDS[rule.name]} {_plain_bound(value)}.")
        if any(notes):
            schema["description"] = "\n".join(note for note in [schema.get("description", ""), *notes] if note)

    def _apply_predefined(self, schema: Schema, extension: str) -> str:
        """Prints a shared rule: its `matches` calls as patterns where it is made of nothing else, its message in any case."""
        predefined = self.image.option(self.image.extensions[extension].options, "buf.validate.predefined")
        patterns: list[Schema] = []
        for cel in predefined.cel:
            if set(_MATCH.sub("", cel.expression)) <= set(" &"):
                for negation, pattern in _MATCH.findall(cel.expression):
                    found = {"pattern": pattern.replace("\\\\", "\\")}
                    patterns.append({"not": found} if negation else found)
        if patterns:
            schema.update(patterns.pop(0) if "pattern" in patterns[0] else {})
        if patterns:
            schema["allOf"] = patterns
        return " ".join(f"{cel.message[:1].upper()}{cel.message[1:]}." for cel in predefined.cel)

    def _apply_enum(self, schema: Schema, field: _Field, rule: str, value: Any) -> None:
        names = {each.number: each.name for each in self.image.enums[field.type_name.removeprefix(".")].value}
        if rule == "not_in":
            schema["not"] = {"enum": [names[number] for number in value]}
        elif rule in ("in", "const"):
            schema["enum"] = [names[number] for number in (value if rule == "in" else [value])]

    def _enum(self, full_name: str) -> Schema:
        proto = self.image.enums[full_name]
        lines = [self.image.comments.get(full_name, ""), ""]
        lines += [f"- `{value.name}`: {self.image.comments.get(f'{full_name}.{value.name}', '')}" for value in proto.value]
        return {"type": "string", "description": "\n".join(lines).strip(), "enum": [value.name for value in proto.value]}

    def _message_rules(self, proto: descriptor_pb2.DescriptorProto, without: frozenset[str]) -> list[str]:
        rules = self.image.option(proto.options, "buf.validate.message")
        notes = [f"- {cel.message} (`{cel.id}`)" for cel in rules.cel] if rules is not None else []
        for index, oneof in enumerate(proto.oneof_decl):
            limits = self.image.option(oneof.options, "buf.validate.oneof")
            members = [f"`{field.name}`" for field in proto.field if field.HasField("oneof_index") and field.oneof_index == index]
            if limits is not None and limits.required and not without:
                notes.append(f"- one of {', '.join(members)} is required")
        return ["Rules:", *notes] if notes else []


def _apply_text(schema: Schema, rule: str, value: Any) -> None:
    if rule in _LENGTHS:
        schema[_LENGTHS[rule]] = value
    elif rule in _STRING_FORMATS:
        schema["format"] = _STRING_FORMATS[rule]
    elif rule == "len":
        schema["minLength"] = schema["maxLength"] = value
    elif rule == "in":
        schema["enum"] = list(value)
    elif rule == "const":
        schema["const"] = value
    elif rule == "prefix":
        schema["pattern"] = f"^{re.escape(value)}"


def _plain_bound(value: Any) -> str:
    return f"{value.seconds + value.nanos / 1e9:g} seconds" if hasattr(value, "seconds") else str(value)
