"""Whatever comes over the wire, the reader neither raises nor invents a message; what is written is read back."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from kernel.fix import fieldtypes
from kernel.fix.codec import DATA_LENGTH_TAGS, MessageReader, encode_body, frame, parse
from kernel.fix.message import Message
from kernel.fix.session import Session
from kernel.fix.steps import Now, Role, Sequences, SessionConfig
from kernel.values import format_decimal

HEADER_AND_FRAME_TAGS = {8, 9, 10, 34, 35, 43, 49, 50, 52, 56, 57, 97, 122}
TEXT = st.text(st.characters(min_codepoint=32, max_codepoint=255), min_size=1, max_size=20)
TAG = st.integers(1, 12_000).filter(lambda tag: tag not in HEADER_AND_FRAME_TAGS and tag not in DATA_LENGTH_TAGS)
BODY = st.lists(st.tuples(TAG, TEXT), max_size=12, unique_by=lambda pair: pair[0])
NOW = Now(datetime(2026, 8, 3, 9, 30, tzinfo=UTC), 0.0)


def written(body: list[tuple[int, str]], sequence: int = 1) -> bytes:
    return frame("FIX.4.4", "D", sequence=sequence, sender="A", target="B", sending_time="t", body=encode_body(body))


@given(BODY)
def test_round_trip(body: list[tuple[int, str]]) -> None:
    message = parse(written(body))
    assert message.fields[5:] == sorted(body)


@given(st.lists(BODY, max_size=4), st.lists(st.integers(0, 400), max_size=6))
def test_any_slicing_gives_the_same_messages(bodies: list[list[tuple[int, str]]], cuts: list[int]) -> None:
    data = b"".join(written(body) for body in bodies)
    reader = MessageReader()
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    items = [item for start, end in pairwise(edges) for item in reader.feed(data[start:end])]
    assert [item.fields[5:] for item in items if isinstance(item, Message)] == [sorted(body) for body in bodies]
    assert len(items) == len(bodies)


def active_session() -> tuple[Session, MessageReader]:
    session = Session(SessionConfig(Role.ACCEPTOR, "B", "A", frozenset({"D"})), Sequences())
    session.connect(NOW)
    logon = frame(
        "FIX.4.4", "A", sequence=1, sender="A", target="B", sending_time=fieldtypes.format_timestamp(NOW.utc), body=b"98=0\x01108=30\x01"
    )
    reader = MessageReader()
    session.receive(reader.feed(logon), NOW)
    assert session.sequences == Sequences(2, 2)
    return session, reader


NEARLY_FIX = st.lists(
    st.sampled_from(
        [b"8=FIX.4.4\x01", b"9=5\x01", b"9=12\x01", b"35=0\x01", b"35=D\x01", b"34=2\x01", b"10=000\x01", b"10=1", b"8=", b"\x01", b"="]
    )
    | st.binary(max_size=12),
    max_size=20,
).map(b"".join)


@given(st.lists(NEARLY_FIX, max_size=6))
@settings(max_examples=300)
def test_garbage_never_raises_and_never_moves_the_number(chunks: list[bytes]) -> None:
    session, reader = active_session()
    for chunk in chunks:
        step = session.receive(reader.feed(chunk), NOW)
        assert step.delivered == []
    assert session.sequences.next_in == 2
    assert reader.buffered <= sum(map(len, chunks))


@given(st.data())
def test_a_damaged_message_is_not_taken_for_another(data: st.DataObject) -> None:
    session, reader = active_session()
    good = frame(
        "FIX.4.4",
        "D",
        sequence=2,
        sender="A",
        target="B",
        sending_time=fieldtypes.format_timestamp(NOW.utc),
        body=encode_body([(11, "x"), (38, "1"), (40, "1"), (54, "1"), (55, "AAPL"), (60, "20260803-09:30:00.000")]),
    )
    position = data.draw(st.integers(0, len(good) - 1))
    byte = data.draw(st.integers(0, 255).filter(lambda value: value != good[position]))
    damaged = good[:position] + bytes([byte]) + good[position + 1 :]
    step = session.receive(reader.feed(damaged), NOW)
    assert step.delivered == []
    assert session.sequences.next_in == 2


@given(
    st.decimals(allow_nan=False, allow_infinity=False, places=18, min_value=Decimal("-1e19"), max_value=Decimal("1e19")), st.integers(0, 3)
)
def test_decimals_round_trip_in_any_spelling(value: Decimal, zeros: int) -> None:
    canonical = format_decimal(value)
    sign, digits = ("-", canonical[1:]) if canonical.startswith("-") else ("", canonical)
    spelling = f"{sign}{'0' * zeros}{digits}"
    assert fieldtypes.parse_decimal(spelling) == value
    assert format_decimal(fieldtypes.parse_decimal(spelling)) == canonical


@given(st.integers(0, 4_102_444_800_000))
def test_timestamps_round_trip_to_the_millisecond(milliseconds: int) -> None:
    value = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=milliseconds)
    assert fieldtypes.parse_timestamp(fieldtypes.format_timestamp(value)) == value
