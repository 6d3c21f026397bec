"""Messages and packets against the specifications' offsets, byte by byte: both ends share the codec, so nothing else would notice."""

import pytest

from kernel.itch import codec, messages, soupbintcp, venue
from kernel.itch.errors import MalformedError
from kernel.itch.glimpse import SnapshotError, SnapshotReader, decode_end, encode_end
from kernel.itch.moldudp64 import (
    Packet,
    Request,
    decode_packet,
    decode_request,
    encode_end_of_session,
    encode_heartbeat,
    encode_packet,
    encode_request,
)
from kernel.itch.soupbintcp import LoginAccepted, LoginRefusal, LoginRequest, PacketReader, PacketType

HEAD = (1, 2, 0x0102_0304_0506)
HEAD_BYTES = bytes.fromhex("0001 0002 010203040506")

BYTES = [
    (messages.SystemEvent(*HEAD, "O"), b"S" + HEAD_BYTES + b"O"),
    (
        messages.StockDirectory(*HEAD, "AAPL", "Q", "N", 100, "N", "C", "Z", "P", "N", "N", "1", "N", 0, "N"),
        b"R" + HEAD_BYTES + b"AAPL    QN" + bytes.fromhex("00000064") + b"NCZ PNN1N" + bytes(4) + b"N",
    ),
    (messages.StockTradingAction(*HEAD, "AAPL", "T", "", "MWC1"), b"H" + HEAD_BYTES + b"AAPL    T MWC1"),
    (messages.RegShoRestriction(*HEAD, "AAPL", "1"), b"Y" + HEAD_BYTES + b"AAPL    1"),
    (messages.MarketParticipantPosition(*HEAD, "ABCD", "AAPL", "Y", "N", "A"), b"L" + HEAD_BYTES + b"ABCDAAPL    YNA"),
    (
        messages.AddOrder(*HEAD, 258, "B", 100, "AAPL", 2_325_600),
        b"A" + HEAD_BYTES + bytes.fromhex("0000000000000102") + b"B" + bytes.fromhex("00000064") + b"AAPL    " + bytes.fromhex("00237c60"),
    ),
    (
        messages.AddOrderAttributed(*HEAD, 258, "S", 100, "AAPL", 1, "ABCD"),
        b"F" + HEAD_BYTES + bytes.fromhex("0000000000000102") + b"S" + bytes.fromhex("00000064") + b"AAPL    " + bytes.fromhex("00000001")
        + b"ABCD",
    ),
    (messages.OrderExecuted(*HEAD, 258, 5, 7), b"E" + HEAD_BYTES + bytes.fromhex("0000000000000102 00000005 0000000000000007")),
    (
        messages.OrderExecutedWithPrice(*HEAD, 258, 5, 7, "Y", 9),
        b"C" + HEAD_BYTES + bytes.fromhex("0000000000000102 00000005 0000000000000007") + b"Y" + bytes.fromhex("00000009"),
    ),
    (messages.OrderCancel(*HEAD, 258, 5), b"X" + HEAD_BYTES + bytes.fromhex("0000000000000102 00000005")),
    (messages.OrderDelete(*HEAD, 258), b"D" + HEAD_BYTES + bytes.fromhex("0000000000000102")),
    (
        messages.OrderReplace(*HEAD, 258, 259, 5, 9),
        b"U" + HEAD_BYTES + bytes.fromhex("0000000000000102 0000000000000103 00000005 00000009"),
    ),
    (
        messages.Trade(*HEAD, 0, "B", 5, "AAPL", 9, 7),
        b"P" + HEAD_BYTES + bytes(8) + b"B" + bytes.fromhex("00000005") + b"AAPL    " + bytes.fromhex("00000009 0000000000000007"),
    ),
    (
        messages.CrossTrade(*HEAD, 5, "AAPL", 9, 7, "C"),
        b"Q" + HEAD_BYTES + bytes.fromhex("0000000000000005") + b"AAPL    " + bytes.fromhex("00000009 0000000000000007") + b"C",
    ),
    (messages.BrokenTrade(*HEAD, 7), b"B" + HEAD_BYTES + bytes.fromhex("0000000000000007")),
    (
        messages.AddOrder(*HEAD, 258, "B", 2**32, "BTC-USD", 9),
        b"a" + HEAD_BYTES + bytes.fromhex("0000000000000102") + b"B" + bytes.fromhex("0000000100000000") + b"BTC-USD "
        + bytes.fromhex("00000009"),
    ),
    (messages.OrderExecuted(*HEAD, 258, 2**32, 7), b"e" + HEAD_BYTES + bytes.fromhex("0000000000000102 0000000100000000 0000000000000007")),
    (venue.TradingDay(*HEAD, "AAPL", 20261122, 20261121, 9), b"y" + HEAD_BYTES + b"AAPL    " + bytes.fromhex("01352902 01352901 00000009")),
]  # fmt: skip


@pytest.mark.parametrize(("message", "data"), BYTES, ids=[data[:1].decode() for _, data in BYTES])
def test_offsets_are_the_specifications(message: codec.ItchMessage, data: bytes) -> None:
    assert codec.encode(message) == data
    assert codec.decode(data) == message


def test_sizes_are_the_specifications() -> None:
    for layout in codec.LAYOUTS:
        assert codec.ITCH_SIZES.get(layout.letter, layout.size) == layout.size


@pytest.mark.parametrize("letter", [letter for letter in codec.ITCH_SIZES if letter not in {layout.letter for layout in codec.LAYOUTS}])
def test_types_without_a_class_are_passed_over_by_their_size(letter: str) -> None:
    assert codec.decode(letter.encode() + bytes(codec.ITCH_SIZES[letter] - 1)) is None
    with pytest.raises(MalformedError, match=f"itch {letter}"):
        codec.decode(letter.encode() + bytes(codec.ITCH_SIZES[letter]))


@pytest.mark.parametrize(
    ("data", "subject"),
    [
        (b"", "itch message"),
        (b"?short", "itch message"),
        (BYTES[5][1][:-1], "itch A"),
        (BYTES[5][1].replace(b"B", b"Z", 1), "itch A.side"),
        (BYTES[5][1].replace(b"AAPL", b"\xffAPL"), "itch A.stock"),
    ],
)
def test_what_is_wrong_is_named(data: bytes, subject: str) -> None:
    with pytest.raises(MalformedError) as refused:
        codec.decode(data)
    assert refused.value.subject == subject


def test_dates() -> None:
    assert venue.date_number("2026-11-22") == 20_261_122
    assert venue.iso_date(20_261_122) == "2026-11-22"
    assert venue.date_number("") == 0
    assert venue.iso_date(0) == ""
    with pytest.raises(MalformedError):
        venue.iso_date(20_261_322)


def test_moldudp64_packets() -> None:
    head = b"2611220001" + bytes.fromhex("000000000000002a")
    assert encode_packet("2611220001", 42, [b"ab", b"c"]) == head + bytes.fromhex("0002 0002") + b"ab" + bytes.fromhex("0001") + b"c"
    assert encode_heartbeat("2611220001", 42) == head + bytes(2)
    assert encode_end_of_session("2611220001", 42) == head + b"\xff\xff"
    assert encode_request(Request("2611220001", 42, 3)) == head + bytes.fromhex("0003")
    assert decode_packet(head + bytes(2)) == Packet("2611220001", 42, ())
    assert decode_packet(head + b"\xff\xff") == Packet("2611220001", 42, (), True)


@pytest.mark.parametrize(
    ("data", "subject"),
    [
        (bytes(19), "moldudp64 header"),
        (b"2611220001" + bytes(8) + b"\x00\x01", "moldudp64 sequence"),
        (b"2611220001" + b"\xff" * 8 + b"\x00\x01\x00\x01a", "moldudp64 sequence"),
        (b"2611220001" + bytes(7) + b"\x01\x00\x02\x00\x01a", "moldudp64 block 1"),
        (b"2611220001" + bytes(7) + b"\x01\x00\x01\x00\x00", "moldudp64 block 0"),
        (b"2611220001" + bytes(7) + b"\x01\x00\x01\x00\x01ab", "moldudp64 packet"),
        (b"2611220001" + bytes(7) + b"\x01\x00\x00a", "moldudp64 packet"),
        (b"261122000\xff" + bytes(10), "moldudp64 session"),
    ],
)
def test_what_is_wrong_with_a_packet_is_named(data: bytes, subject: str) -> None:
    with pytest.raises(MalformedError) as refused:
        decode_packet(data)
    assert refused.value.subject == subject


def test_a_request_for_nothing_is_refused() -> None:
    for count in (b"\x00\x00", b"\xff\xff"):
        with pytest.raises(MalformedError, match="count"):
            decode_request(b"2611220001" + bytes(8) + count)


def test_soupbintcp_packets() -> None:
    login = b"\x00\x2fLalpha secret              " + b" " * 6 + b" " * 13 + b"1"
    assert len(soupbintcp.encode_login(LoginRequest("alpha", "secret"))) == 2 + 1 + 46
    assert soupbintcp.encode_login(LoginRequest("alpha", "secret"))[:14] == login[:14]
    assert soupbintcp.encode_accepted(LoginAccepted("2611220001", 7)) == b"\x00\x1fA2611220001" + b"7".rjust(20)
    assert soupbintcp.encode_refusal(LoginRefusal.SESSION_NOT_AVAILABLE) == b"\x00\x02JS"
    assert soupbintcp.encode(PacketType.SERVER_HEARTBEAT) == b"\x00\x01H"


@pytest.mark.parametrize("data", [b"\x00\x00", b"\x00\x01?"])
def test_a_stream_that_is_none_is_refused(data: bytes) -> None:
    with pytest.raises(MalformedError):
        PacketReader().feed(data)


def test_a_snapshot_is_read() -> None:
    reader = SnapshotReader()
    stream = soupbintcp.encode_accepted(LoginAccepted("2611220001", 1))
    stream += soupbintcp.encode(PacketType.SEQUENCED_DATA, b"one") + soupbintcp.encode(PacketType.SERVER_HEARTBEAT)
    assert reader.feed(stream) is None
    snapshot = reader.feed(soupbintcp.encode(PacketType.SEQUENCED_DATA, encode_end(4711)))
    assert snapshot == ("2611220001", 4711, (b"one",))
    assert encode_end(4711) == b"G" + b"4711".rjust(20)
    assert decode_end(encode_end(4711)) == 4711


@pytest.mark.parametrize(
    ("stream", "message"),
    [
        (soupbintcp.encode_refusal(LoginRefusal.NOT_AUTHORISED), "NOT_AUTHORISED"),
        (soupbintcp.encode(PacketType.END_OF_SESSION), "ended"),
        (soupbintcp.encode(PacketType.SEQUENCED_DATA, b"x"), "before the login"),
    ],
)
def test_a_snapshot_that_does_not_come(stream: bytes, message: str) -> None:
    with pytest.raises(SnapshotError, match=message):
        SnapshotReader().feed(stream)


def test_a_snapshot_beyond_its_bound() -> None:
    reader = SnapshotReader(messages_max=1)
    reader.feed(soupbintcp.encode_accepted(LoginAccepted("S", 1)) + soupbintcp.encode(PacketType.SEQUENCED_DATA, b"one"))
    with pytest.raises(SnapshotError, match="more than 1"):
        reader.feed(soupbintcp.encode(PacketType.SEQUENCED_DATA, b"two"))
