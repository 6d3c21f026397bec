"""The house's own checks: `python -m tools.tidy [FILE ...]` prints `file:line: rule: finding` and ends with 1 if there is any.

What ruff, mypy and import-linter already see is not repeated here. A line is exempt from a rule when it says why:
`# tidy: <rule>: <reason>`.
"""

import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

from tools.source import Finding, Source
from tools.tidy_python import PYTHON_RULES, Rule

ROOT = Path(__file__).resolve().parent.parent
FILE_LINES_MAX = 400
# Text that nobody writes by hand, or that is checked as a whole elsewhere.
GENERATED = ("gen/", "requirements.lock")
TEXT_SUFFIXES = frozenset({".py", ".sql", ".proto", ".md", ".toml", ".yaml", ".yml", ".json", ".cfg", ".ini", ".sh", ""})
PROSE_SUFFIXES = frozenset({".md", ".toml", ".yaml", ".yml"})

# Spelled in parts, so that this file passes its own rules.
_UNFINISHED = re.compile(r"\b(" + "|".join(("TO" + "DO", "FIX" + "ME", "X" + "XX", "HA" + "CK")) + r")\b")
_REGISTRY = re.compile(
    "|".join(re.escape(host) for host in ("py" + "pi.org", "python" + "hosted.org", "npm" + "js.", "proxy." + "golang.org"))
)
_REGISTRY_OPTION = re.compile(r"--(extra-)?(index" + r"-url|find" + r"-links)\b[ =]\S*:/")
_MACHINE_PATH = re.compile(r"(?:^|[\s\"'`(=:,\[])/(?:work|root|home)/[\w.]")
_TEMPORARY_PATH = re.compile(r"(?:^|[\s\"'`(=:,\[])/tmp/[\w.]")
_LINK = re.compile(r"\[[^\]]*\]\(([^)#\s]+)(?:#[^)]*)?\)")


def file_length(source: Source) -> Iterator[Finding]:
    """A Python or SQL file has at most 400 lines."""
    if source.suffix in {".py", ".sql"} and len(source.lines) > FILE_LINES_MAX:
        yield Finding(source.path, 1, "file-length", f"{len(source.lines)} lines, at most {FILE_LINES_MAX}")


def unfinished(source: Source) -> Iterator[Finding]:
    """Nothing is left for later in a comment."""
    yield from _matches(source, _UNFINISHED, "unfinished", "finish it or write an issue")


def registry(source: Source) -> Iterator[Finding]:
    """No file names a package registry; whoever installs chooses theirs."""
    yield from _matches(source, _REGISTRY, "registry", "names a package registry")
    yield from _matches(source, _REGISTRY_OPTION, "registry", "names a package registry")


def machine_path(source: Source) -> Iterator[Finding]:
    """No absolute path of somebody's machine; in prose and configuration no temporary one either."""
    yield from _matches(source, _MACHINE_PATH, "machine-path", "a path of one machine")
    if source.suffix in PROSE_SUFFIXES:
        yield from _matches(source, _TEMPORARY_PATH, "machine-path", "a temporary path")


def dead_link(source: Source) -> Iterator[Finding]:
    """A relative link in Markdown leads to a file that exists."""
    if source.suffix != ".md":
        return
    for number, line in enumerate(source.lines, start=1):
        for target in _LINK.findall(line):
            if (
                "://" not in target
                and not target.startswith("mailto:")
                and not (source.root / PurePosixPath(source.path).parent / target).exists()
            ):
                yield Finding(source.path, number, "dead-link", f"{target} does not exist")


TEXT_RULES: tuple[Rule, ...] = (file_length, unfinished, registry, machine_path, dead_link)


def unlisted_packages(root: Path) -> Iterator[Finding]:
    """Every top-level package is shipped by pyproject.toml and known to import-linter; a new service cannot slip past the contracts."""
    settings = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["tool"]
    shipped = set(settings["hatch"]["build"]["targets"]["wheel"]["packages"])
    linted = set(settings["importlinter"]["root_packages"])
    for package in sorted(path.parent.name for path in root.glob("*/__init__.py")):
        if package not in linted:
            yield Finding("pyproject.toml", 1, "unlisted-package", f"{package} is not among import-linter's root_packages")
        if package not in shipped and package not in {"tools", "tests"}:
            yield Finding("pyproject.toml", 1, "unlisted-package", f"{package} is not among the wheel's packages")


def inspect(source: Source) -> list[Finding]:
    """Findings of every rule on one file, in line order, without those that a line exempts with a reason."""
    rules: Iterable[Rule] = (*TEXT_RULES, *PYTHON_RULES) if source.suffix == ".py" else TEXT_RULES
    found = [finding for rule in rules for finding in rule(source) if not source.exempts(finding)]
    return sorted(found, key=lambda finding: (finding.line, finding.rule))


def repository_files(root: Path) -> list[str]:
    """Hand-written text files that git tracks or would track, relative to root, sorted."""
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"], cwd=root, capture_output=True, text=True, check=True
    )
    names = sorted(set(filter(None, listing.stdout.split("\0"))))
    return [
        name for name in names if not name.startswith(GENERATED) and PurePosixPath(name).suffix in TEXT_SUFFIXES and (root / name).is_file()
    ]


def _matches(source: Source, pattern: re.Pattern[str], rule: str, text: str) -> Iterator[Finding]:
    for number, line in enumerate(source.lines, start=1):
        if pattern.search(line):
            yield Finding(source.path, number, rule, text)


def main(arguments: list[str] | None = None) -> int:
    """Entry point; without arguments checks the whole repository."""
    names = sys.argv[1:] if arguments is None else arguments
    findings = [] if names else list(unlisted_packages(ROOT))
    for name in names or repository_files(ROOT):
        findings += inspect(Source.read(ROOT, name))
    for finding in findings:
        print(finding)
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
