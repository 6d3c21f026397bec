"""Puts files where Envoy watches: all of them at once, by moving one link."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mesh.local.ca.authority import Svid
from mesh.local.compiler.tls import CURRENT, IDENTITY_FILE, TRUST_FILE
from mesh.local.state import own_directory

_KEPT = 2
"""Generations that stay: the current one, and the one before for a reader that is just about to open it."""
_SECRET = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"  # noqa: S105 (a type's name)


def publish_certificate(directory: Path, svid: Svid) -> None:
    """Let Envoy use a certificate from now on; open connections keep theirs. Keys lie in files of mode 0600."""
    identity = {"certificate_chain": {"inline_string": svid.certificate}, "private_key": {"inline_string": svid.key}}
    flip(
        directory,
        {
            IDENTITY_FILE: {"resources": [{"@type": _SECRET, "name": "default", "tls_certificate": identity}]},
            TRUST_FILE: svid.root,
        },
    )


def flip(directory: Path, files: Mapping[str, Any]) -> bool:
    """Write files as a new generation and let `directory`/current point to it; return False where they already are the current ones.

    Text is written as it is, everything else as JSON. A reader sees all of the old or all of the new files; watchers of the directory see
    one file being moved into it.
    """
    own_directory(directory)
    texts = {name: value if isinstance(value, str) else json.dumps(value, indent=1, sort_keys=True) + "\n" for name, value in files.items()}
    current = directory / CURRENT
    if current.is_symlink() and _same(current, texts):
        return False
    generation = directory / f"{_newest(directory) + 1:08}"
    own_directory(generation)
    for name, text in texts.items():
        descriptor = os.open(generation / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
    link = directory / f"{CURRENT}.new"
    link.unlink(missing_ok=True)
    link.symlink_to(generation.name)
    link.rename(current)
    for number in sorted(_generations(directory))[:-_KEPT]:
        shutil.rmtree(directory / f"{number:08}")
    return True


def _same(current: Path, texts: Mapping[str, str]) -> bool:
    try:
        return {path.name: path.read_text() for path in current.iterdir()} == texts
    except OSError:
        return False


def _generations(directory: Path) -> list[int]:
    return [int(path.name) for path in directory.iterdir() if path.name.isdecimal()]


def _newest(directory: Path) -> int:
    return max(_generations(directory), default=0)
