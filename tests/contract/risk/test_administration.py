"""Accounts, instruments, limits, kill switches: once per request id, listed page by page. The same of PostgreSQL and of its double."""

from __future__ import annotations

import asyncio

import pytest

from kernel.errors import AbortedError, AlreadyExistsError, FailedPreconditionError, NotFoundError, Reason, UnavailableError
from kernel.ports import LogPosition
from svc_risk.consumer.kill_switches import KillSwitchTeller
from svc_risk.domain.vocabulary import AccountStatus, KillSwitchStatus, LimitScope, LimitType
from tests.contract.risk.conftest import Orders, Pair
from tests.contract.risk.test_decisions import decide
from tests.integration.risk.world import buy
from trademesh.risk.v1 import kill_switch_pb2, limit_pb2, reference_data_service_pb2, risk_service_pb2

ACCOUNT = kill_switch_pb2.KILL_SWITCH_SCOPE_ACCOUNT


def stop(scope_id: str = "ACC-1", request_id: str = "") -> risk_service_pb2.ActivateKillSwitchRequest:
    return risk_service_pb2.ActivateKillSwitchRequest(scope=ACCOUNT, scope_id=scope_id, comment="stop", request_id=request_id)


async def test_a_request_id_makes_one_change_whoever_asks_at_once(pair: Pair) -> None:
    request = reference_data_service_pb2.CreateAccountRequest(
        account_id="ACC-3", display_name="three", currency="USD", request_id=pair.one.ids.new_id()
    )
    answers = await asyncio.gather(*(replica.ask(replica.reference.CreateAccount, request) for replica in (pair.one, pair.other) * 3))
    assert all(answer == answers[0] for answer in answers)
    request.display_name = "another"
    with pytest.raises(AlreadyExistsError) as caught:
        await pair.other.ask(pair.other.reference.CreateAccount, request)
    assert caught.value.reason is Reason.IDEMPOTENCY_KEY_REUSED
    assert len(await pair.one.stores.log.read_stream("account-ACC-3")) == 1


async def test_a_change_needs_the_version_that_it_names(pair: Pair) -> None:
    def update(etag: str, status: AccountStatus) -> reference_data_service_pb2.UpdateAccountRequest:
        request = reference_data_service_pb2.UpdateAccountRequest(account_id="ACC-1", etag=etag)
        request.status = status.value  # type: ignore[assignment]
        request.update_mask.paths.append("status")
        return request

    await pair.one.ask(pair.one.reference.UpdateAccount, update("v1", AccountStatus.SUSPENDED))
    with pytest.raises(AbortedError):
        await pair.other.ask(pair.other.reference.UpdateAccount, update("v1", AccountStatus.ACTIVE))
    assert await decide(pair.other, buy("1")) == ["ACCOUNT_NOT_ACTIVE"]
    await pair.other.ask(pair.other.reference.UpdateAccount, update("v2", AccountStatus.CLOSED))
    with pytest.raises(FailedPreconditionError):
        await pair.one.ask(pair.one.reference.UpdateAccount, update("", AccountStatus.ACTIVE))


async def test_lists_come_page_by_page(pair: Pair) -> None:
    for number in range(3, 8):
        request = reference_data_service_pb2.CreateAccountRequest(account_id=f"ACC-{number}", display_name="a name", currency="USD")
        await pair.one.ask(pair.one.reference.CreateAccount, request)
    names: list[str] = []
    token = ""
    while True:
        page = await pair.other.ask(
            pair.other.reference.ListAccounts, reference_data_service_pb2.ListAccountsRequest(page_size=3, page_token=token)
        )
        names += [account.account_id for account in page.accounts]
        token = page.next_page_token
        if not token:
            break
    assert names == [f"ACC-{number}" for number in range(1, 8)]
    instruments = await pair.other.ask(pair.other.reference.ListInstruments, reference_data_service_pb2.ListInstrumentsRequest())
    assert [instrument.instrument_id for instrument in instruments.instruments] == ["AAPL", "MSFT"]
    await pair.one.limit(LimitScope.ACCOUNT, "ACC-2", LimitType.OPEN_EXPOSURE, "7")
    limits = await pair.other.ask(pair.other.risk.ListLimits, risk_service_pb2.ListLimitsRequest(scope_id="ACC-2"))
    assert [(limit.scope_id, limit.value, limit.version) for limit in limits.limits] == [("ACC-2", "7", 1)]


async def test_a_kill_switch_stops_approvals_and_is_active_once_svc_oms_has_it(pair: Pair) -> None:
    answer = await pair.one.ask(pair.one.risk.ActivateKillSwitch, stop())
    assert answer.kill_switch.status == KillSwitchStatus.ACTIVE.value
    assert [switch.scope_id for switch in pair.orders.told] == ["ACC-1"]
    assert await decide(pair.other, buy("1"), buy("1", account="ACC-2")) == ["KILL_SWITCH_ACTIVE", "approval"]
    listed = await pair.other.ask(pair.other.risk.ListKillSwitches, risk_service_pb2.ListKillSwitchesRequest(active_only=True))
    assert [(switch.scope_id, switch.status) for switch in listed.kill_switches] == [("ACC-1", KillSwitchStatus.ACTIVE.value)]
    release = risk_service_pb2.ReleaseKillSwitchRequest(scope=ACCOUNT, scope_id="ACC-1", comment="go on")
    released = await pair.other.ask(pair.other.risk.ReleaseKillSwitch, release)
    assert released.kill_switch.status == KillSwitchStatus.RELEASED.value
    assert await decide(pair.one, buy("2")) == ["approval"]
    with pytest.raises(NotFoundError):
        await pair.one.ask(
            pair.one.risk.ReleaseKillSwitch, risk_service_pb2.ReleaseKillSwitchRequest(scope=ACCOUNT, scope_id="ACC-2", comment="x")
        )


class _Away(Orders):
    async def apply(self, switches: object) -> None:
        raise UnavailableError(Reason.DEPENDENCY_UNAVAILABLE, "svc_oms is away")


async def test_a_switch_that_svc_oms_was_not_told_is_pending_and_told_later(pair: Pair) -> None:
    pair.one.risk._orders = _Away()
    request_id = pair.one.ids.new_id()
    pending = await pair.one.ask(pair.one.risk.ActivateKillSwitch, stop(request_id=request_id))
    assert pending.kill_switch.status == KillSwitchStatus.PENDING.value
    assert await decide(pair.other, buy("1")) == ["KILL_SWITCH_ACTIVE"]
    teller = KillSwitchTeller(pair.other.stores.administration, pair.orders)
    assert [await teller.tell_pending() for _ in range(3)] == [0, 1, 0], "the first look leaves it to who has changed it"
    listed = await pair.one.ask(pair.one.risk.ListKillSwitches, risk_service_pb2.ListKillSwitchesRequest())
    assert [switch.status for switch in listed.kill_switches] == [KillSwitchStatus.ACTIVE.value]


async def test_reads_show_the_position_that_a_write_answered(pair: Pair) -> None:
    answer = await pair.one.ask(
        pair.one.risk.UpdateLimit,
        risk_service_pb2.UpdateLimitRequest(
            scope=limit_pb2.LIMIT_SCOPE_ACCOUNT,
            scope_id="ACC-1",
            type=limit_pb2.LIMIT_TYPE_OPEN_EXPOSURE,
            value="9",
            comment="a change",
        ),
    )
    request = risk_service_pb2.GetRiskStateRequest(account_id="ACC-1", min_position=answer.log_position)
    state = await pair.other.ask(pair.other.risk.GetRiskState, request)
    assert "9" in [limit.value for limit in state.limits]
    await pair.other.stores.reads.require_position(LogPosition(answer.log_position.tx, answer.log_position.position))
    with pytest.raises(UnavailableError):
        await pair.other.stores.reads.require_position(LogPosition(2**40, 1))
