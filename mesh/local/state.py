"""Where the embedded parts keep their state, sockets and secrets on this machine."""

from __future__ import annotations

import hashlib
import os
import secrets
import stat
from pathlib import Path

SOCKET_PATH_LENGTH_MAX = 107
"""Longest usable path of a UNIX socket in bytes (`sun_path` less its NUL, unix(7))."""


class LocalStateError(Exception):
    """A directory or file of the embedded parts is not as safe as it must be; a person has to look."""


def default_state_root() -> Path:
    """Return `/var/lib/trademesh` for root, else `$XDG_STATE_HOME/trademesh` (XDG Base Directory 0.8); never inside a checkout."""
    if os.geteuid() == 0:
        return Path("/var/lib/trademesh")
    home = os.environ.get("XDG_STATE_HOME", "")
    base = Path(home) if home.startswith("/") else Path.home() / ".local" / "state"
    return base / "trademesh"


def runtime_directory(state: Path, *, owner: int | None = None) -> Path:
    """Return the 0700 directory for the sockets of the part whose state is in `state`; short, and one per state directory.

    Raises:
        LocalStateError: it exists with another owner or mode, or a socket's path in it would be too long.
    """
    base = _runtime_base()
    own_directory(base, mode=0o711 if os.geteuid() == 0 else 0o700)
    directory = base / hashlib.sha256(os.fsencode(state.absolute())).hexdigest()[:12]
    own_directory(directory, owner=owner)
    longest = directory / ".s.PGSQL.65535.lock"
    if len(os.fsencode(longest)) > SOCKET_PATH_LENGTH_MAX:
        raise LocalStateError(f"socket path is longer than {SOCKET_PATH_LENGTH_MAX} bytes: {longest}")
    return directory


def _runtime_base() -> Path:
    if os.geteuid() == 0:
        return Path("/run/trademesh")
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    if runtime.startswith("/") and os.access(runtime, os.W_OK):
        return Path(runtime) / "trademesh"
    return Path(f"/tmp/trademesh-{os.geteuid()}")  # noqa: S108 (own_directory refuses one that somebody else made)


def own_directory(path: Path, *, owner: int | None = None, mode: int = 0o700) -> Path:
    """Create the directory, or check that it is a real directory of this owner, and give it this mode.

    Raises:
        LocalStateError: it is a link, a file, or belongs to somebody else.
    """
    expected = os.geteuid() if owner is None else owner
    try:
        path.mkdir(parents=True, mode=0o700)
        if owner is not None:
            os.chown(path, owner, owner)
    except FileExistsError:
        pass
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != expected:
        raise LocalStateError(f"not a directory of uid {expected}: {path}")
    path.chmod(mode)
    return path


def check_passable(path: Path) -> None:
    """Check that other uids may pass through to this directory, which a server with a uid of its own has to.

    Raises:
        LocalStateError: a directory above is private; names it.
    """
    for directory in (path, *path.parents):
        if not directory.stat().st_mode & stat.S_IXOTH:
            raise LocalStateError(f"the server's own uid may not pass through {directory}; choose another state directory, or chmod o+x")


def secret_file(path: Path) -> str:
    """Return the secret in a file of mode 0600, made with 192 random bits at the first call.

    Raises:
        LocalStateError: the file is readable by others, or empty.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    except FileExistsError:
        pass
    else:
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_urlsafe(24))
            file.flush()
            os.fsync(descriptor)
    if path.lstat().st_mode & 0o177:
        raise LocalStateError(f"mode must be 0600: {path}")
    text = path.read_text().strip()
    if not text:
        raise LocalStateError(f"secret file is empty, remove it: {path}")
    return text
