"""The kernel's bound on watched files, met before it ends an Envoy in the middle of its start."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from pathlib import Path

from mesh.local.layout import LocalMeshError

WATCHES_PER_SIDECAR = 3
"""inotify instances of an Envoy: listeners, clusters, certificate. It takes one for each file that it watches, and aborts without."""

_LIMIT = Path("/proc/sys/fs/inotify/max_user_instances")


def take_one() -> int:
    """Return the descriptor of a new inotify instance.

    Raises:
        OSError: this user has too many.
    """
    descriptor = ctypes.CDLL(None, use_errno=True).inotify_init1(os.O_CLOEXEC)
    if descriptor < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return int(descriptor)


def require_watches(sidecars: int, *, take: Callable[[], int] = take_one, release: Callable[[int], None] = os.close) -> None:
    """Check that so many sidecars can watch their files; takes what they will need and gives it back.

    Raises:
        LocalMeshError: they cannot; says what to do.
    """
    needed, held = sidecars * WATCHES_PER_SIDECAR, []
    try:
        for _ in range(needed):
            held.append(take())
    except OSError as error:
        raise LocalMeshError(
            f"{sidecars} sidecars need {needed} inotify instances, and this user can have {len(held)} more ({error.strerror}).\n"
            f"`sudo sysctl fs.inotify.max_user_instances=512` raises the limit ({_limit()}); `--replicas 1` needs fewer."
        ) from error
    finally:
        for descriptor in held:
            release(descriptor)


def _limit() -> str:
    try:
        return _LIMIT.read_text().strip()
    except OSError:
        return "unknown"
