"""Snapshot files: one line with the CRC-32 of the rest, then the state as JSON. Whole or absent: written aside and renamed."""

import json
import os
import re
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_NAME = re.compile(r"snapshot-([0-9]{8})\.json")


def snapshot_path(directory: Path, index: int) -> Path:
    """The file of the snapshot that precedes segment `index`."""
    return directory / f"snapshot-{index:08d}.json"


def snapshot_indexes(directory: Path) -> list[int]:
    """The segments that have a snapshot before them, ascending."""
    return sorted(int(match.group(1)) for entry in directory.iterdir() if (match := _NAME.fullmatch(entry.name)))


def write_snapshot(directory: Path, index: int, document: Mapping[str, Any]) -> None:
    """Write a snapshot durably; the caller syncs the directory."""
    body = json.dumps(document, separators=(",", ":")).encode()
    aside = snapshot_path(directory, index).with_suffix(".new")
    with aside.open("wb") as file:
        file.write(b"%08x\n%b" % (zlib.crc32(body), body))
        file.flush()
        os.fsync(file.fileno())
    aside.rename(snapshot_path(directory, index))


def read_snapshot(directory: Path, index: int) -> Mapping[str, Any] | None:
    """Return a snapshot, or None if it is damaged."""
    checksum, _, body = snapshot_path(directory, index).read_bytes().partition(b"\n")
    if checksum != b"%08x" % zlib.crc32(body):
        return None
    document = json.loads(body)
    assert isinstance(document, dict)
    return document
