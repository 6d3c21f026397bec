"""Frames: the JSON texts of a socket, client's to commands and answers to text."""

from __future__ import annotations

import json

from google.protobuf import json_format
from google.protobuf.message import Message
from google.rpc import status_pb2

from kernel.errors import FieldViolation, InternalError, InvalidArgumentError, Reason, TrademeshError
from kernel.logs import quote
from kernel.status import to_status
from svc_gateway.codec.strict_json import parse_object
from svc_gateway.domain.protocol import CALL_ID_LENGTH_MAX, Call, Cancel, is_call_id

METHOD_LENGTH_MAX = 256


class FrameError(Exception):
    """A frame that names its call and is wrong otherwise; only that call is refused."""

    def __init__(self, call_id: str, error: TrademeshError) -> None:
        super().__init__(str(error))
        self.call_id = call_id
        self.error = error


def parse_frame(text: str) -> Call | Cancel:
    """Read `{"id", "method", "request"}` or `{"id", "cancel": true}`.

    Raises:
        InvalidArgumentError: not JSON, or without a usable `id`, so that nobody can be told which call it was.
        FrameError: anything else.
    """
    members = parse_object(text)
    call_id = members.get("id")
    if not isinstance(call_id, str) or not is_call_id(call_id):
        raise _invalid("id", f"must be a string of 1 to {CALL_ID_LENGTH_MAX} visible ASCII characters")
    try:
        return _parse_members(call_id, members)
    except InvalidArgumentError as error:
        raise FrameError(call_id, error) from None


def _parse_members(call_id: str, members: dict[str, object]) -> Call | Cancel:
    names = {"id", "cancel"} if "cancel" in members else {"id", "method", "request"}
    for name in members:
        if name not in names:
            raise _invalid(name[:64], f"is not a member of a frame with {', '.join(sorted(names))}", Reason.FIELD_UNKNOWN)
    if "cancel" in members:
        if members["cancel"] is not True:
            raise _invalid("cancel", "must be true")
        return Cancel(call_id)
    method, request = members.get("method"), members.get("request", {})
    if not isinstance(method, str) or not 0 < len(method) <= METHOD_LENGTH_MAX:
        raise _invalid("method", "must be a string such as trademesh.oms.v1.OrderService/StreamOrderEvents")
    if not isinstance(request, dict):
        raise _invalid("request", "must be an object")
    return Call(call_id, method, request)


def _invalid(field: str, description: str, reason: Reason = Reason.FIELD_INVALID) -> InvalidArgumentError:
    violation = FieldViolation(field, "field.known" if reason is Reason.FIELD_UNKNOWN else "json.type", description)
    return InvalidArgumentError(reason, f"{field}: {description}", field_violations=(violation,))


def to_json(message: Message) -> str:
    """Return a message in the proto3 JSON mapping as the edge writes it: names as in the contract, fields without presence always there.

    Raises:
        InternalError: it holds a detail of a type that this gateway does not know.
    """
    try:
        members = json_format.MessageToDict(message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
        return json.dumps(members, ensure_ascii=False, separators=(",", ":"))
    except (TypeError, ValueError) as error:
        raise InternalError(Reason.INTERNAL, "the answer cannot be written as JSON") from error


def message_frame(call_id: str, message: Message) -> str:
    """Return `{"id", "message"}`."""
    return f'{{"id":{quote(call_id)},"message":{to_json(message)}}}'


def end_frame(call_id: str, status: status_pb2.Status) -> str:
    """Return `{"id", "end": {"status"}}`, the last frame of a call."""
    return f'{{"id":{quote(call_id)},"end":{{"status":{status_json(status)}}}}}'


def error_frame(error: TrademeshError) -> str:
    """Return `{"error"}`, the answer to a frame that names no call; the socket closes after it."""
    return f'{{"error":{status_json(to_status(error))}}}'


def status_json(status: status_pb2.Status) -> str:
    """Return a Status as JSON; details whose types are not known here are left out, the code and the words stay."""
    try:
        return to_json(status)
    except InternalError:
        return to_json(status_pb2.Status(code=status.code, message=status.message))
