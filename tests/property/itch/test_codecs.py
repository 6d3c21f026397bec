"""Messages, packets and streams survive the wire; whatever else comes is refused by one typed error."""

import contextlib
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel.itch import codec, soupbintcp
from kernel.itch.errors import MalformedError
from kernel.itch.glimpse import SnapshotError, SnapshotReader
from kernel.itch.layout import Field
from kernel.itch.moldudp64 import MESSAGES_MAX, Request, decode_packet, decode_request, encode_packet, encode_request, split
from kernel.itch.soupbintcp import LoginAccepted, LoginRequest, PacketReader, PacketType

PRINTABLE = st.characters(min_codepoint=32, max_codepoint=126)
HEADER = (st.integers(0, 2**16 - 1), st.integers(0, 2**16 - 1), st.integers(0, 2**48 - 1))


def padded(size: int) -> st.SearchStrategy[str]:
    return st.text(PRINTABLE, max_size=size).map(lambda value: value.rstrip(" "))


def values_of(field: Field) -> st.SearchStrategy[Any]:
    if field.choices:
        return st.sampled_from(field.choices)
    return padded(field.size) if field.is_text else st.integers(0, 2 ** (8 * field.size) - 1)


MESSAGES = st.sampled_from((*codec.LAYOUTS, *codec.WIDE_LAYOUTS)).flatmap(
    lambda layout: st.tuples(*HEADER, *map(values_of, layout.fields)).map(lambda values: layout.message_class(*values))
)
BLOCKS = st.lists(st.binary(min_size=1, max_size=80), max_size=40)
SESSION = padded(10)


@given(MESSAGES)
def test_a_message_survives(message: codec.ItchMessage) -> None:
    data = codec.encode(message)

    assert len(data) == codec.MESSAGE_SIZES[chr(data[0])]
    assert codec.decode(data) == message


@given(MESSAGES, st.data())
def test_a_field_that_does_not_fit_is_named(message: codec.ItchMessage, data: st.DataObject) -> None:
    position = data.draw(st.integers(0, len(message) - 1))
    wrong = "Ω" if isinstance(message[position], str) else 2**64
    values: list[Any] = list(message)
    values[position] = wrong
    name = type(message)._fields[position]

    with pytest.raises(MalformedError) as refused:
        codec.encode(type(message)(*values))
    assert refused.value.subject.endswith(f".{name}")


LETTERS = st.sampled_from([letter.encode() for letter in codec.MESSAGE_SIZES])
BYTES = st.one_of(st.binary(max_size=60), st.builds(bytes.__add__, LETTERS, st.binary(max_size=120)))
DECODERS = (codec.decode, decode_packet, decode_request, soupbintcp.decode_login, soupbintcp.decode_accepted, soupbintcp.decode_refusal)


@given(BYTES, st.sampled_from(DECODERS))
def test_no_bytes_make_a_decoder_raise_anything_else(data: bytes, decode: Callable[[bytes], object]) -> None:
    with contextlib.suppress(MalformedError):
        decode(data)


@given(MESSAGES, st.data())
def test_a_damaged_message_is_refused_or_read_as_what_it_then_is(message: codec.ItchMessage, data: st.DataObject) -> None:
    encoded = bytearray(codec.encode(message))
    encoded[data.draw(st.integers(0, len(encoded) - 1))] = data.draw(st.integers(0, 255))

    try:
        read = codec.decode(bytes(encoded))
    except MalformedError:
        return
    assert read is None or len(codec.encode(read)) == len(encoded)


@given(SESSION, st.integers(1, 2**60), BLOCKS)
def test_a_packet_survives(session: str, sequence: int, blocks: list[bytes]) -> None:
    packet = decode_packet(encode_packet(session, sequence, blocks))

    assert (packet.session, packet.sequence, list(packet.messages)) == (session, sequence, blocks)
    assert packet.next_sequence == sequence + len(blocks)


@given(SESSION, st.integers(1, 2**60), BLOCKS.filter(bool), st.data())
def test_a_packet_that_was_cut_is_refused(session: str, sequence: int, blocks: list[bytes], data: st.DataObject) -> None:
    whole = encode_packet(session, sequence, blocks)
    cut = whole[: data.draw(st.integers(0, len(whole) - 1))]

    for wrong in (cut, whole + b"\0"):
        try:
            decode_packet(wrong)
        except MalformedError:
            continue
        raise AssertionError("a packet of another length was read")


@given(st.builds(Request, SESSION, st.integers(0, 2**64 - 1), st.integers(1, MESSAGES_MAX)))
def test_a_request_survives(request: Request) -> None:
    assert decode_request(encode_request(request)) == request


@given(BLOCKS, st.integers(120, 1_400))
def test_messages_are_split_into_packets_that_fit(blocks: list[bytes], payload_bytes_max: int) -> None:
    runs = list(split(blocks, payload_bytes_max))

    assert [block for run in runs for block in run] == blocks
    assert all(len(encode_packet("S", 1, run)) <= payload_bytes_max for run in runs)


@given(st.lists(st.tuples(st.sampled_from(PacketType), st.binary(max_size=60)), max_size=20), st.integers(1, 50))
def test_a_stream_of_soupbintcp_survives_any_cutting(packets: list[tuple[PacketType, bytes]], step: int) -> None:
    stream = b"".join(soupbintcp.encode(*packet) for packet in packets)
    reader = PacketReader()

    read = [packet for begin in range(0, len(stream), step) for packet in reader.feed(stream[begin : begin + step])]

    assert read == packets


def unspaced(size: int) -> st.SearchStrategy[str]:
    return padded(size).map(str.strip)


@given(st.builds(LoginRequest, unspaced(6), unspaced(10), unspaced(10), st.integers(0, 10**20 - 1)))
def test_a_login_survives(login: LoginRequest) -> None:
    (packet,) = PacketReader().feed(soupbintcp.encode_login(login))

    assert soupbintcp.decode_login(packet.payload) == login


@given(st.builds(LoginAccepted, unspaced(10), st.integers(0, 10**20 - 1)))
def test_an_acceptance_survives(accepted: LoginAccepted) -> None:
    (packet,) = PacketReader().feed(soupbintcp.encode_accepted(accepted))

    assert soupbintcp.decode_accepted(packet.payload) == accepted


@given(st.lists(st.binary(max_size=60), max_size=20))
def test_a_snapshot_reader_refuses_anything_by_its_own_errors(parts: list[bytes]) -> None:
    reader = SnapshotReader()
    try:
        for part in parts:
            reader.feed(part)
    except (MalformedError, SnapshotError):
        pass
