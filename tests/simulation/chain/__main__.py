"""Plays runs and audits them: `python -m tests.simulation.chain --seeds 1000 --start 0`. Ends with 1 if any broke a rule.

`--seed N` plays one run and shows what went wrong in it; `--show TEXT` also prints every event and FIX message that mentions a text.
"""

from __future__ import annotations

import argparse
import sys
import time
import traceback

from tests.simulation.chain.auditor.audit import audit
from tests.simulation.chain.story import digest, tell
from tests.simulation.chain.world import play

PROGRESS_SECONDS = 5.0


def rerun_command(seed: int) -> str:
    """Return the command that repeats a run."""
    return f"python -m tests.simulation.chain --seed {seed}"


def problems_of(seed: int) -> list[str]:
    """Play a run and return what is wrong with it, in sentences."""
    try:
        return [f"{violation.rule}: {violation.text}" for violation in audit(play(seed))]
    except Exception:  # noqa: BLE001 (whatever ends a run is its result)
        return [f"the run itself failed:\n{traceback.format_exc()}"]


def report(seed: int, problems: list[str]) -> str:
    """Return what to print of a failed run."""
    shown = "\n".join(f"  {problem}" for problem in problems[:20])
    return f"seed {seed}: {len(problems)} violations; repeat with: {rerun_command(seed)}\n{shown}"


def play_many(start: int, count: int) -> int:
    """Play many runs with progress on standard error; return how many failed."""
    failed, began = 0, time.monotonic()
    told = began
    for number, seed in enumerate(range(start, start + count), start=1):
        problems = problems_of(seed)
        if problems:
            failed += 1
            print(report(seed, problems), flush=True)
        if time.monotonic() - told > PROGRESS_SECONDS or number == count:
            told = time.monotonic()
            print(f"{number} of {count} seeds, {failed} failed, {number / (told - began):.2f} a second", file=sys.stderr, flush=True)
    print(f"{count - failed} of {count} seeds passed")
    return failed


def main() -> int:
    """Parse the command line and play."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.chain", description=__doc__)
    parser.add_argument("--seeds", type=int, default=100, help="how many runs")
    parser.add_argument("--start", type=int, default=0, help="the first seed")
    parser.add_argument("--seed", type=int, help="one run, told in full")
    parser.add_argument("--show", default="", help="with --seed: tell of what mentions this text")
    parser.add_argument("--digest", action="store_true", help="with --seed: print a hash of everything that happened, and no more")
    arguments = parser.parse_args()
    if arguments.seed is None:
        return 1 if play_many(arguments.start, arguments.seeds) else 0
    history = play(arguments.seed)
    if arguments.digest:
        print(digest(history))
        return 0
    for line in tell(history, arguments.show):
        print(line)
    problems = [f"{violation.rule}: {violation.text}" for violation in audit(history)]
    print(report(arguments.seed, problems) if problems else f"seed {arguments.seed}: no violation")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
