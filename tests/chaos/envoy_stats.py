"""Counters and gauges of the mesh's Envoys, from their administration."""

from __future__ import annotations

import asyncio
import http.client
import time
from typing import Any
from urllib.parse import quote

import psutil

from mesh.local.edge import EDGE
from mesh.local.harness import LocalMesh
from mesh.local.topology import sidecar_name
from tests.chaos import administration

BEGINS_SECONDS_MAX = 5.0
"""An Envoy that was started just now answers so soon."""
LOOK_SECONDS = 0.05


class NoNumberError(Exception):
    """An Envoy that lives gives no number: it does not answer, or has none of that name. Nothing may be concluded from its silence."""


async def edge_stats(mesh: LocalMesh, pattern: str) -> dict[str, int]:
    """Return the edge's numbers whose names match a pattern of RE2, at least one; none of an edge that is dead.

    Raises:
        NoNumberError: it lives, and gives none.
    """
    return await _stats(mesh, EDGE, EDGE, pattern)


async def sidecar_stats(mesh: LocalMesh, instance: str, pattern: str) -> dict[str, int]:
    """Return the numbers of an instance's sidecar; see `edge_stats`.

    Raises:
        NoNumberError: it lives, and gives none.
    """
    return await _stats(mesh, instance, sidecar_name(instance), pattern)


async def _stats(mesh: LocalMesh, workload: str, envoy: str, pattern: str) -> dict[str, int]:
    deadline = time.monotonic() + BEGINS_SECONDS_MAX
    while True:
        try:
            answer = await administration.asked(mesh, workload, f"/stats?format=json&filter={quote(pattern)}")
        except (OSError, http.client.HTTPException, ValueError) as error:
            if not _alive(mesh, envoy):
                return {}
            if time.monotonic() > deadline:
                raise NoNumberError(f"{envoy} lives and does not answer for {pattern}: {type(error).__name__}: {error}") from error
        else:
            return numbers(answer, f"{envoy} has no number that matches {pattern}")
        await asyncio.sleep(LOOK_SECONDS)


def numbers(answer: Any, complaint: str) -> dict[str, int]:
    """Return the counters and gauges of an answer; histograms and texts are left out.

    Raises:
        NoNumberError: there are none; says the complaint.
    """
    found = {entry["name"]: entry["value"] for entry in answer["stats"] if isinstance(entry.get("value"), int)}
    if not found:
        raise NoNumberError(complaint)
    return found


def _alive(mesh: LocalMesh, envoy: str) -> bool:
    pid = mesh.instance(envoy).pid
    try:
        return pid is not None and psutil.Process(pid).status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
    except psutil.NoSuchProcess:
        return False
