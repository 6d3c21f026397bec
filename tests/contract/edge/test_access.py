"""The edge's table of access says what the services themselves say; neither drifts from the other."""

from __future__ import annotations

import pytest

from kernel.server_policy import OUTSIDE_PEERS, MethodPolicy
from mesh.edge import access
from mesh.edge.contract import installed
from tests.contract.bindings import SERVED


def policies() -> dict[str, tuple[str, MethodPolicy]]:
    """Return each method's workload and policy, by path; the log's services are the same everywhere and for nobody outside."""
    return {
        f"/{binding.descriptor.full_name}/{name}": (service.replace("_", "-"), policy)
        for service, bindings in SERVED.items()
        for binding in bindings()
        for name, policy in binding.policies.items()
    }


POLICIES = policies()
GRANTS = {grant.method.path: grant for grant in access.load(installed())}


def test_the_table_shows_what_is_for_outside_and_nothing_else() -> None:
    outside = {path for path, (_, policy) in POLICIES.items() if policy.peers == OUTSIDE_PEERS}
    assert set(GRANTS) == outside


@pytest.mark.parametrize("path", sorted(GRANTS))
def test_a_row_says_what_the_service_says(path: str) -> None:
    grant = GRANTS[path]
    workload, policy = POLICIES[path]
    assert grant.workload == workload
    assert (grant.roles or frozenset()) == policy.roles
    assert policy.user_required
    if policy.priority:
        assert grant.priority, "the edge must not hold up what the service lets pass"
    if not grant.method.descriptor.server_streaming:
        assert grant.timeout_seconds <= policy.timeout_seconds, "the service would give up first, and its caller would not know"


def test_every_rest_door_is_in_the_table() -> None:
    contract = installed()
    assert access.missing(contract, list(GRANTS.values())) == []
