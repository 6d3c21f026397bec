from __future__ import annotations

import copy

import pytest

from kernel.errors import FieldViolation, InvalidArgumentError, LeaseLostError, Reason, ResourceExhaustedError, StaleVersionError


def test_errors_carry_reason_and_details() -> None:
    violation = FieldViolation("quantity", "quantity.positive", "must be above zero")
    error = InvalidArgumentError(Reason.FIELD_INVALID, "bad", field_violations=[violation], metadata={"a": "b"})
    assert (error.reason, error.field_violations, error.metadata, str(error)) == (Reason.FIELD_INVALID, (violation,), {"a": "b"}, "bad")
    assert repr(error) == "InvalidArgumentError(FIELD_INVALID, 'bad')"


def test_retry_hints_are_not_negative() -> None:
    with pytest.raises(ValueError, match="retry_after_seconds"):
        ResourceExhaustedError(Reason.OVERLOADED, "busy", retry_after_seconds=-1)


def test_copies_are_equal_and_without_traceback() -> None:
    for error in (StaleVersionError("order-1", 3, 4), LeaseLostError("fix", 2), ResourceExhaustedError(Reason.OVERLOADED, "busy")):
        try:
            raise error
        except type(error) as caught:
            duplicate = copy.copy(caught)
        assert type(duplicate) is type(error)
        assert duplicate.__dict__ == error.__dict__
        assert str(duplicate) == str(error)
        assert duplicate.__traceback__ is None
