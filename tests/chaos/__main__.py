"""`python -m tests.chaos [FAULT ...] [--seed N] [--short]`: faults, and what the auditor says of them.

The last line is one JSON object. The exit code is 0 only where nothing was violated and every planted violation was seen.
"""

from __future__ import annotations

import argparse
import asyncio
import secrets
import sys
import time

from rich.console import Console

from kernel.values import use_exact_decimals
from tests.chaos.campaign import Campaign
from tests.chaos.catalogue import catalogue
from tests.chaos.planted import self_tests
from tests.chaos.table import line, passed, table

_BEGAN = time.monotonic()


def main(arguments: list[str] | None = None) -> int:
    """Run the chosen faults; return the exit code."""
    faults = {fault.name: fault for fault in catalogue()}
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description="Break the mesh on purpose and hold it to its rules.")
    parser.add_argument("faults", nargs="*", metavar="FAULT", help=f"all unless given: {', '.join(faults)}")
    parser.add_argument("--seed", type=int, help="repeats a run's choices; the machine's timing stays its own")
    parser.add_argument("--short", action="store_true", help="the short set: fewer faults, fewer targets")
    chosen = parser.parse_args(arguments)
    unknown = sorted(set(chosen.faults) - faults.keys())
    if unknown:
        parser.error(f"no fault is called {', '.join(unknown)}")
    use_exact_decimals()
    tests = self_tests()
    seed = secrets.randbelow(2**32) if chosen.seed is None else chosen.seed
    _say(f"auditor: {tests.caught} of {tests.planted} planted violations caught" + "".join(f"; missed: {what}" for what in tests.missed))
    _say(f"seed {seed}")
    with Campaign(seed, short=chosen.short, say=_say) as campaign:
        outcomes = asyncio.run(campaign.run([faults[name] for name in chosen.faults] or list(faults.values())))
    Console(width=200).print(table(outcomes))
    print(line(outcomes, tests), flush=True)
    return 0 if passed(outcomes, tests) else 1


def _say(text: str) -> None:
    print(f"[{time.monotonic() - _BEGAN:6.1f} s] {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
