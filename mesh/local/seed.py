"""Fills a fresh mesh through the services' public RPCs: `python -m mesh.local.seed`. What exists already is left as it is.

Accounts and instruments that exist are the seed's own from an earlier start. A limit is set only where none is, so that what an operator
has set since stays in force.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence

from kernel.clock import SystemClock
from kernel.errors import AlreadyExistsError, TrademeshError
from kernel.ids import Uuid7Source
from mesh.local.layout import Layout
from mesh.local.operator import Caller, Operator
from mesh.local.seed_data import (
    ACCOUNTS,
    OTHER_ACCOUNTS,
    OTHER_TENANT,
    TENANT,
    SeedAccount,
    account_requests,
    instrument_requests,
    limit_requests,
)
from trademesh.risk.v1 import reference_data_service_pb2, risk_service_pb2

SEEDER = Caller("seed", TENANT, ("admin", "risk-officer", "viewer"))
OTHER_SEEDER = Caller("seed", OTHER_TENANT, ("admin",))

_REFERENCE = "/trademesh.risk.v1.ReferenceDataService/"
_RISK = "/trademesh.risk.v1.RiskService/"


def seed(operator: Operator, *, accounts: Sequence[SeedAccount] = ACCOUNTS) -> str:
    """Create what is missing and return what was done, in a sentence.

    Raises:
        TrademeshError: a service refused, or cannot be reached; running again continues.
    """
    keys = _keys()
    made = _create_accounts(operator, accounts, keys)
    for instrument in instrument_requests(keys):
        made += _create(operator, "CreateInstrument", instrument, reference_data_service_pb2.CreateInstrumentResponse)
    limits = _set_limits(operator, keys)
    return f"{made} accounts and instruments created, {limits} limits set"


def seed_neighbour(operator: Operator) -> str:
    """Create the other tenant's accounts, as an administrator of that tenant, and return what was done, in a sentence.

    Raises:
        TrademeshError: as `seed` does.
    """
    made = _create_accounts(operator, OTHER_ACCOUNTS, _keys())
    return f"{made} accounts of another tenant created"


def _create_accounts(operator: Operator, accounts: Sequence[SeedAccount], keys: Iterator[str]) -> int:
    response_type = reference_data_service_pb2.CreateAccountResponse
    return sum(_create(operator, "CreateAccount", request, response_type) for request in account_requests(accounts, keys))


def _create(
    operator: Operator,
    method: str,
    request: reference_data_service_pb2.CreateAccountRequest | reference_data_service_pb2.CreateInstrumentRequest,
    response_type: type[reference_data_service_pb2.CreateAccountResponse] | type[reference_data_service_pb2.CreateInstrumentResponse],
) -> int:
    try:
        operator.call("svc_risk", _REFERENCE + method, request, response_type, repeatable=False)
    except AlreadyExistsError:
        return 0
    return 1


def _set_limits(operator: Operator, keys: Iterator[str]) -> int:
    known = risk_service_pb2.ListLimitsRequest(page_size=500)
    listed = operator.call("svc_risk", _RISK + "ListLimits", known, risk_service_pb2.ListLimitsResponse, repeatable=True)
    present = {(limit.scope, limit.type) for limit in listed.message.limits if limit.scope_id == "*"}
    missing = [request for request in limit_requests(keys) if (request.scope, request.type) not in present]
    for request in missing:
        operator.call("svc_risk", _RISK + "UpdateLimit", request, risk_service_pb2.UpdateLimitResponse, repeatable=False)
    return len(missing)


def _keys() -> Iterator[str]:
    source = Uuid7Source(SystemClock())
    while True:
        yield source.new_id()


def main() -> int:
    """Seed the mesh of this machine; return the exit code."""
    try:
        with Operator(Layout.default(), SEEDER) as operator:
            print(seed(operator))
        with Operator(Layout.default(), OTHER_SEEDER) as operator:
            print(seed_neighbour(operator))
    except TrademeshError as error:
        print(f"seed: {error.reason}: {error.message}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
