"""Sessions of an embedded PostgreSQL, which yield to others where the service that they work for can be late.

The server gives every session a process in a session of the system's of its own (`setsid`), so where those are scheduled as groups
(sched(7), "The autogroup feature") none of them has the niceness that the server was started with.
"""

from __future__ import annotations

import contextlib
import os

import psutil

from mesh.local.priority import SESSION_NICENESS, group_yields


class Sessions:
    """The processes of one server.

    Args:
        server: process id of the postmaster.
        niceness: of all the others: of services that cannot be late, of the writers, of administration.
    """

    def __init__(self, server: int, niceness: int) -> None:
        self._server, self._niceness = server, niceness
        self._yielding: dict[psutil.Process, int] = {}

    def yield_to_others(self) -> bool:
        """Let those yield that do not yet; return False if some are left, because the kernel wants to be asked again."""
        try:
            processes = psutil.Process(self._server).children()
        except psutil.Error:
            return True
        wanted = {process: self._wanted(process) for process in processes}
        self._yielding = {
            process: how for process, how in wanted.items() if self._yielding.get(process) == how or _yields(process.pid, how)
        }
        return len(self._yielding) == len(wanted)

    def _wanted(self, process: psutil.Process) -> int:
        """A session's title begins with `postgres: role database`, once it is known whose it is, and is filled up with zeros."""
        try:
            title = " ".join(process.cmdline()).split()
        except psutil.Error:
            return self._niceness
        role = title[1] if len(title) > 1 else ""
        return SESSION_NICENESS.get(role.removesuffix("_owner"), self._niceness)


def _yields(pid: int, niceness: int) -> bool:
    # Whoever may not raise it again has been asked to yield more by somebody else; the group has a niceness of its own.
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, pid, niceness)
    return group_yields(pid, niceness)
