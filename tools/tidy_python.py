"""Tidy's rules on Python syntax trees. Each takes a source and yields findings; its docstring is the rule."""

import ast
import re
from collections.abc import Callable, Iterator
from typing import TypeAlias

from tools.source import Finding, Source

FUNCTION_LINES_MAX = 70
POLL_SECONDS_MAX = 0.05
BANNED_WORDS = frozenset({"util", "utils", "helper", "helpers", "common", "manager", "misc"})
# Time, chance and the outside world reach the domain as arguments only.
IMPURE_MODULES = frozenset({"asyncio", "time", "random", "secrets", "os", "io", "socket", "logging", "pathlib", "subprocess", "threading"})
_FunctionNode: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef
_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")
_SQL = re.compile(
    r"^\s*(SELECT\s.+\sFROM\s|SELECT\s+pg_|INSERT\s+INTO\s|UPDATE\s+\w+\s+SET\s|DELETE\s+FROM\s|WITH\s+\w+\s+AS\s)", re.DOTALL
)
_EXEMPTION = re.compile(r"#\s*(?:noqa\b(?::\s*[A-Z0-9, ]+)?|type:\s*ignore(?:\[[^\]]*\])?)\s*(?P<rest>.*)$")


def function_length(source: Source) -> Iterator[Finding]:
    """A function has at most 70 lines, its docstring not counted."""
    for node in _functions(source):
        docstring = node.body[0] if ast.get_docstring(node, clean=False) is not None else None
        lines = _span(node) - (_span(docstring) if docstring is not None else 0)
        if lines > FUNCTION_LINES_MAX:
            yield Finding(source.path, node.lineno, "function-length", f"{node.name} has {lines} lines, at most {FUNCTION_LINES_MAX}")


def banned_name(source: Source) -> Iterator[Finding]:
    """Modules and classes say what they hold; a drawer for everything has no name here."""
    for part in source.parts:
        if _words(part) & BANNED_WORDS:
            yield Finding(source.path, 1, "banned-name", f"`{part}` does not say what it holds")
    for node in ast.walk(source.tree):
        if isinstance(node, ast.ClassDef) and _words(node.name) & BANNED_WORDS:
            yield Finding(source.path, node.lineno, "banned-name", f"`{node.name}` does not say what it is")
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.strip("_") in BANNED_WORDS:
            yield Finding(source.path, node.lineno, "banned-name", f"`{node.name}` does not say what it does")


def sleep_in_test(source: Source) -> Iterator[Finding]:
    """Tests never sleep for a fixed time; they wait on a condition with a deadline (a `while` that polls), or on a fake clock."""
    if source.parts[0] != "tests":
        return
    polls = {call for loop in ast.walk(source.tree) if isinstance(loop, ast.While) for call in ast.walk(loop) if isinstance(call, ast.Call)}
    for call in _calls(source):
        if ast.unparse(call.func) not in {"time.sleep", "asyncio.sleep", "sleep"} or not call.args:
            continue
        delay = call.args[0].value if isinstance(call.args[0], ast.Constant) else None
        seconds = delay if isinstance(delay, int | float) else None
        if seconds == 0 or (seconds is not None and seconds <= POLL_SECONDS_MAX and call in polls):
            continue
        if seconds is not None or ast.unparse(call.func) == "time.sleep":
            yield Finding(source.path, call.lineno, "sleep-in-test", f"{ast.unparse(call)} in a test")


def mock(source: Source) -> Iterator[Finding]:
    """Fakes over mocks."""
    for node, module in _imports(source):
        if module == "unittest.mock" or module.startswith("pytest_mock"):
            yield Finding(source.path, node.lineno, "mock", "write a fake by hand")


def float_in_domain(source: Source) -> Iterator[Finding]:
    """No binary float where prices and quantities live: domains and kernel values."""
    if not _is_domain(source) and source.parts[:2] != ("kernel", "values"):
        return
    for node in ast.walk(source.tree):
        if (isinstance(node, ast.Name) and node.id == "float") or (isinstance(node, ast.Constant) and isinstance(node.value, float)):
            yield Finding(source.path, node.lineno, "float-in-domain", "use decimal.Decimal")


def impure_domain(source: Source) -> Iterator[Finding]:
    """A domain has no I/O, no async and no clock; time and ids arrive in the command."""
    if not _is_domain(source):
        return
    for node, module in _imports(source):
        if module.partition(".")[0] in IMPURE_MODULES:
            yield Finding(source.path, node.lineno, "impure-domain", f"imports {module}")
    for inner in ast.walk(source.tree):
        if isinstance(inner, ast.AsyncFunctionDef | ast.Await | ast.AsyncFor | ast.AsyncWith):
            yield Finding(source.path, inner.lineno, "impure-domain", "is async")
        if isinstance(inner, ast.Attribute) and inner.attr in {"now", "utcnow", "today", "uuid1", "uuid4"}:
            yield Finding(source.path, inner.lineno, "impure-domain", f"calls {ast.unparse(inner)}")


def docstring(source: Source) -> Iterator[Finding]:
    """Modules have a docstring, and so have the public classes and functions of kernel and of domains."""
    if source.parts[0] == "tests":
        return
    if source.tree.body and ast.get_docstring(source.tree) is None:
        yield Finding(source.path, 1, "docstring", "the module has none")
    if source.parts[0] != "kernel" and not _is_domain(source):
        return
    for node in source.tree.body:
        if not isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) or node.name.startswith("_"):
            continue
        if ast.get_docstring(node) is None and not _is_overload(node):
            yield Finding(source.path, node.lineno, "docstring", f"`{node.name}` has none")


def swallowed_exception(source: Source) -> Iterator[Finding]:
    """Nobody catches everything and goes on in silence."""
    for node in ast.walk(source.tree):
        if isinstance(node, ast.ExceptHandler) and _is_broad(node.type) and all(_is_nothing(statement) for statement in node.body):
            yield Finding(source.path, node.lineno, "swallowed-exception", "catches everything and does nothing")


def stub(source: Source) -> Iterator[Finding]:
    """Nothing pretends: NotImplementedError stands in abstract methods only."""
    for node in _functions(source):
        abstract = any("abstractmethod" in ast.unparse(decorator) for decorator in node.decorator_list)
        for inner in ast.walk(node) if not abstract else ():
            if isinstance(inner, ast.Raise) and inner.exc is not None and ast.unparse(inner.exc).startswith("NotImplementedError"):
                yield Finding(source.path, inner.lineno, "stub", f"{node.name} is not implemented")


def sql_outside_store(source: Source) -> Iterator[Finding]:
    """A service's SQL stands in its store."""
    if not source.parts[0].startswith("svc_") or (len(source.parts) > 1 and source.parts[1] == "store"):
        return
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and _SQL.match(node.value):
            yield Finding(source.path, node.lineno, "sql-outside-store", "move it into the service's store")


def bare_exemption(source: Source) -> Iterator[Finding]:
    """Every exemption from a lint or type rule carries its reason on the same line. Tests pass wrong types on purpose without one."""
    for number, line in enumerate(source.lines, start=1):
        found = _EXEMPTION.search(line)
        if found is None or (source.parts[0] == "tests" and "ignore[" in found[0]):
            continue
        if len(found["rest"].strip(" #-:()")) < len("a reason"):
            yield Finding(source.path, number, "bare-exemption", "say why after it: `# noqa: X (because ...)`")


Rule: TypeAlias = Callable[[Source], Iterator[Finding]]
PYTHON_RULES: tuple[Rule, ...] = (
    function_length,
    banned_name,
    sleep_in_test,
    mock,
    float_in_domain,
    impure_domain,
    docstring,
    swallowed_exception,
    stub,
    sql_outside_store,
    bare_exemption,
)


def _is_domain(source: Source) -> bool:
    return source.parts[0].startswith("svc_") and len(source.parts) > 1 and source.parts[1] == "domain"


def _functions(source: Source) -> Iterator[_FunctionNode]:
    return (node for node in ast.walk(source.tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def _calls(source: Source) -> Iterator[ast.Call]:
    return (node for node in ast.walk(source.tree) if isinstance(node, ast.Call))


def _imports(source: Source) -> Iterator[tuple[ast.stmt, str]]:
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Import):
            yield from ((node, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            yield node, node.module
            yield from ((node, f"{node.module}.{alias.name}") for alias in node.names if f"{node.module}.{alias.name}" == "unittest.mock")


def _span(node: ast.stmt) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1


def _words(name: str) -> set[str]:
    return {word.lower() for word in _WORDS.findall(name)}


def _is_overload(node: ast.stmt) -> bool:
    return isinstance(node, ast.FunctionDef) and any(ast.unparse(decorator).endswith("overload") for decorator in node.decorator_list)


def _is_broad(kind: ast.expr | None) -> bool:
    return kind is None or (isinstance(kind, ast.Name) and kind.id in {"Exception", "BaseException"})


def _is_nothing(statement: ast.stmt) -> bool:
    is_constant = isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
    return isinstance(statement, ast.Pass | ast.Continue) or is_constant
