"""Checks and their answers on the wire."""

from __future__ import annotations

import hashlib
from decimal import Decimal

from google.rpc import error_details_pb2

from kernel.errors import Reason
from svc_risk.codec.amounts import text
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
    price = "" if limit_price is None else text(limit_price)
    terms = f"{account_id}\0{instrument_id}\0{side}\0{text(quantity)}\0{price}"
    return int.from_bytes(hashlib.blake2b(terms.encode(), digest_size=8).digest(), "big", signed=True)


def write_result(request_id: str, outcome: Outcome) -> pre_trade_service_pb2.OrderCheckResult:
    """Return the answer to one check."""
    match outcome:
        case Approval():
            approval = pre_trade_service_pb2.OrderApproval(
                reserved_notional=text(outcome.held.notional),
                reference_price=text(outcome.reference),
                venue=outcome.venue,
                tenant=outcome.tenant,
            )
            return pre_trade_service_pb2.OrderCheckResult(request_id=request_id, approval=approval)
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
