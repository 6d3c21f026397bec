"""How much the group of a session yields to others, where the kernel schedules sessions as groups (sched(7), "The autogroup feature").

There a process's own niceness (nice(2)) counts only within its session, and every process that the mesh starts has a session of its own.
"""

from __future__ import annotations

import os

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
