"""svc_risk's accounts and instruments, as far as positions need them."""

from __future__ import annotations

from kernel.ports import RecordedEvent
from trademesh.risk.v1 import events_pb2, reference_data_pb2


def read_account(event: RecordedEvent) -> reference_data_pb2.Account | None:
    """Return the account that an event tells of, None for other events.

    Raises:
        google.protobuf.message.DecodeError: it is not what its type says.
    """
    match event.type:
        case "risk.v1.AccountCreated":
            return events_pb2.AccountCreated.FromString(event.payload).account
        case "risk.v1.AccountUpdated":
            return events_pb2.AccountUpdated.FromString(event.payload).account
        case _:
            return None


def read_instrument(event: RecordedEvent) -> reference_data_pb2.Instrument | None:
    """Return the instrument that an event tells of, None for other events.

    Raises:
        google.protobuf.message.DecodeError: it is not what its type says.
    """
    match event.type:
        case "risk.v1.InstrumentCreated":
            return events_pb2.InstrumentCreated.FromString(event.payload).instrument
        case "risk.v1.InstrumentUpdated":
            return events_pb2.InstrumentUpdated.FromString(event.payload).instrument
        case _:
            return None
