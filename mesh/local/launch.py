"""Becomes another program that dies with its parent: `python -I -S launch.py PARENT_PID SIGNAL UID GID -- program argument…`

A supervisor that is killed cannot stop its children, so the kernel does (prctl(2), PR_SET_PDEATHSIG). The setting has to be made in the
child, survives exec, and is lost when credentials change, so those change first. Standard library only: this starts in some 15 ms.
"""

from __future__ import annotations

import ctypes
import os
import sys

PR_SET_PDEATHSIG = 1
KEEP = -1
"""UID or GID that leaves the credentials as they are."""

PARENT_GONE_EXIT_CODE = 75
CANNOT_RUN_EXIT_CODE = 127


def main(arguments: list[str]) -> int:
    """Set credentials and the death signal, then execute the program; returns only when that fails."""
    parent_pid, death_signal, uid, gid = (int(text) for text in arguments[:4])
    if arguments[4] != "--" or not arguments[5:]:
        raise SystemExit("usage: launch.py PARENT_PID SIGNAL UID GID -- program argument...")
    program = arguments[5:]
    if gid != KEEP:
        os.setgroups([])
        os.setgid(gid)
    if uid != KEEP:
        os.setuid(uid)
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, death_signal, 0, 0, 0) != 0:
        sys.stderr.write(f"prctl: {os.strerror(ctypes.get_errno())}\n")
        return CANNOT_RUN_EXIT_CODE
    # The parent may have died before prctl; then nobody would ever send the signal.
    if os.getppid() != parent_pid:
        return PARENT_GONE_EXIT_CODE
    try:
        os.execvp(program[0], program)
    except OSError as error:
        sys.stderr.write(f"{program[0]}: {error.strerror}\n")
    return CANNOT_RUN_EXIT_CODE


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
