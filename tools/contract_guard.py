"""What buf does not see: HTTP bindings, reasons and validation rules keep their meaning against the baseline.

`buf breaking` passes a renamed REST path and a tightened rule. Clients break on both, so this guard compares the two images itself.
"""

from collections.abc import Iterator
from typing import Any

from google.protobuf import text_format

from tools.image import Image, Method

_RULES = {
    "field": "buf.validate.field",
    "message": "buf.validate.message",
    "oneof": "buf.validate.oneof",
    "predefined": "buf.validate.predefined",
}


def violations(baseline: Image, current: Image) -> list[str]:
    """Everything in current that changes the meaning of something in baseline, one sentence each, empty when compatible.

    Additions pass: new methods, bindings, enum values, messages, and fields that old payloads may leave out.
    """
    return [
        *_changed_bindings(baseline, current),
        *_changed_enums(baseline, current),
        *_changed_rules(baseline, current),
        *_newly_required_fields(baseline, current),
    ]


def _changed_bindings(baseline: Image, current: Image) -> Iterator[str]:
    now = {method.full_name: _bindings(current, method) for method in current.methods}
    for method in baseline.methods:
        if method.full_name not in now:
            yield f"{method.full_name}: the RPC is gone"
            continue
        for binding in _bindings(baseline, method):
            if binding not in now[method.full_name]:
                yield f"{method.full_name}: the HTTP binding `{binding}` is gone"


def _bindings(image: Image, method: Method) -> list[str]:
    rule = image.option(method.proto.options, "google.api.http")
    return [] if rule is None else [_binding(each) for each in (rule, *rule.additional_bindings)]


def _binding(rule: Any) -> str:
    verb = rule.WhichOneof("pattern")
    path = rule.custom.path if verb == "custom" else getattr(rule, verb)
    verb = rule.custom.kind if verb == "custom" else verb.upper()
    return f"{verb} {path} body={rule.body or '-'} response_body={rule.response_body or '-'}"


def _changed_enums(baseline: Image, current: Image) -> Iterator[str]:
    """Every enum is append-only here, error and reject reasons above all: a number, once given, means one name for ever."""
    for name in sorted(baseline.own & baseline.enums.keys()):
        if name not in current.enums:
            yield f"{name}: the enum is gone"
            continue
        now = {value.name: value.number for value in current.enums[name].value}
        for value in baseline.enums[name].value:
            if now.get(value.name) != value.number:
                became = f"is {now[value.name]}" if value.name in now else "is gone"
                yield f"{name}.{value.name}: was {value.number}, {became}"


def _changed_rules(baseline: Image, current: Image) -> Iterator[str]:
    before, now = dict(_rules(baseline)), dict(_rules(current))
    present = _elements(current)
    for name in sorted({*before, *now} & _elements(baseline) & present):
        if before.get(name) != now.get(name):
            yield f"{name}: the validation rule was `{before.get(name, 'none')}`, is `{now.get(name, 'none')}`"


def _rules(image: Image) -> Iterator[tuple[str, str]]:
    for full_name in sorted(image.own & image.messages.keys()):
        message = image.messages[full_name]
        yield from _rule(image, full_name, message.options, "message")
        for field in message.field:
            yield from _rule(image, f"{full_name}.{field.name}", field.options, "field")
        for oneof in message.oneof_decl:
            yield from _rule(image, f"{full_name}.{oneof.name}", oneof.options, "oneof")
    for full_name, extension in image.extensions.items():
        if full_name.startswith("trademesh."):
            yield from _rule(image, full_name, extension.options, "predefined")


def _rule(image: Image, name: str, options: Any, kind: str) -> Iterator[tuple[str, str]]:
    rule = image.option(options, _RULES[kind])
    if rule is not None:
        yield name, text_format.MessageToString(rule, as_one_line=True)


def _elements(image: Image) -> set[str]:
    own = {name: message for name, message in image.messages.items() if name in image.own}
    fields = {f"{name}.{field.name}" for name, message in own.items() for field in message.field}
    oneofs = {f"{name}.{oneof.name}" for name, message in own.items() for oneof in message.oneof_decl}
    return {*own, *fields, *oneofs, *(name for name in image.extensions if name.startswith("trademesh."))}


def _newly_required_fields(baseline: Image, current: Image) -> Iterator[str]:
    """A payload of the baseline leaves new fields unset; the validator itself says whether that still passes."""
    for full_name in sorted(baseline.own & baseline.messages.keys() & current.messages.keys()):
        old = {field.name for field in baseline.messages[full_name].field}
        if current.messages[full_name].options.map_entry or old == {field.name for field in current.messages[full_name].field}:
            continue
        for name, rule in current.refused_when_unset(full_name).items():
            if name not in old:
                yield f"{full_name}.{name}: a new field that old payloads leave out must not be required ({rule})"
