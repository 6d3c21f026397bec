"""Resolves requirements.lock from pyproject.toml: `python -m tools.lock [--upgrade]`.

One lock for every platform, with hashes, and with the build backend, the type stubs and the development tools, so that an install
reads nothing that is not pinned. It names no registry: whoever installs chooses theirs.
"""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "requirements.lock"
HEADER = "# Every package with its hashes, for all platforms. Written by `make lock` from pyproject.toml; do not edit.\n"
GROUPS = ("build", "dev", "types")


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns uv's exit code. Keeps the present pins unless `--upgrade` is given."""
    options = sys.argv[1:] if arguments is None else arguments
    quiet = ["--quiet", "--no-annotate", "--no-header", "--no-emit-index-url", "--no-emit-find-links"]
    groups = [part for group in GROUPS for part in ("--group", group)]
    command = [
        str(Path(sys.executable).parent / "uv"),
        "pip",
        "compile",
        "pyproject.toml",
        *groups,
        "--universal",
        "--python-version",
        "3.11",
    ]
    done = subprocess.run([*command, "--generate-hashes", *quiet, *options, "-o", str(LOCK)], cwd=ROOT, check=False)
    if done.returncode == 0:
        LOCK.write_text(HEADER + LOCK.read_text(encoding="utf-8"), encoding="utf-8")
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
