"""How each language's client is generated and built, and how its two programs start.

Go is what `make test` proves: its toolchain comes from `requirements-bench.lock`, so every machine has it. The others need what a machine
may lack, and are built by `make interop` (`python -m tests.clients.toolchains java typescript`); tests find what was built.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
DESCRIPTOR = ROOT / "gen" / "descriptor" / "trademesh.binpb"
BINARIES = Path(sys.executable).parent
GO = Path(sys.prefix) / "go" / "go" / "bin"
BUILD_SECONDS_MAX = 900.0
_MADE = {"build", "node_modules"}


class BuildError(Exception):
    """A client cannot be built; the text is the tool's."""


@dataclass(frozen=True)
class Toolchain:
    """One language's.

    Attributes:
        name: of the language and of its folder.
        needs: programs that must be there.
        steps: commands that build and test the library, run in the folder.
        conformance: the runner's command, without the task's file.
        example: the example's command.
        search: where programs are looked for before PATH.
    """

    name: str
    needs: tuple[str, ...]
    steps: tuple[tuple[str, ...], ...]
    conformance: tuple[str, ...]
    example: tuple[str, ...]
    search: tuple[Path, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        return HERE / self.name

    @property
    def _stamp(self) -> Path:
        return self.folder / "build" / f".built-{_digest(self.folder)}"

    def surroundings(self) -> dict[str, str]:
        """The environment of its commands."""
        path = os.pathsep.join([*map(str, self.search), str(BINARIES), os.environ.get("PATH", "")])
        return {**os.environ, **self.environment, "PATH": path}

    def missing(self) -> list[str]:
        """Programs that this machine lacks."""
        path = self.surroundings()["PATH"]
        return [program for program in self.needs if shutil.which(program, path=path) is None]

    def built(self) -> bool:
        """Whether it was built from what its folder and the contracts say now."""
        return self._stamp.exists()

    def build(self) -> None:
        """Generate and compile, unless that was done for the same sources.

        Raises:
            BuildError: a program is missing or fails.
        """
        if self.built():
            return
        if missing := self.missing():
            raise BuildError(f"no {', '.join(missing)}; `make test` and `make interop` install Go")
        for step in self.steps:
            done = subprocess.run(
                step, cwd=self.folder, env=self.surroundings(), capture_output=True, text=True, check=False, timeout=BUILD_SECONDS_MAX
            )
            if done.returncode:
                raise BuildError(f"{' '.join(step)}\n{done.stdout[-4000:]}{done.stderr[-4000:]}")
        self._stamp.parent.mkdir(exist_ok=True)
        for old in self._stamp.parent.glob(".built-*"):
            old.unlink()
        self._stamp.touch()


def _digest(folder: Path) -> str:
    """Names the sources of a client: its folder without what is made there, and the contracts."""
    digest = hashlib.sha256(DESCRIPTOR.read_bytes())
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if path.is_file() and not _MADE & set(name.parts):
            digest.update(str(name).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


_GENERATE = ("buf", "generate", os.path.relpath(DESCRIPTOR, HERE / "any"))

# For a few seconds of work the quick compiler and the small collector are the right ones.
_JAVA = ("java", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-cp", os.pathsep.join(("build/classes", "build/libraries/*")))

TOOLCHAINS = {
    found.name: found
    for found in (
        Toolchain(
            name="go",
            needs=("go", "buf"),
            steps=(
                (*_GENERATE, "--path", "trademesh", "--path", "buf/validate"),
                ("go", "build", "-o", "build/", "./conformance", "./example"),
                ("go", "test", "./trademesh"),
            ),
            conformance=("build/conformance",),
            example=("build/example",),
            search=(GO,),
            environment={"GOTOOLCHAIN": "local", "GOFLAGS": "-mod=readonly", "CGO_ENABLED": "0"},
        ),
        Toolchain(
            name="java",
            needs=("java", "javac", "mvn"),
            steps=(("mvn", "-q", "-B", "package"),),
            conformance=(*_JAVA, "trademesh.conformance.Conformance"),
            example=(*_JAVA, "trademesh.example.Example"),
        ),
        Toolchain(
            name="typescript",
            needs=("node", "npm", "buf"),
            steps=(
                ("npm", "ci", "--no-fund", "--no-audit"),
                ("npm", "run", "-s", "generate"),
                ("npm", "run", "-s", "build"),
                ("npm", "run", "-s", "test"),
            ),
            conformance=("node", "build/js/src/conformance/main.js"),
            example=("node", "build/js/src/example/main.js"),
        ),
    )
}
ALWAYS = ("go",)
"""What every machine proves."""


def main(names: Sequence[str], tell: Callable[[str], None] = print) -> int:
    """Build clients by name; what this machine cannot build is said, and is no failure."""
    code = 0
    for name in names:
        toolchain = TOOLCHAINS[name]
        if missing := toolchain.missing():
            tell(f"{name}: not proven here, no {', '.join(missing)}")
            continue
        if not toolchain.built():
            tell(f"{name}: generating and compiling ...")
        try:
            toolchain.build()
        except BuildError as error:
            tell(f"{name}: {error}")
            code = 1
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or list(TOOLCHAINS)))
