"""Resolves the locks from pyproject.toml: `python -m tools.lock [--upgrade]`.

Each holds for every platform, with hashes. `requirements.lock` has the build backend, the type stubs and the development tools too, so
that an install reads nothing that is not pinned; `requirements-interop.lock` has what `make interop` compiles,
`requirements-bench.lock` what `make bench` builds with, and `requirements-conformance.lock` what `make conformance` asks Istio
with. They name no registry: whoever installs chooses theirs.
"""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HEADER = "# Every package with its hashes, for all platforms. Written by `make lock` from pyproject.toml; do not edit.\n"
LOCKS = {
    "requirements.lock": ["pyproject.toml", "--group", "build", "--group", "dev", "--group", "types"],
    "requirements-interop.lock": ["--group", "interop"],
    "requirements-bench.lock": ["--group", "bench"],
    "requirements-conformance.lock": ["--group", "conformance"],
}
OPTIONS = ("--universal", "--python-version", "3.11", "--generate-hashes")
QUIET = ("--quiet", "--no-annotate", "--no-header", "--no-emit-index-url", "--no-emit-find-links")


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns uv's exit code. Keeps the present pins unless `--upgrade` is given."""
    options = sys.argv[1:] if arguments is None else arguments
    uv = str(Path(sys.executable).parent / "uv")
    for name, sources in LOCKS.items():
        lock = ROOT / name
        done = subprocess.run([uv, "pip", "compile", *sources, *OPTIONS, *QUIET, *options, "-o", str(lock)], cwd=ROOT, check=False)
        if done.returncode != 0:
            return done.returncode
        lock.write_text(HEADER + lock.read_text(encoding="utf-8"), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
