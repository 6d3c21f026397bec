"""CustodyService over real gRPC: rights, keys, refusals, pages, positions."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from kernel.errors import Reason
from kernel.identity import User
from tests.integration.custody.audit import audit
from tests.integration.custody.world import AAPL, USD, Custodian, Orders, Reference
from tests.wire.custody.serving import COMPLIANCE, FIRM_OPERATIONS, OPERATIONS, TRADER, Custody, serving
from tests.wire.serving import RefusedError, key, user
from trademesh.custody.v1 import custody_service_pb2 as pb
from trademesh.custody.v1 import ledger_pb2, settlement_pb2
from trademesh.type.v1.log_position_pb2 import LogPosition


def movement(kind: type[Any] = pb.CreateDepositRequest, **changes: Any) -> Any:
    fields: dict[str, Any] = {"account_id": "ACC-1", "asset_type": 1, "asset_id": "USD", "amount": "1000", "request_id": key()}
    return kind(**{**fields, **changes})


async def refusal(custody: Custody, method: str, request: Any, caller: User | None = OPERATIONS, **more: Any) -> tuple[str, Reason | None]:
    with pytest.raises(RefusedError) as refused:
        await custody.call(method, request, caller, **more)
    return refused.value.said


async def test_a_deposit_is_booked_once_per_key(custody: Custody) -> None:
    request = movement(amount="1000.50")
    first = await custody.call("CreateDeposit", request)
    assert "idempotency-replayed" not in custody.initial_metadata
    assert (first.balance.available, first.balance.position) == ("1000.5", "1000.5")
    again = await custody.call("CreateDeposit", movement(amount="1000.5", request_id=request.request_id.upper()))
    assert again == first
    assert custody.initial_metadata["idempotency-replayed"] == "true"
    changed = movement(amount="1", request_id=request.request_id)
    assert await refusal(custody, "CreateDeposit", changed) == ("ALREADY_EXISTS", Reason.IDEMPOTENCY_KEY_REUSED)
    other_kind = movement(pb.CreateWithdrawalRequest, request_id=request.request_id)
    assert await refusal(custody, "CreateWithdrawal", other_kind) == ("ALREADY_EXISTS", Reason.IDEMPOTENCY_KEY_REUSED)
    somebody_else = user("operations", principal="otto")
    assert await refusal(custody, "CreateDeposit", request, somebody_else) == ("ALREADY_EXISTS", Reason.IDEMPOTENCY_KEY_REUSED)
    await audit(custody.custodian)


async def test_one_key_at_once_books_once(custody: Custody) -> None:
    request = movement()
    answers = await asyncio.gather(*(custody.call("CreateDeposit", request) for _ in range(8)))
    assert len({answer.deposit_id for answer in answers}) == 1
    assert await custody.custodian.balance(USD) == ("1000", "0", "0", "0")


@pytest.mark.parametrize("method", ["ListBalances", "ListLedgerEntries", "ListSettlements", "ListHolds"])
async def test_reads_are_for_the_accounts_of_the_token(custody: Custody, method: str) -> None:
    request = getattr(pb, f"{method}Request")
    for caller in (TRADER, OPERATIONS, user("viewer"), user("risk-officer"), user("compliance")):
        await custody.call(method, request(account_id="ACC-1"), caller)
    foreign = ("PERMISSION_DENIED", Reason.ACCOUNT_NOT_ALLOWED)
    assert await refusal(custody, method, request(account_id="ACC-2"), TRADER) == foreign
    assert await refusal(custody, method, request(account_id="ACC-404"), OPERATIONS) == foreign
    assert await refusal(custody, method, request(account_id="ACC-1"), user("trader", tenant="south")) == foreign
    unknown = user("trader", accounts=("ACC-404",))
    assert await refusal(custody, method, request(account_id="ACC-404"), unknown) == ("NOT_FOUND", Reason.ACCOUNT_NOT_FOUND)
    assert await refusal(custody, method, request(account_id="ACC-1"), user("admin")) == ("PERMISSION_DENIED", Reason.ROLE_REQUIRED)
    assert await refusal(custody, method, request(account_id="ACC-1"), None) == ("UNAUTHENTICATED", Reason.USER_UNAUTHENTICATED)
    assert await refusal(custody, method, request(account_id="ACC-1"), TRADER, peer="svc-oms") == (
        "PERMISSION_DENIED",
        Reason.PEER_NOT_ALLOWED,
    )
    assert await refusal(custody, method, request(account_id="ACC-1"), TRADER, secret="not the secret of this run") == (
        "UNAUTHENTICATED",
        Reason.PEER_UNAUTHENTICATED,
    )


WRITES = [
    ("CreateDeposit", movement()),
    ("CreateWithdrawal", movement(pb.CreateWithdrawalRequest)),
    ("CreateHold", movement(pb.CreateHoldRequest)),
    ("CaptureHold", pb.CaptureHoldRequest(account_id="ACC-1", hold_id=key(), request_id=key())),
    ("ReleaseHold", pb.ReleaseHoldRequest(account_id="ACC-1", hold_id=key(), request_id=key())),
    ("AffirmSettlement", pb.AffirmSettlementRequest(account_id="ACC-1", settlement_id=key(), request_id=key())),
]


@pytest.mark.parametrize(("method", "request_"), WRITES)
async def test_writes_are_for_operations_of_the_account(custody: Custody, method: str, request_: Any) -> None:
    assert await refusal(custody, method, request_, TRADER) == ("PERMISSION_DENIED", Reason.ROLE_REQUIRED)
    foreign = ("PERMISSION_DENIED", Reason.ACCOUNT_NOT_ALLOWED)
    assert await refusal(custody, method, request_, user("operations", accounts=("ACC-2",))) == foreign
    assert await refusal(custody, method, request_, user("operations", tenant="south")) == foreign
    unknown_field = request_.SerializeToString() + b"\xfa\x07\x01x"
    assert await refusal(custody, method, request_, raw=unknown_field) == ("INVALID_ARGUMENT", Reason.FIELD_UNKNOWN)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"amount": "0"}, "amount"),
        ({"amount": "-1"}, "amount"),
        ({"amount": "1e3"}, "amount"),
        ({"amount": "01"}, "amount"),
        ({"amount": "0.0000000000000000001"}, "amount"),
        ({"amount": "NaN"}, "amount"),
        ({"amount": "١"}, "amount"),
        ({"amount": ""}, "amount"),
        ({"amount": "1000000000000000000"}, "amount"),
        ({"asset_type": 0}, "asset_type"),
        ({"asset_type": 9}, "asset_type"),
        ({"asset_id": "usd"}, "asset_id"),
        ({"asset_id": "US.D"}, "asset_id"),
        ({"account_id": "acc 1"}, "account_id"),
        ({"request_id": "1"}, "request_id"),
        ({"comment": "x" * 257}, "comment"),
    ],
)
async def test_what_is_malformed_is_named(custody: Custody, changes: dict[str, Any], field: str) -> None:
    with pytest.raises(RefusedError) as refused:
        await custody.call("CreateDeposit", movement(**changes))
    assert refused.value.said == ("INVALID_ARGUMENT", Reason.FIELD_INVALID)
    assert refused.value.fields == [field]
    assert await custody.custodian.balance(USD) == ("0", "0", "0", "0")


async def test_a_deposit_of_an_unknown_instrument_is_refused_and_its_key_stays_free(custody: Custody, reference: Reference) -> None:
    request = movement(asset_type=2, asset_id="MSFT")
    assert await refusal(custody, "CreateDeposit", request) == ("NOT_FOUND", Reason.INSTRUMENT_NOT_FOUND)
    reference.instrument("MSFT")
    await custody.custodian.learn()
    await custody.call("CreateDeposit", request)


async def test_more_than_is_available_is_refused_with_a_precondition(custody: Custody) -> None:
    await custody.call("CreateDeposit", movement(amount="10"))
    for method, kind in (("CreateWithdrawal", pb.CreateWithdrawalRequest), ("CreateHold", pb.CreateHoldRequest)):
        request = movement(kind, amount="10.01")
        with pytest.raises(RefusedError) as refused:
            await custody.call(method, request)
        assert refused.value.said == ("FAILED_PRECONDITION", Reason.INSUFFICIENT_CASH)
        assert refused.value.preconditions == [("INSUFFICIENT_CASH", "account/ACC-1")]
        securities = movement(kind, amount="1", asset_type=2, asset_id="AAPL")
        assert await refusal(custody, method, securities) == ("FAILED_PRECONDITION", Reason.INSUFFICIENT_SECURITIES)
        # A refusal leaves the key free: with enough there, the same call succeeds.
        await custody.call("CreateDeposit", movement(amount="0.01"))
        await custody.call(method, request)
        await custody.call("CreateDeposit", movement(amount="10"))
    await audit(custody.custodian)


async def test_holds_go_through_their_states_once(custody: Custody) -> None:
    await custody.call("CreateDeposit", movement(amount="10"))
    held = [(await custody.call("CreateHold", movement(pb.CreateHoldRequest, amount="4"))).hold for _ in range(2)]
    capture = pb.CaptureHoldRequest(account_id="ACC-1", hold_id=held[0].hold_id.upper(), request_id=key())
    captured = await custody.call("CaptureHold", capture)
    assert captured.hold.state == settlement_pb2.HOLD_STATE_CAPTURED
    assert await custody.call("CaptureHold", capture) == captured
    again = pb.ReleaseHoldRequest(account_id="ACC-1", hold_id=held[0].hold_id, request_id=key())
    assert await refusal(custody, "ReleaseHold", again) == ("FAILED_PRECONDITION", Reason.HOLD_STATE_INVALID)
    await custody.call("ReleaseHold", pb.ReleaseHoldRequest(account_id="ACC-1", hold_id=held[1].hold_id, request_id=key()))
    missing = pb.ReleaseHoldRequest(account_id="ACC-1", hold_id=key(), request_id=key())
    assert await refusal(custody, "ReleaseHold", missing) == ("NOT_FOUND", Reason.HOLD_NOT_FOUND)
    listed = await custody.call("ListHolds", pb.ListHoldsRequest(account_id="ACC-1", page_size=1), TRADER)
    assert [hold.hold_id for hold in listed.holds] == [held[1].hold_id]
    rest = pb.ListHoldsRequest(account_id="ACC-1", page_size=1, page_token=listed.next_page_token)
    assert [hold.hold_id for hold in (await custody.call("ListHolds", rest, TRADER)).holds] == [held[0].hold_id]
    other_filter = pb.ListHoldsRequest(account_id="ACC-1", state=settlement_pb2.HOLD_STATE_ACTIVE, page_token=listed.next_page_token)
    assert await refusal(custody, "ListHolds", other_filter) == ("INVALID_ARGUMENT", Reason.PAGE_TOKEN_INVALID)
    assert await custody.custodian.balance(USD) == ("6", "0", "0", "0")


async def test_a_foreign_hold_or_instruction_is_not_found_in_another_account(custody: Custody, orders: Orders) -> None:
    both = user("operations", accounts=("ACC-1", "ACC-2"))
    await custody.call("CreateDeposit", movement())
    hold = (await custody.call("CreateHold", movement(pb.CreateHoldRequest, amount="1"))).hold
    release = pb.ReleaseHoldRequest(account_id="ACC-2", hold_id=hold.hold_id, request_id=key())
    assert await refusal(custody, "ReleaseHold", release, both) == ("NOT_FOUND", Reason.HOLD_NOT_FOUND)
    orders.fill("buy", "1", "1")
    await custody.custodian.follow()
    (settlement,) = await custody.custodian.settlements()
    get = pb.GetSettlementRequest(account_id="ACC-2", settlement_id=settlement.settlement_id)
    assert await refusal(custody, "GetSettlement", get, both) == ("NOT_FOUND", Reason.SETTLEMENT_NOT_FOUND)


async def test_a_trade_is_followed_to_its_settlement(custody: Custody, orders: Orders) -> None:
    await custody.call("CreateDeposit", movement())
    orders.fill("buy", "5", "100", order_id="7f0f6d0e-5a0e-4a5c-9a57-6f4d2c1b0a99")
    orders.fill("sell", "2", "100")
    await custody.custodian.follow()
    balances = await custody.call("ListBalances", pb.ListBalancesRequest(account_id="ACC-1"), TRADER)
    cash, shares = balances.balances
    assert (cash.settled, cash.pending_in, cash.pending_out, cash.position) == ("1000", "200", "500", "700")
    assert (shares.settled, shares.pending_in, shares.pending_out, shares.position) == ("0", "5", "2", "3")
    bought = await custody.call(
        "ListSettlements", pb.ListSettlementsRequest(account_id="ACC-1", order_id="7F0F6D0E-5A0E-4A5C-9A57-6F4D2C1B0A99"), TRADER
    )
    (instruction,) = bought.settlements
    assert (instruction.state, instruction.settlement_date, instruction.cash_amount) == (1, "2026-11-23", "-500")
    affirm = pb.AffirmSettlementRequest(account_id="ACC-1", settlement_id=instruction.settlement_id, request_id=key())
    affirmed = await custody.call("AffirmSettlement", affirm)
    assert affirmed.settlement.state == 2
    assert await custody.call("AffirmSettlement", affirm) == affirmed
    affirm.request_id = key()
    assert await refusal(custody, "AffirmSettlement", affirm) == ("FAILED_PRECONDITION", Reason.SETTLEMENT_STATE_INVALID)
    date = await custody.call("GetBusinessDate", pb.GetBusinessDateRequest(), TRADER)
    assert (date.business_date, date.next_business_date, date.sandbox) == ("2026-11-20", "2026-11-23", True)
    advance = pb.AdvanceBusinessDateRequest(request_id=key())
    moved = await custody.call("AdvanceBusinessDate", advance, FIRM_OPERATIONS)
    assert (moved.previous_date, moved.business_date) == ("2026-11-20", "2026-11-23")
    assert await custody.call("AdvanceBusinessDate", advance, FIRM_OPERATIONS) == moved
    settled = await custody.call(
        "ListSettlements",
        pb.ListSettlementsRequest(account_id="ACC-1", state=settlement_pb2.SETTLEMENT_STATE_SETTLED, settlement_date="2026-11-23"),
    )
    assert [one.settled_date for one in settled.settlements] == ["2026-11-23"] * 2
    get = pb.GetSettlementRequest(account_id="ACC-1", settlement_id=instruction.settlement_id)
    assert (await custody.call("GetSettlement", get, TRADER)).settlement.state == 3
    await audit(custody.custodian)


async def test_reads_wait_for_the_order_service_s_log(custody: Custody, orders: Orders) -> None:
    orders.fill("buy", "5", "100")
    position = orders.events[-1].position
    wanted = LogPosition(tx=position.tx, position=position.position)
    request = pb.ListBalancesRequest(account_id="ACC-1", min_position=wanted)
    early = asyncio.create_task(custody.call("ListBalances", request, TRADER))
    await asyncio.sleep(0)
    await custody.custodian.follow()
    shown = await early
    assert (shown.order_log_position, shown.balances[-1].pending_in) == (wanted, "5")
    request.min_position.tx += 1
    assert await refusal(custody, "ListBalances", request, TRADER) == ("UNAVAILABLE", Reason.DEPENDENCY_UNAVAILABLE)


async def test_entries_come_in_pages_newest_first(custody: Custody, orders: Orders) -> None:
    await custody.call("CreateDeposit", movement(comment="a wire"))
    orders.fill("buy", "5", "100")
    await custody.custodian.follow()
    seen, token = [], ""
    while True:
        page = await custody.call(
            "ListLedgerEntries", pb.ListLedgerEntriesRequest(account_id="ACC-1", page_size=4, page_token=token), TRADER
        )
        seen += page.entries
        token = page.next_page_token
        if not token:
            break
    assert [(entry.version, entry.line) for entry in seen] == [(2, 4), (2, 3), (2, 2), (2, 1), (1, 2), (1, 1)]
    assert [entry.event_type for entry in seen] == ["custody.v1.TradePosted"] * 4 + ["custody.v1.DepositPosted"] * 2
    assert seen[0].reference_id == "XSIM/2026-11-20/E1"
    only = pb.ListLedgerEntriesRequest(account_id="ACC-1", asset_type=ledger_pb2.ASSET_TYPE_SECURITY, asset_id="AAPL")
    assert [entry.entry.amount for entry in (await custody.call("ListLedgerEntries", only, TRADER)).entries] == ["-5", "5"]


async def test_the_trial_balance_is_of_the_callers_tenant(custody: Custody, reference: Reference) -> None:
    reference.account("SOUTH-1", tenant="south")
    await custody.custodian.learn()
    await custody.custodian.deposit(USD, "1000")
    await custody.custodian.deposit(AAPL, "7", "SOUTH-1")
    status = await custody.call("GetLedgerStatus", pb.GetLedgerStatusRequest(verify_entries=True), COMPLIANCE)
    assert (status.balanced, status.account_count, [asset.asset_id for asset in status.assets]) == (True, 1, ["USD"])
    assert [total.balance for total in status.ledger_accounts] == ["1000", "-1000"]
    whole = await custody.call("GetLedgerStatus", pb.GetLedgerStatusRequest(verify_entries=True), FIRM_OPERATIONS)
    assert (whole.balanced, whole.account_count, [asset.sum for asset in whole.assets]) == (True, 2, ["0", "0"])
    assert await refusal(custody, "GetLedgerStatus", pb.GetLedgerStatusRequest(), TRADER) == ("PERMISSION_DENIED", Reason.ROLE_REQUIRED)


async def test_only_the_firm_moves_the_date_and_only_in_a_sandbox(custodian: Custodian, custody: Custody, tmp_path: Path) -> None:
    advance = pb.AdvanceBusinessDateRequest(request_id=key())
    assert await refusal(custody, "AdvanceBusinessDate", advance) == ("PERMISSION_DENIED", Reason.ROLE_REQUIRED)
    (tmp_path / "s").mkdir(mode=0o700)
    async with serving(custodian, tmp_path / "s", sandbox=False) as real:
        assert await refusal(real, "AdvanceBusinessDate", advance, FIRM_OPERATIONS) == ("FAILED_PRECONDITION", Reason.SANDBOX_ONLY)
        assert not (await real.call("GetBusinessDate", pb.GetBusinessDateRequest(), TRADER)).sandbox
