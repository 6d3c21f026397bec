"""Documents that are nearly right: made after the contract, with now and then a wrong name, form or character, and sometimes bytes bent."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st

NASTY_NUMBERS: tuple[str, ...] = (
    "0",
    "-0",
    "1",
    "-1",
    "1.0",
    "1e3",
    "01",
    "1.",
    ".5",
    "2147483648",
    "-2147483649",
    "4294967295",
    "9223372036854775807",
)
NASTY_NUMBERS += (
    "9223372036854775808",
    "18446744073709551615",
    "18446744073709551616",
    "1e999",
    "-1e400",
    "1E+2",
    "0.1e-3",
    "NaN",
    "+1",
    "0x1",
)
NASTY_TEXTS = (
    *(
        "",
        "a",
        "é",
        "\U0001f600",
        '"',
        "\\",
        "/",
        "true",
        "1",
        "-7",
        "007",
        "1e2",
        "NaN",
        "Infinity",
        "QUJD",
        "QUI=",
        "QQ",
        "Q",
        "-_-_",
        "A+/=",
    ),
    *(
        "COLOR_RED",
        "color_red",
        "1.5s",
        "-0.000000001s",
        "315576000000s",
        "315576000001s",
        "1.s",
        "s",
        "1e3s",
        "textField,at",
        "a.b",
        "a_b",
        ",",
        "a,",
    ),
    *(
        "2026-01-31T09:30:00Z",
        "2026-02-29T00:00:00Z",
        "2024-02-29T23:59:59.123456789Z",
        "2026-01-31T09:30:00+02:00",
        "0001-01-01T00:00:00Z",
    ),
    *(
        "0000-01-01T00:00:00Z",
        "9999-12-31T23:59:59Z",
        "2026-01-31t09:30:00z",
        "2026-01-31T24:00:00Z",
        "2026-01-31T09:30:60Z",
        "2026-01-31 09:30:00Z",
    ),
    *("2026-01-31T09:30:00.Z", "2026-01-31T09:30:00.1234567890Z", "2026-01-31T09:30:00-23:59", "2026-01-31T09:30:00"),
)
RAW_STRINGS = (
    '"\\u0041"',
    '"\\ud83d\\ude00"',
    '"\\ud800"',
    '"\\udc00\\ud800"',
    '"\\u0000"',
    '"\\x41"',
    '"\t"',
    '"\x7f"',
    '"\\u12g4"',
    '"\\/"',
    '"\ufeff"',
)
NAMES = {
    "text": "text", "raw_bytes": "bytes", "flag": "bool", "small": "int", "count": "int", "big_number": "int", "huge_number": "int",
    "ratio": "number", "color": "enum", "at_time": "time", "wait_time": "duration", "update_mask": "mask", "maybe_text": "text",
    "maybe_big": "int", "maybe_flag": "bool", "left_text": "text", "note": "text", "inner": "message", "right_inner": "message",
    "inners": "messages", "texts": "texts", "colors": "colors", "labels": "labels", "by_number": "by_number", "by_flag": "by_flag",
    "facts": "object", "any_value": "any", "any_list": "list", "values": "list", "times": "times", "path_id": "text",
}  # fmt: skip


def camel(name: str) -> str:
    head, *rest = name.split("_")
    return head + "".join(part.title() for part in rest)


quoted = st.one_of(st.text(max_size=5), st.sampled_from(NASTY_TEXTS)).map(lambda text: json.dumps(text)) | st.text(max_size=4).map(
    lambda text: json.dumps(text, ensure_ascii=False)
)
texts = st.one_of(quoted, quoted, st.sampled_from(RAW_STRINGS))
numbers = st.one_of(st.integers(-(2**65), 2**65).map(str), st.integers(-9, 9).map(str), st.sampled_from(NASTY_NUMBERS))
anything = st.recursive(
    st.one_of(texts, numbers, st.sampled_from(("true", "false", "null"))),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda items: "[" + ",".join(items) + "]"),
        st.lists(st.tuples(quoted, inner), max_size=3).map(lambda pairs: "{" + ",".join(f"{k}:{v}" for k, v in pairs) + "}"),
    ),
    max_leaves=5,
)


def picked(*values: str) -> st.SearchStrategy[str]:
    return st.sampled_from(values).map(lambda text: json.dumps(text))


def listed(item: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.lists(item, max_size=3).map(lambda items: "[" + ",".join(items) + "]")


def mapped(key: st.SearchStrategy[str], value: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.lists(st.tuples(key, value), max_size=3).map(lambda pairs: "{" + ",".join(f"{k}: {v}" for k, v in pairs) + "}")


GOOD: dict[str, st.SearchStrategy[str]] = {
    "text": quoted,
    "bytes": picked("", "QUJD", "QUI=", "QQ", "-_-_"),
    "bool": st.sampled_from(("true", "false")),
    "int": st.one_of(st.integers(0, 99).map(str), picked("0", "7", "2147483647")),
    "number": st.one_of(st.sampled_from(("0", "1.5", "-2e3", "0.1e-3")), picked("NaN", "Infinity", "-Infinity", "1.25")),
    "enum": picked("COLOR_RED", "COLOR_GREEN", "COLOR_UNSPECIFIED"),
    "time": picked("2026-01-31T09:30:00Z", "2024-02-29T23:59:59.123456789Z", "2026-01-31T09:30:00+02:00", "0001-01-01T00:00:00Z"),
    "duration": picked("0s", "1.5s", "-0.000000001s", "315576000000s", "-3s"),
    "mask": picked("", "text", "atTime,inner.text"),
    "texts": listed(quoted),
    "colors": listed(picked("COLOR_RED", "COLOR_GREEN")),
    "times": listed(picked("2026-01-31T09:30:00Z")),
    "labels": mapped(quoted, quoted),
    "by_flag": mapped(picked("true", "false"), quoted),
    "object": mapped(quoted, anything),
    "any": anything,
    "list": listed(anything),
}


@st.composite
def messages(draw: Any, depth: int = 2) -> str:
    """Return the text of one message."""
    members = []
    names = draw(st.lists(st.sampled_from(sorted(NAMES)), max_size=4, unique=draw(st.integers(0, 9)) > 0))
    for name in names:
        if name == "path_id" and draw(st.integers(0, 3)):
            continue
        kind, luck = NAMES[name], draw(st.integers(0, 19))
        if luck == 0:
            value = draw(anything)
        elif luck == 1:
            value = "null"
        elif kind in {"message", "messages", "by_number"}:
            inner = messages(depth - 1) if depth else st.just("{}")
            wrapped = {"message": inner, "messages": listed(inner), "by_number": mapped(picked("0", "-1", "7", "07"), inner)}
            value = draw(wrapped[kind])
        else:
            value = draw(GOOD[kind])
        shown = draw(st.sampled_from((name, name, camel(name), camel(name), name + "x"))) if luck < 6 else name
        members.append(f"{json.dumps(shown)}{draw(st.sampled_from(('', ' ', chr(10))))}:{value}")
    comma: str = draw(st.sampled_from((",", ", ", " ,\n")))
    return "{" + comma.join(members) + "}"


@st.composite
def documents(draw: Any) -> bytes:
    """Return the bytes of a document; one in four is bent somewhere."""
    document: bytes = draw(messages()).encode("utf-8", "surrogatepass")
    if draw(st.integers(0, 3)) == 0:
        place = draw(st.integers(0, len(document)))
        cut = draw(st.integers(0, 2))
        new = draw(
            st.sampled_from((b"", b",", b"}", b"{", b'"', b"\\", b"\xff", b"\xc0\x80", b"\0", b" ", b"1", b"null", b"//", b"\xed\xa0\x80"))
        )
        document = document[:place] + new + document[place + cut :]
    return document
