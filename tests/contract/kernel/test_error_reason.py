"""`Reason` and the proto enum are one list in two places."""

from kernel.errors import Reason
from trademesh.error.v1 import error_reason_pb2

PREFIX = "ERROR_REASON_"


def test_reasons_equal_the_contract() -> None:
    declared = {name.removeprefix(PREFIX) for name in error_reason_pb2.ErrorReason.DESCRIPTOR.values_by_name} - {"UNSPECIFIED"}
    assert {reason.name for reason in Reason} == declared
    assert all(reason.value == reason.name for reason in Reason)
