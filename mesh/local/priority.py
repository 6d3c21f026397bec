"""Who yields to whom where processors are short, and how the group of a session does where the kernel schedules sessions as groups
(sched(7), "The autogroup feature").

There a process's own niceness (nice(2)) counts only within its session, and every process that the mesh starts has a session of its own.
"""

from __future__ import annotations

import os

from mesh.local.options import SERVICES

_FOLLOWERS = ("svc_custody", "svc_portfolio", "svc_reporting")
SERVICE_NICENESS = {**dict.fromkeys(SERVICES, 12), "svc_oms": 3, **dict.fromkeys(_FOLLOWERS, 14)}
"""Of a service's processes: what cancels go by must not wait behind what orders do elsewhere, and who follows what the others have done can
be late. Each three have about half."""
SESSION_NICENESS = dict.fromkeys(_FOLLOWERS, 12)
"""Of a service's sessions at the database. Those of the others yield as the database itself does: orders wait for their rows."""

ASK_AGAIN_SECONDS = 0.1
"""The kernel takes no more than one such wish in this time, of all users but root together."""


def group_yields(pid: int, niceness: int) -> bool:
    """Let the group of a session's first process yield; return False if the kernel wants to be asked again in `ASK_AGAIN_SECONDS`.

    Without such groups, or in a container that hides them, a process's own niceness is all there is, and nothing is done.
    """
    try:
        descriptor = os.open(f"/proc/{pid}/autogroup", os.O_WRONLY | os.O_CLOEXEC)
    except OSError:
        return True
    try:
        os.write(descriptor, str(niceness).encode())
    except BlockingIOError:
        return False
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return True
