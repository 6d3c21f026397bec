"""Waits until the mesh can trade: `python -m mesh.local.links CONTROL_SOCKET [--venue] [--prices]`.

A healthy service is not yet one that trades. After a crash the dead replicas' leases have to expire before others take the venue session
and follow the prices, and until then orders wait to be sent, or are refused for want of a fresh price.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from kernel.errors import TrademeshError
from mesh.local.layout import Layout, LocalMeshError
from mesh.local.operator import Caller, Operator
from mesh.local.seed_data import TENANT, instrument_ids
from mesh.local.venue_control import tell
from trademesh.risk.v1 import risk_service_pb2

WAIT_SECONDS_MAX = 60.0
_POLL_SECONDS = 0.05
_VIEWER = Caller("links", TENANT, ("viewer",))
_PATH = "/trademesh.risk.v1.RiskService/ListReferencePrices"

Check = Callable[[], str]
"""Says what is missing; empty when nothing is."""


def venue_link(control: Path) -> str:
    """Check that the order service is logged on at the exchange."""
    try:
        linked = tell(control, "status")["members_connected"] > 0
    except OSError:
        return "the exchange does not answer"
    return "" if linked else "the order service is not logged on"


def fresh_prices(operator: Operator) -> str:
    """Check that risk would approve orders on the prices of every instrument of the seed."""
    request = risk_service_pb2.ListReferencePricesRequest(instrument_ids=instrument_ids())
    try:
        answer = operator.call("svc_risk", _PATH, request, risk_service_pb2.ListReferencePricesResponse, repeatable=True)
    except TrademeshError as error:
        return f"risk does not answer ({error})"
    fresh = {price.instrument_id for price in answer.message.prices if price.fresh}
    absent = sorted(set(request.instrument_ids) - fresh)
    return f"risk has no fresh price of {', '.join(absent)}" if absent else ""


def await_links(checks: Iterable[Check], *, now: Callable[[], float] = time.monotonic, pause: Callable[[float], None] = time.sleep) -> None:
    """Return once nothing is missing.

    Raises:
        LocalMeshError: not in time; the text says what is missing.
    """
    deadline, open_checks = now() + WAIT_SECONDS_MAX, list(checks)
    while True:
        missing = [what for check in open_checks if (what := check())]
        if not missing:
            return
        if now() >= deadline:
            raise LocalMeshError(f"after {WAIT_SECONDS_MAX:g} s {' and '.join(missing)}")
        pause(_POLL_SECONDS)


def main(arguments: list[str]) -> int:
    """Wait; return the exit code."""
    control, flags = Path(arguments[0]), arguments[1:]
    try:
        with Operator(Layout.default(), _VIEWER) as operator:
            checks = {"--venue": lambda: venue_link(control), "--prices": lambda: fresh_prices(operator)}
            await_links(check for flag, check in checks.items() if flag in flags)
    except LocalMeshError as error:
        print(f"links: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
