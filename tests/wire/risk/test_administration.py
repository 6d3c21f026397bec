"""Limits, kill switches, accounts and instruments over real gRPC: rights, keys, versions, pages."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from kernel.identity import User
from kernel.postgres import Connection
from svc_risk.consumer.kill_switches import KillSwitchTeller
from tests.integration.risk.audit import audit
from tests.integration.risk.world import buy
from tests.wire.risk.serving import ADMIN, FIRM_ADMIN, FIRM_OFFICER, OFFICER, TRADER, Risk
from tests.wire.serving import RefusedError, key, user
from trademesh.risk.v1 import kill_switch_pb2, limit_pb2, reference_data_pb2
from trademesh.risk.v1 import reference_data_service_pb2 as reference
from trademesh.risk.v1 import risk_service_pb2 as pb
from trademesh.type.v1 import event_log_service_pb2
from trademesh.type.v1.log_position_pb2 import LogPosition

SOUTHERN_ADMIN = user("admin", tenant="south", accounts=("ACC-1",))


def limit(value: str = "5000", scope_id: str = "ACC-1", **changes: Any) -> pb.UpdateLimitRequest:
    fields: dict[str, Any] = {"scope": 1, "scope_id": scope_id, "type": 2, "value": value, "request_id": key(), "comment": "a reason"}
    return pb.UpdateLimitRequest(**{**fields, **changes})


async def refusal(risk: Risk, method: str, request: Any, caller: User | None, **more: Any) -> tuple[str, str]:
    with pytest.raises(RefusedError) as refused:
        await risk.call(method, request, caller, **more)
    assert refused.value.reason is not None
    return refused.value.code.name, refused.value.reason.value


async def test_a_limit_is_set_once_per_key_with_versions_and_history(risk: Risk, sql: Connection) -> None:
    request = limit("5000.50")
    first = await risk.call("RiskService/UpdateLimit", request, OFFICER)
    assert (first.limit.value, first.limit.version, first.limit.etag, first.limit.principal) == ("5000.5", 1, "v1", "ada")
    again = await risk.call("RiskService/UpdateLimit", limit("5000.5", request_id=request.request_id.upper()), OFFICER)
    assert again == first
    assert risk.initial_metadata["idempotency-replayed"] == "true"
    assert await refusal(risk, "RiskService/UpdateLimit", limit("6", request_id=request.request_id), OFFICER) == (
        "ALREADY_EXISTS",
        "IDEMPOTENCY_KEY_REUSED",
    )
    assert await refusal(risk, "RiskService/UpdateLimit", limit("6", etag="v7"), OFFICER) == ("ABORTED", "VERSION_STALE")
    second = await risk.call("RiskService/UpdateLimit", limit("6000", etag="v1"), OFFICER)
    assert second.limit.version == 2
    await risk.stores.checks.decide([buy("59"), buy("61")])
    state = await risk.call(
        "RiskService/GetRiskState", pb.GetRiskStateRequest(account_id="ACC-1", min_position=second.log_position), TRADER
    )
    assert {item.type: item.value for item in state.limits}[limit_pb2.LIMIT_TYPE_MAX_NOTIONAL] == "6000"
    assert (state.open_buy_notional, state.gross_exposure, state.reservation_count) == ("5900", "5900", 1)
    history = await risk.call("RiskService/ListExposureChanges", pb.ListExposureChangesRequest(account_id="ACC-1", page_size=3), TRADER)
    names = ["OrderRefused", "ExposureReserved", "LimitUpdated", "LimitUpdated"]
    assert [change.type for change in history.changes] == [f"risk.v1.{name}" for name in names[:3]]
    rest = await risk.call(
        "RiskService/ListExposureChanges", pb.ListExposureChangesRequest(account_id="ACC-1", page_token=history.next_page_token), TRADER
    )
    assert [change.version for change in rest.changes] == [1]
    assert rest.next_page_token == ""
    await audit(sql)


@pytest.mark.parametrize(
    ("request_", "caller", "expected"),
    [
        (limit(), TRADER, ("PERMISSION_DENIED", "ROLE_REQUIRED")),
        (limit(), user("risk-officer", tenant="south", accounts=("ACC-1",)), ("PERMISSION_DENIED", "ACCOUNT_NOT_ALLOWED")),
        (limit(scope_id="ACC-404"), OFFICER, ("PERMISSION_DENIED", "ACCOUNT_NOT_ALLOWED")),
        (limit(scope_id="*"), OFFICER, ("PERMISSION_DENIED", "ROLE_REQUIRED")),
        (limit(scope=3, scope_id="AAPL"), OFFICER, ("PERMISSION_DENIED", "ROLE_REQUIRED")),
        (limit(scope=2, scope_id="bob"), OFFICER, ("PERMISSION_DENIED", "ROLE_REQUIRED")),
        (limit(scope=3, scope_id="NONE"), FIRM_OFFICER, ("NOT_FOUND", "INSTRUMENT_NOT_FOUND")),
        (limit(scope=2, scope_id="bob", type=5), FIRM_OFFICER, ("INVALID_ARGUMENT", "FIELD_INVALID")),
        (limit("-1"), OFFICER, ("INVALID_ARGUMENT", "FIELD_INVALID")),
        (limit("-0"), OFFICER, ("INVALID_ARGUMENT", "FIELD_INVALID")),
        (limit("NaN"), OFFICER, ("INVALID_ARGUMENT", "FIELD_INVALID")),
        (limit(comment=""), OFFICER, ("INVALID_ARGUMENT", "FIELD_INVALID")),
        (limit(request_id="x"), OFFICER, ("INVALID_ARGUMENT", "FIELD_INVALID")),
        (limit(), None, ("UNAUTHENTICATED", "USER_UNAUTHENTICATED")),
    ],
)
async def test_who_may_set_which_limit(risk: Risk, request_: Any, caller: User | None, expected: tuple[str, str]) -> None:
    assert await refusal(risk, "RiskService/UpdateLimit", request_, caller) == expected


async def test_limits_are_listed_in_pages_as_far_as_one_may_see(risk: Risk) -> None:
    for request, caller in [
        (limit(), OFFICER),
        (limit(scope_id="ACC-2"), OFFICER),
        (limit(scope=2, scope_id="bob"), FIRM_OFFICER),
        (limit(scope=2, scope_id="ada"), FIRM_OFFICER),
    ]:
        await risk.call("RiskService/UpdateLimit", request, caller)

    async def names(caller: User, **fields: Any) -> list[str]:
        found, token = [], ""
        while True:
            page = await risk.call("RiskService/ListLimits", pb.ListLimitsRequest(page_size=2, page_token=token, **fields), caller)
            found += [item.scope_id for item in page.limits]
            token = page.next_page_token
            if not token:
                return found

    defaults = ["*"] * 4
    assert await names(TRADER) == [*defaults, "ACC-1", "ada", *["*"] * 3]
    assert await names(OFFICER, scope=1) == [*defaults, "ACC-1", "ACC-2"]
    assert await names(FIRM_OFFICER, scope=2) == ["ada", "bob"]
    assert await names(TRADER, scope_id="bob") == []
    page = await risk.call("RiskService/ListLimits", pb.ListLimitsRequest(page_size=2), TRADER)
    for bad in (pb.ListLimitsRequest(page_token="forged"), pb.ListLimitsRequest(page_token=page.next_page_token, scope_id="ACC-1")):
        assert await refusal(risk, "RiskService/ListLimits", bad, TRADER) == ("INVALID_ARGUMENT", "PAGE_TOKEN_INVALID")


@pytest.mark.parametrize(
    ("account_id", "caller", "expected"),
    [
        ("ACC-2", TRADER, "ACCOUNT_NOT_ALLOWED"),
        ("ACC-404", TRADER, "ACCOUNT_NOT_ALLOWED"),
        ("ACC-1", user("trader", tenant="south"), "ACCOUNT_NOT_ALLOWED"),
        ("ACC-1", user("guest"), "ROLE_REQUIRED"),
        ("ACC-404", OFFICER, "ACCOUNT_NOT_ALLOWED"),
    ],
)
async def test_foreign_and_unknown_accounts_are_refused_alike(risk: Risk, account_id: str, caller: User, expected: str) -> None:
    for method, request in [
        ("RiskService/GetRiskState", pb.GetRiskStateRequest(account_id=account_id)),
        ("RiskService/ListExposureChanges", pb.ListExposureChangesRequest(account_id=account_id)),
        ("ReferenceDataService/GetAccount", reference.GetAccountRequest(account_id=account_id)),
    ]:
        assert await refusal(risk, method, request, caller) == ("PERMISSION_DENIED", expected)


async def test_a_position_that_the_log_has_not_reached_is_waited_for_by_the_caller(risk: Risk) -> None:
    ahead = pb.GetRiskStateRequest(account_id="ACC-1", min_position=LogPosition(tx=1 << 40, position=1))
    assert await refusal(risk, "RiskService/GetRiskState", ahead, TRADER) == ("UNAVAILABLE", "DEPENDENCY_UNAVAILABLE")


def activate(scope: int = 2, scope_id: str = "ACC-1", **changes: Any) -> pb.ActivateKillSwitchRequest:
    return pb.ActivateKillSwitchRequest(**{"scope": scope, "scope_id": scope_id, "comment": "stop", "request_id": key(), **changes})


def release(scope: int = 2, scope_id: str = "ACC-1") -> pb.ReleaseKillSwitchRequest:
    return pb.ReleaseKillSwitchRequest(scope=scope, scope_id=scope_id, comment="go on", request_id=key())  # type: ignore[arg-type]  # a number


async def test_a_kill_switch_stops_at_once_and_is_told_before_the_answer(risk: Risk) -> None:
    request = activate()
    first = await risk.call("RiskService/ActivateKillSwitch", request, OFFICER)
    assert (first.kill_switch.status, first.kill_switch.version) == (kill_switch_pb2.KILL_SWITCH_STATUS_ACTIVE, 2)
    assert risk.orders.told == [("ACC-1", "PENDING", 1)]
    assert await risk.call("RiskService/ActivateKillSwitch", request, OFFICER) == first
    assert len(risk.orders.told) == 1, "a replay tells nobody"
    answers = await risk.stores.checks.decide([buy("1"), buy("1", account="ACC-2")])
    assert [answer.result.WhichOneof("outcome") for answer in answers] == ["refusal", "approval"]
    released = await risk.call("RiskService/ReleaseKillSwitch", release(), OFFICER)
    assert (released.kill_switch.status, released.kill_switch.comment) == (kill_switch_pb2.KILL_SWITCH_STATUS_RELEASED, "go on")
    assert (await risk.stores.checks.decide([buy("1")]))[0].result.HasField("approval")
    listed = await risk.call("RiskService/ListKillSwitches", pb.ListKillSwitchesRequest(active_only=True), TRADER)
    assert list(listed.kill_switches) == []


async def test_a_kill_switch_that_is_being_told_is_not_told_in_the_background_too(risk: Risk) -> None:
    """Each telling cancels all that is open: with many orders the second one would double the work at the worst moment."""
    teller = KillSwitchTeller(risk.stores.administration, risk.orders)
    risk.orders.answers.clear()
    activating = asyncio.create_task(risk.call("RiskService/ActivateKillSwitch", activate(cancel_open_orders=True), OFFICER))
    async with asyncio.timeout(10):
        while not risk.orders.told:
            await asyncio.sleep(0.005)
    assert await teller.tell_pending() == 0
    risk.orders.answers.set()
    assert (await activating).kill_switch.status == kill_switch_pb2.KILL_SWITCH_STATUS_ACTIVE
    assert await teller.tell_pending() == 0
    assert risk.orders.told == [("ACC-1", "PENDING", 1)]


async def test_a_kill_switch_that_svc_oms_could_not_be_told_is_pending_until_it_was(risk: Risk) -> None:
    risk.orders.reachable = False
    request = activate(1, "*", cancel_open_orders=True)
    first = await risk.call("RiskService/ActivateKillSwitch", request, FIRM_OFFICER)
    assert first.kill_switch.status == kill_switch_pb2.KILL_SWITCH_STATUS_PENDING
    assert (await risk.stores.checks.decide([buy("1")]))[0].result.HasField("refusal"), "risk refuses at once"
    teller = KillSwitchTeller(risk.stores.administration, risk.orders)
    risk.orders.reachable = True
    assert [await teller.tell_pending() for _ in range(3)] == [0, 1, 0]
    listed = await risk.call("RiskService/ListKillSwitches", pb.ListKillSwitchesRequest(active_only=True), TRADER)
    assert [item.status for item in listed.kill_switches] == [kill_switch_pb2.KILL_SWITCH_STATUS_ACTIVE]
    assert (await risk.call("RiskService/ActivateKillSwitch", request, FIRM_OFFICER)) == first, "a replay gives the first answer"
    risk.orders.reachable = False
    released = await risk.call("RiskService/ReleaseKillSwitch", release(1, "*"), FIRM_OFFICER)
    assert released.kill_switch.status == kill_switch_pb2.KILL_SWITCH_STATUS_RELEASE_PENDING
    assert (await risk.stores.checks.decide([buy("1")]))[0].result.HasField("refusal"), "nothing is sent yet, so nothing is approved"
    risk.orders.reachable = True
    assert [await teller.tell_pending() for _ in range(3)] == [0, 1, 0], "a release is another change"
    assert (await risk.stores.checks.decide([buy("1")]))[0].result.HasField("approval")


@pytest.mark.parametrize(
    ("request_", "caller", "expected"),
    [
        (activate(), TRADER, ("PERMISSION_DENIED", "ROLE_REQUIRED")),
        (activate(scope_id="ACC-404"), OFFICER, ("PERMISSION_DENIED", "ACCOUNT_NOT_ALLOWED")),
        (activate(), user("risk-officer", tenant="south", accounts=("ACC-1",)), ("PERMISSION_DENIED", "ACCOUNT_NOT_ALLOWED")),
        (activate(1, "*"), OFFICER, ("PERMISSION_DENIED", "ROLE_REQUIRED")),
        (activate(4, "AAPL"), OFFICER, ("PERMISSION_DENIED", "ROLE_REQUIRED")),
        (activate(3, "bob"), OFFICER, ("PERMISSION_DENIED", "ROLE_REQUIRED")),
        (activate(5, "south"), OFFICER, ("PERMISSION_DENIED", "ROLE_REQUIRED")),
        (activate(1, "everything"), FIRM_OFFICER, ("INVALID_ARGUMENT", "FIELD_INVALID")),
        (activate(0), FIRM_OFFICER, ("INVALID_ARGUMENT", "FIELD_INVALID")),
        (activate(comment=""), OFFICER, ("INVALID_ARGUMENT", "FIELD_INVALID")),
    ],
)
async def test_who_may_stop_what(risk: Risk, request_: Any, caller: User, expected: tuple[str, str]) -> None:
    assert await refusal(risk, "RiskService/ActivateKillSwitch", request_, caller) == expected
    assert risk.orders.told == []


async def test_one_s_own_tenant_can_be_stopped_and_only_what_was_set_released(risk: Risk) -> None:
    await risk.call("RiskService/ActivateKillSwitch", activate(5, "north"), OFFICER)
    assert await refusal(risk, "RiskService/ReleaseKillSwitch", release(1, "*"), FIRM_OFFICER) == ("NOT_FOUND", "KILL_SWITCH_NOT_FOUND")
    for number in range(3):
        await risk.call("RiskService/ActivateKillSwitch", activate(4, f"I-{number}"), FIRM_OFFICER)
    page = await risk.call("RiskService/ListKillSwitches", pb.ListKillSwitchesRequest(page_size=3), TRADER)
    assert [item.scope_id for item in page.kill_switches] == ["I-2", "I-1", "I-0"]
    rest = await risk.call("RiskService/ListKillSwitches", pb.ListKillSwitchesRequest(page_size=3, page_token=page.next_page_token), TRADER)
    assert [item.scope_id for item in rest.kill_switches] == ["north"]
    seen = await risk.call("RiskService/ListKillSwitches", pb.ListKillSwitchesRequest(), user("viewer", tenant="south"))
    assert [item.scope_id for item in seen.kill_switches] == ["I-2", "I-1", "I-0"]


def new_account(account_id: str = "ACC-7", **changes: Any) -> reference.CreateAccountRequest:
    return reference.CreateAccountRequest(
        **{"account_id": account_id, "display_name": "Seven", "currency": "USD", "request_id": key(), **changes}
    )


async def test_an_account_is_created_traded_and_closed(risk: Risk, sql: Connection) -> None:
    request = new_account()
    created = await risk.call("ReferenceDataService/CreateAccount", request, ADMIN)
    assert (created.account.tenant, created.account.version) == ("north", 1)
    assert await risk.call("ReferenceDataService/CreateAccount", request, ADMIN) == created
    assert await refusal(risk, "ReferenceDataService/CreateAccount", new_account(), SOUTHERN_ADMIN) == ("ALREADY_EXISTS", "RESOURCE_EXISTS")
    assert (await risk.stores.checks.decide([buy("1", account="ACC-7")]))[0].result.HasField("approval")

    def update(**changes: Any) -> reference.UpdateAccountRequest:
        return reference.UpdateAccountRequest(**{"account_id": "ACC-7", "request_id": key(), **changes})

    closing = update(status=reference_data_pb2.ACCOUNT_STATUS_CLOSED, update_mask={"paths": ["status"]}, etag="v1")
    assert await refusal(risk, "ReferenceDataService/UpdateAccount", closing, SOUTHERN_ADMIN) == (
        "PERMISSION_DENIED",
        "ACCOUNT_NOT_ALLOWED",
    )
    closed = await risk.call("ReferenceDataService/UpdateAccount", closing, ADMIN)
    assert (closed.account.display_name, closed.account.version) == ("Seven", 2)
    refused: list[tuple[dict[str, Any], tuple[str, str]]] = [
        ({"status": 1, "update_mask": {"paths": ["status"]}}, ("FAILED_PRECONDITION", "ACCOUNT_NOT_ACTIVE")),
        ({"status": 2, "update_mask": {"paths": ["status"]}, "etag": "v1"}, ("ABORTED", "VERSION_STALE")),
        ({"update_mask": {"paths": []}}, ("INVALID_ARGUMENT", "UPDATE_MASK_INVALID")),
        ({"update_mask": {"paths": ["tenant"]}}, ("INVALID_ARGUMENT", "UPDATE_MASK_INVALID")),
        ({"update_mask": {"paths": ["status"]}}, ("INVALID_ARGUMENT", "FIELD_INVALID")),
        ({"update_mask": {"paths": ["display_name"]}}, ("INVALID_ARGUMENT", "FIELD_INVALID")),
    ]
    for changes, expected in refused:
        assert await refusal(risk, "ReferenceDataService/UpdateAccount", update(**changes), ADMIN) == expected, changes
    answer = (await risk.stores.checks.decide([buy("1", account="ACC-7")]))[0].result
    assert [breach.scope for breach in answer.refusal.breaches] == ["account/ACC-7"]
    listed = await risk.call("ReferenceDataService/ListAccounts", reference.ListAccountsRequest(page_size=2), ADMIN)
    assert [account.account_id for account in listed.accounts] == ["ACC-1", "ACC-2"]
    rest = await risk.call(
        "ReferenceDataService/ListAccounts", reference.ListAccountsRequest(page_size=2, page_token=listed.next_page_token), ADMIN
    )
    assert [account.account_id for account in rest.accounts] == ["ACC-7"]
    own = await risk.call("ReferenceDataService/ListAccounts", reference.ListAccountsRequest(), TRADER)
    assert [account.account_id for account in own.accounts] == ["ACC-1"]
    await audit(sql)


def new_instrument(**changes: Any) -> reference.CreateInstrumentRequest:
    fields: dict[str, Any] = {
        "instrument_id": "ETH-USD",
        "display_name": "Ether",
        "asset_class": 2,
        "currency": "USD",
        "tick_size": "0.010",
        "lot_size": "0.00000001",
        "venue": "XSIM",
        "calendar": {"time_zone": "America/New_York", "open_time": "09:30", "close_time": "16:00", "holidays": ["2026-12-25"]},
        "request_id": key(),
    }
    return reference.CreateInstrumentRequest(**{**fields, **changes})


async def test_an_instrument_is_created_and_suspended(risk: Risk) -> None:
    request = new_instrument()
    created = await risk.call("ReferenceDataService/CreateInstrument", request, FIRM_ADMIN)
    assert (created.instrument.tick_size, created.instrument.calendar.close_time) == ("0.01", "16:00")
    again = await risk.call(
        "ReferenceDataService/CreateInstrument", new_instrument(tick_size="0.01", request_id=request.request_id), FIRM_ADMIN
    )
    assert again == created
    update = reference.UpdateInstrumentRequest(
        instrument_id="ETH-USD",
        status=reference_data_pb2.INSTRUMENT_STATUS_SUSPENDED,
        calendar=reference_data_pb2.TradingCalendar(time_zone="UTC"),
        update_mask=FieldMask(paths=["status", "calendar"]),
        request_id=key(),
    )
    await risk.call("ReferenceDataService/UpdateInstrument", update, FIRM_ADMIN)
    found = await risk.call("ReferenceDataService/GetInstrument", reference.GetInstrumentRequest(instrument_id="ETH-USD"), TRADER)
    assert (found.instrument.status, found.instrument.calendar.open_time, found.instrument.version) == (2, "", 2)
    listed = await risk.call("ReferenceDataService/ListInstruments", reference.ListInstrumentsRequest(), TRADER)
    assert [item.instrument_id for item in listed.instruments] == ["AAPL", "ETH-USD", "MSFT"]


@pytest.mark.parametrize(
    ("request_", "caller", "expected"),
    [
        (new_instrument(), ADMIN, ("PERMISSION_DENIED", "ROLE_REQUIRED")),
        (new_instrument(), FIRM_OFFICER, ("PERMISSION_DENIED", "ROLE_REQUIRED")),
        (new_instrument(calendar={"time_zone": "Mars/Olympus"}), FIRM_ADMIN, ("INVALID_ARGUMENT", "FIELD_INVALID")),
        (new_instrument(tick_size="0"), FIRM_ADMIN, ("INVALID_ARGUMENT", "FIELD_INVALID")),
        (new_instrument(tick_size="0.000000000001"), FIRM_ADMIN, ("INVALID_ARGUMENT", "FIELD_INVALID")),
        (new_instrument(instrument_id="AAPL"), FIRM_ADMIN, ("ALREADY_EXISTS", "RESOURCE_EXISTS")),
    ],
)
async def test_which_instruments_are_refused(risk: Risk, request_: Any, caller: User, expected: tuple[str, str]) -> None:
    assert await refusal(risk, "ReferenceDataService/CreateInstrument", request_, caller) == expected
    missing = reference.GetInstrumentRequest(instrument_id="NONE")
    assert await refusal(risk, "ReferenceDataService/GetInstrument", missing, TRADER) == ("NOT_FOUND", "INSTRUMENT_NOT_FOUND")


async def test_the_log_tells_other_services_of_every_change(risk: Risk) -> None:
    await risk.call("ReferenceDataService/CreateAccount", new_account(), ADMIN)
    await risk.call("RiskService/UpdateLimit", limit("90", "*", scope=2, type=7), FIRM_OFFICER)
    await risk.call("RiskService/ActivateKillSwitch", activate(), OFFICER)
    await risk.stores.checks.decide([buy("1", account="ACC-2")])
    page = await risk.call("EventLogService/ReadEvents", event_log_service_pb2.ReadEventsRequest(), peer="svc-portfolio")
    assert [(event.stream_id, event.type) for event in page.events] == [
        ("account-ACC-7", "risk.v1.AccountCreated"),
        ("limit-trader-*-message_rate", "risk.v1.LimitUpdated"),
        ("kill-account-ACC-1", "risk.v1.KillSwitchChanged"),
        ("kill-account-ACC-1", "risk.v1.KillSwitchChanged"),
        ("exposure-ACC-2", "risk.v1.ExposureReserved"),
    ]
    assert await refusal(risk, "EventLogService/ReadEvents", event_log_service_pb2.ReadEventsRequest(), TRADER, peer="edge") == (
        "PERMISSION_DENIED",
        "PEER_NOT_ALLOWED",
    )
