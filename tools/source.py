"""One file of the repository as tidy's rules see it, and what they find in it."""

import ast
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

_EXEMPTION = re.compile(r"#\s*tidy:\s*(?P<rule>[a-z-]+):\s*(?P<reason>\S.*)")


@dataclass(frozen=True)
class Finding:
    """A violated rule at a line, counted from 1."""

    path: str
    line: int
    rule: str
    text: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.rule}: {self.text}"


@dataclass(frozen=True)
class Source:
    """A text file by its path relative to root, with `/` between the parts."""

    root: Path
    path: str
    text: str

    @classmethod
    def read(cls, root: Path, path: str) -> "Source":
        """Reads a UTF-8 file."""
        return cls(root, path, (root / path).read_text(encoding="utf-8"))

    @property
    def suffix(self) -> str:
        """The file name's last suffix with its dot, or the empty string."""
        return PurePosixPath(self.path).suffix

    @property
    def parts(self) -> tuple[str, ...]:
        """The path's folders and the file's stem."""
        pure = PurePosixPath(self.path)
        return (*pure.parent.parts, pure.stem)

    @cached_property
    def lines(self) -> list[str]:
        """The lines without their ends."""
        return self.text.splitlines()

    @cached_property
    def tree(self) -> ast.Module:
        """The syntax tree of a Python file."""
        return ast.parse(self.text, filename=self.path)

    def exempts(self, finding: Finding) -> bool:
        """Whether the finding's line names its rule and a reason."""
        line = self.lines[finding.line - 1] if finding.line <= len(self.lines) else ""
        found = _EXEMPTION.search(line)
        return found is not None and found["rule"] == finding.rule
