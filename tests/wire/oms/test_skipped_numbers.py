"""A venue that leaves out numbers for good: fills among them are found by asking how its orders stand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from kernel.fix import tags
from kernel.fix.message import Message
from kernel.fix.steps import AppMessage
from mesh.local.provision import ServiceDatabase
from svc_oms.config import Venue as VenueConfig
from tests.integration.oms.world import order_request
from tests.wire.fix.parts import Venue
from tests.wire.oms.caller import Caller, headers
from tests.wire.oms.conftest import config_of, running
from tests.wire.oms.fake_risk import FakeRiskServer
from tests.wire.oms.test_venue import order_in, until
from trademesh.oms.v1 import events_pb2, order_pb2
from trademesh.type.v1 import event_log_service_pb2


def report(identity: str, exec_type: str, status: str, filled: str, *more: tuple[int, str]) -> AppMessage:
    body = [(6, "0"), (11, identity), (14, filled), (17, "0" if exec_type == "I" else f"E-{identity}"), (37, f"V-{identity}"), (39, status)]
    return AppMessage("8", [*body, (54, "1"), (55, "AAPL"), (60, "20260803-09:30:00.000"), (150, exec_type), (151, "0"), *more])


class ForgetfulVenue(Venue):
    """Acknowledges orders. Of the first it then counts four filled, the second is filled: it has told nobody of either."""

    def __init__(self) -> None:
        super().__init__()
        self.orders: list[str] = []
        self.hangs_up = False
        self.answer = self._answer

    def _answer(self, message: Message) -> Sequence[AppMessage]:
        identity = message.get(11) or ""
        if message.msg_type == tags.NEW_ORDER_SINGLE:
            self.orders.append(identity)
            return [report(identity, "0", "0", "0")]
        if message.msg_type == tags.ORDER_MASS_STATUS_REQUEST and self.hangs_up:
            self.hangs_up = False
            self.disconnect()
            return []
        if message.msg_type == tags.ORDER_MASS_STATUS_REQUEST:
            return [report(self.orders[0], "I", "1", "4", (584, message.require(584)), (911, "1"), (912, "Y"))]
        return [report(identity, "I", "2", "10")]

    def asked(self, msg_type: str) -> list[str]:
        return [message.get(11) or "" for message in self.requests if message.msg_type == msg_type]


async def anomalies(oms: Caller) -> dict[str, list[str]]:
    """The anomalies of each stream."""
    page = await oms.log.ReadEvents(event_log_service_pb2.ReadEventsRequest(), metadata=headers(None, "svc-risk"))
    found: dict[str, list[str]] = {}
    for event in page.events:
        if event.type == "oms.v1.AnomalyRecorded":
            found.setdefault(event.stream_id, []).append(events_pb2.AnomalyRecorded.FromString(event.payload).text)
    return found


@pytest.mark.parametrize("hangs_up", [False, True])
async def test_fills_among_skipped_numbers_are_found(
    migrated: ServiceDatabase, sockets: Path, risk_server: FakeRiskServer, *, hangs_up: bool
) -> None:
    venue = ForgetfulVenue()
    venue.hangs_up = hangs_up
    async with venue.serving():
        session = VenueConfig("XSIM", "127.0.0.1", venue.port, "TM", "XSIM", heartbeat_seconds=1)
        async with running(config_of("svc_oms-0", migrated, sockets, risk_server), (session,)) as oms:
            partly = (await oms.create(order_request(quantity="10"))).order.order_id
            await order_in(oms, partly, order_pb2.ORDER_STATE_NEW)
            filled = (await oms.create(order_request(quantity="10"))).order.order_id
            await order_in(oms, filled, order_pb2.ORDER_STATE_NEW)
            assert await anomalies(oms) == {}
            venue.skip(2)
            found = await until(lambda: anomalies(oms), lambda found: len(found) == 3)
            (skipped,) = found["session-XSIM"]
            assert skipped.startswith("messages are lost: the peer skipped ")
            assert found[f"order-{partly}"] == ["STATUS: the venue counts 4 filled, our fills sum to 0"]
            assert found[f"order-{filled}"] == ["STATUS: the venue counts 10 filled, our fills sum to 0"]
            assert venue.asked(tags.ORDER_STATUS_REQUEST) == [filled], "the mass status had told of the other one"
