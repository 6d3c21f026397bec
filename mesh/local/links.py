"""Waits until the services are linked with the exchange: `python -m mesh.local.links CONTROL_SOCKET [--venue]`.

A healthy service is not yet one that trades. After a crash the dead replicas' leases have to expire before others take the venue session
and the price feed, and until then orders are refused for want of a price, or wait to be sent.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mesh.local.layout import LocalMeshError
from mesh.local.venue_control import tell

WAIT_SECONDS_MAX = 60.0
_POLL_SECONDS = 0.05


def missing(status: dict[str, Any], *, venue_link: bool) -> list[str]:
    """Return what is not linked yet, given the exchange's `status`."""
    wanted = {"nobody reads the price feed": status["feed_readers"] > 0}
    if venue_link:
        wanted["the order service is not logged on"] = status["members_connected"] > 0
    return [what for what, there in wanted.items() if not there]


def await_links(
    control: Path, *, venue_link: bool, now: Callable[[], float] = time.monotonic, pause: Callable[[float], None] = time.sleep
) -> None:
    """Return once everything is linked.

    Raises:
        LocalMeshError: not in time; the text says what is missing.
    """
    deadline, absent = now() + WAIT_SECONDS_MAX, ["the exchange does not answer"]
    while now() < deadline:
        try:
            absent = missing(tell(control, "status"), venue_link=venue_link)
        except OSError:
            absent = ["the exchange does not answer"]
        if not absent:
            return
        pause(_POLL_SECONDS)
    raise LocalMeshError(f"after {WAIT_SECONDS_MAX:g} s {' and '.join(absent)}")


def main(arguments: list[str]) -> int:
    """Wait; return the exit code."""
    try:
        await_links(Path(arguments[0]), venue_link="--venue" in arguments[1:])
    except LocalMeshError as error:
        print(f"links: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
