"""Checks and their answers on the wire."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from decimal import Decimal
from functools import lru_cache

from google.rpc import error_details_pb2

from kernel.errors import Reason
from kernel.event_records import position_bytes
from kernel.ports import LogPosition
from kernel.wire import Serialized, message_field
from svc_risk.codec.amounts import canonical, text
from svc_risk.domain.check import Approval, Breach, FirstAnswer, Invalidity, OrderCheck, Outcome, Refusal, Undecided
from svc_risk.domain.vocabulary import CheckKind, OrderType, Side, TimeInForce
from trademesh.error.v1 import error_reason_pb2
from trademesh.risk.v1 import limit_pb2, pre_trade_service_pb2

TRADER_ROLE = "trader"

REASON_NUMBERS: dict[Reason, error_reason_pb2.ErrorReason.ValueType] = {
    reason: error_reason_pb2.ErrorReason.Value(f"ERROR_REASON_{reason.value}") for reason in Reason
}
"""The contract's number of each reason."""

_KINDS = {int(kind): kind for kind in CheckKind}
_SIDES = {int(side): side for side in Side}
_TYPES = {int(order_type): order_type for order_type in OrderType}
_TIMES = {int(time_in_force): time_in_force for time_in_force in TimeInForce}


_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}").fullmatch
_ACCOUNT_ID = re.compile(r"[A-Z0-9][A-Z0-9-]{0,31}").fullmatch
_INSTRUMENT_ID = re.compile(r"[A-Z0-9][A-Z0-9.-]{0,31}").fullmatch
_DECIMAL = re.compile(r"(?:0|[1-9][0-9]{0,19})(?:\.[0-9]{1,18})?").fullmatch
_HASH_BYTES, _PRINCIPAL_LENGTH_MAX, _TENANT_LENGTH_MAX, _ROLES_MAX, _ROLE_LENGTH_MAX = 32, 128, 64, 16, 32


def read_plain_check(message: pre_trade_service_pb2.OrderCheck) -> OrderCheck | None:
    """Return the check in a plain message, which obeys the contract's rules for certain; None for any other, of which they have to decide.

    It reads a message in half the time that the rules alone take. It may only ever be stricter; a property test holds it to that.
    """
    order_id, request_id, payload_hash, user = message.order_id, message.request_id, message.payload_hash, message.user
    principal, tenant, account_id, instrument_id = user.principal, user.tenant, message.account_id, message.instrument_id
    may_trade = _may_trade(tuple(user.roles))
    kind, side, order_type = _KINDS.get(message.kind), _SIDES.get(message.side), _TYPES.get(message.type)
    time_in_force, quantity_text = _TIMES.get(message.time_in_force), message.quantity
    price_text = message.limit_price if message.HasField("limit_price") else None
    if (
        kind is None
        or side is None
        or order_type is None
        or time_in_force is None
        or may_trade is None
        or _UUID(order_id) is None
        or (request_id != order_id and _UUID(request_id) is None)
        or len(payload_hash) != _HASH_BYTES
        or not 0 < len(principal) <= _PRINCIPAL_LENGTH_MAX
        or not 0 < len(tenant) <= _TENANT_LENGTH_MAX
        or _ACCOUNT_ID(account_id) is None
        or _INSTRUMENT_ID(instrument_id) is None
        or _DECIMAL(quantity_text) is None
        or (price_text is not None and _DECIMAL(price_text) is None)
        or not message.HasField("receive_time")
    ):
        return None
    quantity_text = canonical(quantity_text)
    quantity, limit_price = Decimal(quantity_text), None
    if price_text is None:
        price_text = ""
    else:
        price_text = canonical(price_text)
        limit_price = Decimal(price_text)
        if not limit_price:
            return None
    if not quantity:
        return None
    key = _key(account_id, instrument_id, side, quantity_text, price_text)
    return OrderCheck(
        kind, order_id, request_id, payload_hash, principal, tenant, may_trade, account_id, instrument_id, side, order_type, time_in_force,
        quantity, limit_price, key,
    )  # fmt: skip


@lru_cache(maxsize=1_024)
def _may_trade(roles: tuple[str, ...]) -> bool | None:
    """Whether these roles make a trader; None where they are too many or too long."""
    if len(roles) > _ROLES_MAX or not all(0 < len(role) <= _ROLE_LENGTH_MAX for role in roles):
        return None
    return TRADER_ROLE in roles


def read_check(message: pre_trade_service_pb2.OrderCheck) -> OrderCheck:
    """Return the check in a message whose form the contract's rules have accepted."""
    user, quantity = message.user, Decimal(message.quantity)
    limit_price = Decimal(message.limit_price) if message.HasField("limit_price") else None
    account_id, instrument_id, side = message.account_id, message.instrument_id, message.side
    return OrderCheck(
        _KINDS[message.kind],
        message.order_id.lower(),
        message.request_id.lower(),
        message.payload_hash,
        user.principal,
        user.tenant,
        TRADER_ROLE in user.roles,
        account_id,
        instrument_id,
        _SIDES[side],
        _TYPES[message.type],
        _TIMES[message.time_in_force],
        quantity,
        limit_price,
        duplicate_key(account_id, instrument_id, side, quantity, limit_price),
    )


def duplicate_key(account_id: str, instrument_id: str, side: int, quantity: Decimal, limit_price: Decimal | None) -> int:
    """Return 64 bits that stand for an order's terms. Equal numbers give equal keys, however they were written."""
    return _key(account_id, instrument_id, side, text(quantity), "" if limit_price is None else text(limit_price))


def _key(account_id: str, instrument_id: str, side: int, quantity: str, price: str) -> int:
    terms = f"{account_id}\0{instrument_id}\0{side:d}\0{quantity}\0{price}"
    return int.from_bytes(hashlib.blake2b(terms.encode(), digest_size=8).digest(), "big", signed=True)


def check_response(results: Iterable[bytes], position: LogPosition | None) -> Serialized:
    """Return a `CheckOrdersResponse` put together from results that were encoded for the record."""
    parts = [message_field(_RESULTS, result) for result in results]
    if position is not None:
        parts.append(message_field(_LOG_POSITION, position_bytes(position)))
    return Serialized(b"".join(parts))


_RESULTS = pre_trade_service_pb2.CheckOrdersResponse.RESULTS_FIELD_NUMBER
_LOG_POSITION = pre_trade_service_pb2.CheckOrdersResponse.LOG_POSITION_FIELD_NUMBER


class ResultWriter:
    """Encodes answers. Approvals are many, so one message serves them all, each setting all its fields."""

    def __init__(self) -> None:
        self._message = pre_trade_service_pb2.OrderCheckResult()

    def write(self, request_id: str, outcome: Outcome) -> bytes:
        """Return the answer to one check, encoded."""
        if isinstance(outcome, Approval):
            self._message.request_id = request_id
            _fill(self._message.approval, outcome)
            return self._message.SerializeToString()
        return outcome.answer if isinstance(outcome, FirstAnswer) else write_result(request_id, outcome).SerializeToString()


def _fill(message: pre_trade_service_pb2.OrderApproval, approval: Approval) -> None:
    """Set every field of the message."""
    message.reserved_notional = text(approval.held.notional)
    message.reference_price = text(approval.reference)
    message.venue = approval.venue
    message.tenant = approval.tenant


def respell(result: bytes, request_id: str) -> bytes:
    """Return an encoded answer with the caller's own spelling of its id."""
    message = pre_trade_service_pb2.OrderCheckResult.FromString(result)
    message.request_id = request_id
    return message.SerializeToString()


def write_result(request_id: str, outcome: Outcome) -> pre_trade_service_pb2.OrderCheckResult:
    """Return the answer to one check."""
    match outcome:
        case Approval():
            result = pre_trade_service_pb2.OrderCheckResult(request_id=request_id)
            _fill(result.approval, outcome)
            return result
        case Refusal():
            refusal = pre_trade_service_pb2.OrderRefusal(
                breaches=[write_breach(breach) for breach in outcome.breaches], tenant=outcome.tenant, venue=outcome.venue
            )
            return pre_trade_service_pb2.OrderCheckResult(request_id=request_id, refusal=refusal)
        case Invalidity():
            return pre_trade_service_pb2.OrderCheckResult(request_id=request_id, invalidity=_invalidity(outcome))
        case Undecided():
            undecided = pre_trade_service_pb2.OrderUndecided(reason=REASON_NUMBERS[outcome.reason], text=outcome.text)
            return pre_trade_service_pb2.OrderCheckResult(request_id=request_id, undecided=undecided)
        case FirstAnswer():
            return pre_trade_service_pb2.OrderCheckResult.FromString(outcome.answer)


def write_breach(breach: Breach) -> limit_pb2.LimitBreach:
    """Return a breach on the wire."""
    return limit_pb2.LimitBreach(
        reason=REASON_NUMBERS[breach.reason], scope=breach.scope, limit=breach.limit, actual=breach.actual, text=breach.text[:256]
    )


def _invalidity(outcome: Invalidity) -> pre_trade_service_pb2.OrderInvalidity:
    fields = [
        error_details_pb2.BadRequest.FieldViolation(field=violation.field, reason=violation.rule, description=violation.description)
        for violation in outcome.violations
    ]
    return pre_trade_service_pb2.OrderInvalidity(
        reason=REASON_NUMBERS[outcome.reason],
        bad_request=error_details_pb2.BadRequest(field_violations=fields) if fields else None,
        text=outcome.text,
    )
