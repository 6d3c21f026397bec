"""Becomes another program that dies with its parent: `python -I -S launch.py PARENT_PID SIGNAL NICENESS -- program argument…`

A supervisor that is killed cannot stop its children, so the kernel does (prctl(2), PR_SET_PDEATHSIG). The setting has to be made in the
child and survives exec, as does how much the program yields to others (nice(2)). Both are made here and not between fork and exec, where a
process with gRPC's threads may run next to nothing. Standard library only: this takes some 15 ms.
"""

from __future__ import annotations

import ctypes
import os
import sys

PARENT_GONE_EXIT_CODE = 75
CANNOT_RUN_EXIT_CODE = 127

_PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> int:
    """Set the death signal, then execute the program; returns only when that fails."""
    if len(arguments) < 5 or arguments[3] != "--":
        raise SystemExit("usage: launch.py PARENT_PID SIGNAL NICENESS -- program argument...")
    parent_pid, death_signal, niceness, program = int(arguments[0]), int(arguments[1]), int(arguments[2]), arguments[4:]
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, death_signal, 0, 0, 0) != 0:
        sys.stderr.write(f"prctl: {os.strerror(ctypes.get_errno())}\n")
        return CANNOT_RUN_EXIT_CODE
    # The parent may have died before prctl; then nobody would ever send the signal.
    if os.getppid() != parent_pid:
        return PARENT_GONE_EXIT_CODE
    os.nice(niceness)
    try:
        os.execvp(program[0], program)  # noqa: S606 (no shell is the point)
    except OSError as error:
        sys.stderr.write(f"{program[0]}: {error.strerror}\n")
    return CANNOT_RUN_EXIT_CODE


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
