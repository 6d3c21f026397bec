"""Files with secrets in them: read only if nobody else can, written whole or not at all."""

import json
import os
import stat
from pathlib import Path
from typing import Any

FILE_BYTES_MAX = 4 * 1024 * 1024


class FileError(ValueError):
    """A file is missing, open to others, or not what it should be; the message names the file and the field, never a secret."""


def parse_object(document: str | bytes) -> dict[str, Any]:
    """Read one JSON object (RFC 8259), in which no name may come twice.

    Raises:
        ValueError: it is not that; the message says why.
    """
    try:
        root = json.loads(document, object_pairs_hook=_without_duplicates, parse_constant=_refuse_constant)
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError):
        raise ValueError("not JSON") from None
    if not isinstance(root, dict):
        raise ValueError("not a JSON object")
    return root


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a name comes twice in one object")
    return members


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def read_private(path: Path) -> str:
    """Return the text of a file that only its owner may read (mode 0600 or stricter), at most 4 MiB.

    Raises:
        FileError: unreadable, open to others, too long or not UTF-8.
    """
    try:
        with path.open("rb") as file:
            if stat.S_IMODE(os.fstat(file.fileno()).st_mode) & 0o077:
                raise FileError(f"{path}: others may read it; chmod 600")
            content = file.read(FILE_BYTES_MAX + 1)
        if len(content) > FILE_BYTES_MAX:
            raise FileError(f"{path}: longer than {FILE_BYTES_MAX} bytes")
        return content.decode()
    except OSError as error:
        raise FileError(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError:
        raise FileError(f"{path}: not UTF-8") from None


def write_private(path: Path, text: str) -> None:
    """Replace a file in one step, mode 0600, durable when this returns.

    Raises:
        OSError: it could not be written; the old content stands.
    """
    aside = path.with_name(f"{path.name}.new")
    aside.unlink(missing_ok=True)
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    aside.rename(path)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
