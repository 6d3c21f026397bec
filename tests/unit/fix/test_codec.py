"""Framing, encoding and field types."""

from datetime import UTC, date, datetime
from decimal import Decimal

import pytest

from kernel.fix import fieldtypes
from kernel.fix.codec import GarbledError, MessageReader, checksum, encode_body, frame, parse
from kernel.fix.message import FieldError, Garbled, Message
from tests.unit.fix.conversation import at, raw

NOW = at(0)


def text_of(item: Message | Garbled) -> str:
    return item.reason if isinstance(item, Garbled) else item.msg_type


def test_a_known_message() -> None:
    data = frame("FIX.4.4", "0", sequence=2, sender="A", target="B", sending_time="20260803-09:30:00.000", body=b"")
    assert data == b"8=FIX.4.4\x019=45\x0135=0\x0134=2\x0149=A\x0152=20260803-09:30:00.000\x0156=B\x0110=074\x01"
    assert parse(data).fields == [(35, "0"), (34, "2"), (49, "A"), (52, "20260803-09:30:00.000"), (56, "B")]


@pytest.mark.parametrize("size", [0, 1, 255, 256, 257, 512, 100_000])
def test_checksum_is_the_sum_of_all_bytes(size: int) -> None:
    data = bytes(255 - index % 3 for index in range(size))
    assert checksum(data) == sum(data) % 256


def test_header_fields_are_in_ascending_order() -> None:
    data = frame(
        "FIX.4.4",
        "D",
        sequence=7,
        sender="A",
        target="B",
        sending_time="t",
        body=b"11=x\x01",
        orig_sending_time="u",
        poss_resend=True,
        sender_sub_id="s",
        target_sub_id="v",
    )
    assert [tag for tag, _ in parse(data).fields] == [35, 34, 43, 49, 50, 52, 56, 57, 97, 122, 11]


def test_a_group_stays_whole_at_its_place() -> None:
    body = encode_body([(60, "t"), (453, [[(448, "P"), (447, "D")], [(448, "Q"), (452, "3")]]), (11, "x")])
    assert body == b"11=x\x0160=t\x01453=2\x01448=P\x01447=D\x01448=Q\x01452=3\x01"
    message = parse(frame("FIX.4.4", "D", sequence=1, sender="A", target="B", sending_time="t", body=body))
    assert message.duplicates
    assert message.group(453, frozenset({448, 447, 452})) == [{448: "P", 447: "D"}, {448: "Q", 452: "3"}]
    assert message.get(448) == "P"


@pytest.mark.parametrize("value", ["", "a\x01b", "a\x0110=000"])
def test_values_that_could_not_be_read_back_are_refused(value: str) -> None:
    with pytest.raises(ValueError, match="value"):
        encode_body([(11, "ok"), (58, value)])


def test_a_value_may_end_with_an_equals_sign() -> None:
    assert encode_body([(58, "a=")]) == b"58=a=\x01"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"8=FIX.4.4\x01",
        b"9=5\x018=FIX.4.4\x0135=0\x0110=000\x01",
        raw("35=0|34=1", now=NOW)[:-1],
        raw("35=0|34=1", now=NOW) + b"x",
        raw("34=1|35=0", now=NOW),
        raw("35=|34=1", now=NOW),
        raw("35=0|x=1", now=NOW),
        raw("35=0|1.5=1", now=NOW),
        raw("35=0|34", now=NOW),
        raw("35=0|" + "|".join(["58=x"] * 3000), now=NOW),
    ],
)
def test_garbled(data: bytes) -> None:
    with pytest.raises(GarbledError):
        parse(data)


def test_reader_takes_any_slice() -> None:
    data = raw("35=0|34=1|58=ä", now=NOW) + raw("35=1|34=2|112=x", now=NOW)
    for size in range(1, len(data)):
        reader = MessageReader()
        items = [item for start in range(0, len(data), size) for item in reader.feed(data[start : start + size])]
        assert [text_of(item) for item in items] == ["0", "1"]
        assert reader.buffered == 0


def test_reader_goes_on_after_garbage() -> None:
    good = raw("35=0|34=1", now=NOW)
    reader = MessageReader()
    assert [text_of(item) for item in reader.feed(b"\r\nGET / HTTP/1.1\x01" + good + good)] == ["no message header", "0", "0"]


def test_reader_bounds_a_message_and_holds_nothing_of_one_that_is_too_long() -> None:
    reader = MessageReader(message_bytes_max=100)
    (item,) = reader.feed(b"8=FIX.4.4\x019=101\x0135=0\x01")
    assert isinstance(item, Garbled)
    assert reader.buffered <= 1
    assert [text_of(item) for item in reader.feed(b"\x01" + raw("35=0|34=1", now=NOW))][-1] == "0"


def test_reader_does_not_hold_garbage() -> None:
    reader = MessageReader()
    for _ in range(100):
        reader.feed(b"x" * 1000)
    assert reader.buffered <= 32


def test_a_data_field_may_hold_the_delimiter() -> None:
    message = parse(raw("35=A|34=1|95=7|96=a|b=c|d|108=30", now=NOW))
    assert message.get(96) == "a\x01b=c\x01d"
    assert message.get(108) == "30"
    with pytest.raises(GarbledError):
        parse(raw("35=A|34=1|95=99|96=a|b", now=NOW))


def test_message_reads_typed_fields() -> None:
    message = parse(raw("35=8|34=1|38=0100.500|44=x|75=20260803|60=20260803-09:30:01.5|141=Y|98=7", now=NOW))
    assert message.decimal(38) == Decimal("100.5")
    assert message.decimal(31) is None
    assert message.date(75) == date(2026, 8, 3)
    assert message.boolean(141)
    assert not message.boolean(43)
    assert message.integer(98) == 7
    for read, tag in ((message.decimal, 44), (message.timestamp, 60), (message.integer, 44), (message.boolean, 44), (message.date, 44)):
        with pytest.raises(FieldError) as caught:
            read(tag)
        assert (caught.value.tag, caught.value.reason) == (tag, 6)
    with pytest.raises(FieldError) as caught:
        message.require(11)
    assert (caught.value.tag, caught.value.reason) == (11, 1)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", "1"),
        ("1.", "1"),
        (".5", "0.5"),
        ("-.5", "-0.5"),
        ("00023.230", "23.23"),
        ("-0", "0"),
        ("-0.00", "0"),
        ("0", "0"),
        ("100", "100"),
    ],
)
def test_decimals_in_every_fix_spelling(text: str, value: str) -> None:
    parsed = fieldtypes.parse_decimal(text)
    assert str(parsed) == value


@pytest.mark.parametrize("text", ["", ".", "-", "+1", "1e3", "NaN", "Infinity", " 1", "1,0", "1.2.3", "١", "1" * 21, "0." + "0" * 18 + "1"])
def test_decimals_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"float|digits"):
        fieldtypes.parse_decimal(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("20260803-09:30:00", datetime(2026, 8, 3, 9, 30, tzinfo=UTC)),
        ("20260803-09:30:00.123", datetime(2026, 8, 3, 9, 30, 0, 123000, tzinfo=UTC)),
        ("20260803-09:30:00.123456", datetime(2026, 8, 3, 9, 30, 0, 123456, tzinfo=UTC)),
        ("20260803-09:30:00.123456789", datetime(2026, 8, 3, 9, 30, 0, 123456, tzinfo=UTC)),
        ("20161231-23:59:60", datetime(2017, 1, 1, tzinfo=UTC)),
    ],
)
def test_timestamps(text: str, value: datetime) -> None:
    assert fieldtypes.parse_timestamp(text) == value


@pytest.mark.parametrize(
    "text", ["", "20260803", "20260803-24:00:00", "20260231-00:00:00", "20260803-09:30:00.", "20260803-09:30:00.1", "20260803 09:30:00"]
)
def test_timestamps_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"UTCTimestamp|must be|range"):
        fieldtypes.parse_timestamp(text)


def test_timestamps_are_written_in_utc_with_milliseconds() -> None:
    value = datetime(2026, 8, 3, 9, 30, 0, 123999, tzinfo=UTC)
    assert fieldtypes.format_timestamp(value) == "20260803-09:30:00.123"
    with pytest.raises(ValueError, match="zone"):
        fieldtypes.format_timestamp(value.replace(tzinfo=None))
