"""Errors of services: exit code, reason, next step. Limits, kill switches, accounts: what is sent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cli.exits import Exit
from cli.main import main
from kernel.errors import (
    AbortedError,
    AlreadyExistsError,
    DeadlineExceededError,
    FailedPreconditionError,
    InternalError,
    NotFoundError,
    OutcomeUnknownError,
    PermissionDeniedError,
    Reason,
    ResourceExhaustedError,
    TrademeshError,
    UnauthenticatedError,
    UnavailableError,
)
from tests.unit.cli.desk import FakeServices, document, run
from trademesh.risk.v1 import kill_switch_pb2, limit_pb2, reference_data_pb2, reference_data_service_pb2, risk_service_pb2


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UnavailableError(Reason.RISK_UNAVAILABLE, "risk cannot be asked"), Exit.UNAVAILABLE),
        (ResourceExhaustedError(Reason.OVERLOADED, "too much", retry_after_seconds=0.25), Exit.UNAVAILABLE),
        (DeadlineExceededError(Reason.DEADLINE_EXPIRED, "late"), Exit.UNAVAILABLE),
        (PermissionDeniedError(Reason.ACCOUNT_NOT_ALLOWED, "not yours"), Exit.DENIED),
        (UnauthenticatedError(Reason.TOKEN_EXPIRED, "expired"), Exit.DENIED),
        (NotFoundError(Reason.INSTRUMENT_NOT_FOUND, "none"), Exit.STATE),
        (AlreadyExistsError(Reason.IDEMPOTENCY_KEY_REUSED, "used"), Exit.STATE),
        (AbortedError(Reason.VERSION_STALE, "stale"), Exit.STATE),
        (FailedPreconditionError(Reason.ORDER_TERMINAL, "over"), Exit.STATE),
        (OutcomeUnknownError(Reason.OUTCOME_UNKNOWN, "lost"), Exit.UNKNOWN),
        (InternalError(Reason.INTERNAL, "a defect"), Exit.DEFECT),
    ],
)
def test_every_class_of_error_has_its_exit_code(error: TrademeshError, code: Exit, capsys: pytest.CaptureFixture[str]) -> None:
    services = FakeServices({"CreateOrder": lambda request: error})
    words = ("order", "buy", "1", "AAPL", "--account", "ACC-1")
    assert run(services, *words, "--json") == code
    shown = document(capsys.readouterr().out)["error"]
    assert shown["reason"] == error.reason
    assert shown["exit_code"] == code
    assert run(services, *words) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert error.reason in captured.err


def test_an_unknown_account_says_how_to_find_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    services = FakeServices({"CreateOrder": lambda request: PermissionDeniedError(Reason.ACCOUNT_NOT_ALLOWED, "not one of yours")})
    assert run(services, "order", "buy", "1", "AAPL", "--account", "NOBODY") == Exit.DENIED
    assert "trademesh accounts list" in capsys.readouterr().err


def test_without_a_mesh_the_error_says_how_to_start_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--state-dir", str(tmp_path / "none"), "accounts", "list", "--json"]) == Exit.UNAVAILABLE
    error = document(capsys.readouterr().out)["error"]
    assert "make up" in error["next"]
    assert not (tmp_path / "none").exists()


def test_a_limit_is_set_with_a_key_and_a_comment() -> None:
    def answer(request: Any) -> risk_service_pb2.UpdateLimitResponse:
        return risk_service_pb2.UpdateLimitResponse(limit=limit_pb2.Limit(scope=request.scope, type=request.type, value=request.value))

    services = FakeServices({"UpdateLimit": answer})
    assert run(services, "limits", "set", "account", "ACC-1", "max-notional", "50000", "--comment", "calmer") == Exit.DONE
    [request] = services.requests
    assert (request.scope, request.scope_id, request.value, request.comment) == (limit_pb2.LIMIT_SCOPE_ACCOUNT, "ACC-1", "50000", "calmer")
    assert request.type == limit_pb2.LIMIT_TYPE_MAX_NOTIONAL
    assert request.request_id


@pytest.mark.parametrize("value", ["-5", "-0", "NaN", "0.1234567890123456789", "1e3", ""])
def test_a_bad_limit_is_refused_here(value: str, capsys: pytest.CaptureFixture[str]) -> None:
    services = FakeServices()
    assert run(services, "limits", "set", "account", "ACC-1", "max-notional", value, "--json") == Exit.INVALID
    [violation] = document(capsys.readouterr().out)["error"]["fields"]
    assert (violation["field"], violation["rule"]) == ("value", "decimal.non_negative")
    assert services.requests == []


def test_the_firm_is_stopped_without_naming_it(capsys: pytest.CaptureFixture[str]) -> None:
    def answer(request: Any) -> risk_service_pb2.ActivateKillSwitchResponse:
        switch = kill_switch_pb2.KillSwitch(
            scope=request.scope, scope_id=request.scope_id, status=kill_switch_pb2.KILL_SWITCH_STATUS_PENDING, version=1
        )
        return risk_service_pb2.ActivateKillSwitchResponse(kill_switch=switch)

    services = FakeServices({"ActivateKillSwitch": answer})
    assert run(services, "kill", "activate", "firm", "--cancel-open-orders") == Exit.DONE
    [request] = services.requests
    assert (request.scope_id, request.cancel_open_orders) == ("*", True)
    captured = capsys.readouterr()
    assert "PENDING" in captured.out
    assert "kill list" in captured.err


def test_an_account_is_created_for_the_tenant_one_acts_for(capsys: pytest.CaptureFixture[str]) -> None:
    def answer(request: Any) -> reference_data_service_pb2.CreateAccountResponse:
        return reference_data_service_pb2.CreateAccountResponse(account=reference_data_pb2.Account(account_id=request.account_id))

    services = FakeServices({"CreateAccount": answer})
    words = ("accounts", "create", "ACC-9", "--tenant", "other", "--as", "eve", "--role", "admin")
    assert run(services, *words, "--json") == Exit.DONE
    assert document(capsys.readouterr().out)["account"]["account_id"] == "ACC-9"
    [caller] = services.callers
    assert (caller.principal, caller.tenant, caller.roles) == ("eve", "other", ("admin",))


def test_a_long_list_says_how_to_go_on(capsys: pytest.CaptureFixture[str]) -> None:
    page = reference_data_service_pb2.ListInstrumentsResponse(
        instruments=[reference_data_pb2.Instrument(instrument_id="AAPL", tick_size="0.01")], next_page_token="t-2"
    )
    assert run(FakeServices({"ListInstruments": lambda request: page}), "instruments") == Exit.DONE
    captured = capsys.readouterr()
    assert "AAPL" in captured.out
    assert "--page-token t-2" in captured.err


def test_no_command_shows_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == Exit.INVALID
    assert "Commands:" in capsys.readouterr().err
    assert main(["--help"]) == Exit.DONE
    assert "cancel-all" in capsys.readouterr().out
