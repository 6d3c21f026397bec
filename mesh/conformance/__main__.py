"""`python -m mesh.conformance [--renew] [--stale] [--manifests DIRECTORY]`: what `make conformance` runs.

Exit codes: 0 all is right; 1 something differs, or is not proven; with `--stale` alone, 0 if Istio has to be asked again, else 3.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mesh.conformance import istiod
from mesh.conformance.committed import Committed, Inputs, inputs, istio_version, read, write
from mesh.conformance.differences import TableError, table
from mesh.conformance.overlays import environments, misplaced
from mesh.conformance.protos import ProtosMissingError
from mesh.conformance.render import Rendered, render
from mesh.conformance.run import Compared, ask, compare, compiled, finding, stale
from mesh.conformance.workloads import shipped
from mesh.local.compiler import ManifestError

_FRESH = 3
_ROOT = Path(__file__).resolve().parents[2]
_PROBES = Path("tests") / "contract" / "conformance" / "test_probes.py"
_SHOWN_MAX = 40


def main(arguments: list[str] | None = None) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="make conformance", description="Compare the compiler with Istio itself.")
    parser.add_argument("--renew", action="store_true", help="ask Istio again even if nothing has changed")
    parser.add_argument("--stale", action="store_true", help="only say by the exit code whether Istio has to be asked again")
    parser.add_argument("--manifests", type=Path, default=shipped(), help="another directory; what Istio answers is then not kept")
    options = parser.parse_args(arguments)
    try:
        rendered = render(options.manifests)
        now = inputs(rendered, options.manifests)
        if options.stale:
            return 0 if stale(read(), now) else _FRESH
        return _run(rendered, now, options.manifests, renew=options.renew)
    except (ManifestError, TableError, ProtosMissingError, istiod.IstiodError) as error:
        print(f"conformance: {error}", file=sys.stderr)
        return 1


def _run(rendered: Rendered, now: Inputs, directory: Path, *, renew: bool) -> int:
    started = time.monotonic()
    own = directory == shipped()
    answered = read()
    asked = renew or stale(answered, now) or not own
    proven = True
    if asked and (toolchain := istiod.go()) is not None:
        answered = _asked(rendered, directory, toolchain, keep=own)
    elif asked:
        proven = answered is not None and answered.inputs.asked == now.asked
        _without_go(proven=proven)
    if answered is None:
        print("conformance: nothing of Istio's is committed", file=sys.stderr)
        return 1
    compared = compare(answered, compiled(rendered), table())
    _show(answered, compared)
    messages, unfit = _show_overlays(answered, directory)
    probes = _probe() if own else 0
    right = proven and compared.right and not messages and not unfit and probes is not None
    summary = {
        "istio": answered.inputs.istio,
        "workloads": compared.workloads,
        "resources": compared.resources,
        "fields_compared": compared.fields,
        "explained_differences": compared.judgement.explained,
        "unexplained": len(compared.judgement.unexplained),
        "unused_entries": len(compared.judgement.unused),
        "overlays": len(answered.overlays),
        "overlay_problems": unfit,
        "analyzers": min(_ran(analysis) for analysis in _analyses(answered)),
        "analyzer_messages": messages,
        "probes": probes,
        "istiod_asked": asked and istiod.go() is not None,
        "proven": proven,
        "elapsed_s": round(time.monotonic() - started, 1),
    }
    print(json.dumps(summary))
    return 0 if right else 1


def _asked(rendered: Rendered, directory: Path, toolchain: Path, *, keep: bool) -> Committed:
    print(f"Building Istio's programs ({istio_version()}); the first time takes minutes ...", flush=True)
    print(f"Built in {istiod.build(toolchain):.0f} s. Asking them ...", flush=True)
    answered = ask(rendered, directory)
    if keep:
        write(answered)
        print("Istio's answers are in mesh/conformance/expected; commit them.")
    return answered


def _probe() -> int | None:
    """Ask Envoys that Istio configured and Envoys that the compiler did; returns how many answers were the same, None if any was not."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-s", str(_PROBES)], cwd=_ROOT, capture_output=True, text=True, check=False
    )
    counted = re.search(r"^probes: (\d+)$", done.stdout, re.MULTILINE)
    if done.returncode != 0 or counted is None:
        print(f"The probes do not give the same answers:\n{done.stdout[-4000:]}{done.stderr[-2000:]}")
        return None
    print(f"{counted[1]} probes answered the same by Envoys of Istio's configuration and of the compiler's")
    return int(counted[1])


def _without_go(*, proven: bool) -> None:
    print("Go is not installed, so that Istio itself cannot be asked (`make bench` and `make conformance` install it with pip).")
    if proven:
        print("What Istio would be asked is what it was asked for the committed answers; those are compared.")
    else:
        print("NOT PROVEN: the committed answers are for other manifests. They are compared nevertheless.")


def _show(answered: Committed, compared: Compared) -> None:
    judgement = compared.judgement
    for run, answers in answered.runs.items():
        print(f"{run}: {len(answers)} workloads, {sum(len(items) for kinds in answers.values() for items in kinds.values())} resources")
    print(f"{compared.fields} fields compared, {judgement.explained} differences explained, {len(judgement.unexplained)} not")
    for difference in judgement.unexplained[:_SHOWN_MAX]:
        print(f"  {difference}")
    if len(judgement.unexplained) > _SHOWN_MAX:
        print(f"  ... and {len(judgement.unexplained) - _SHOWN_MAX} more")
    for entry in judgement.unused:
        print(f"  differences.yaml explains nothing with: {entry}")


def _show_overlays(answered: Committed, directory: Path) -> tuple[int, int]:
    """Return how much the analyzers say of manifests and environments, and how much is wrong with environments besides."""
    for name, analysis in zip(("manifests", *answered.overlays), _analyses(answered), strict=True):
        print(f"{name}: {_ran(analysis)} of {analysis['analyzers']} analyzers ran, {len(analysis['findings'])} messages")
        for item in analysis["findings"]:
            print(finding(item))
    problems = [f"{name}: {problem}" for name, overlay in answered.overlays.items() for problem in overlay.unserved]
    for environment in environments(directory):
        if environment.name in answered.overlays:
            found = misplaced(environment, answered.overlays[environment.name].objects)
            problems.extend(f"{environment.name}: {problem}" for problem in found)
    for problem in problems:
        print(f"  {problem}")
    return sum(len(analysis["findings"]) for analysis in _analyses(answered)), len(problems)


def _analyses(answered: Committed) -> list[Mapping[str, Any]]:
    return [answered.analysis, *(overlay.analysis for overlay in answered.overlays.values())]


def _ran(analysis: Mapping[str, Any]) -> int:
    return int(analysis["analyzers"]) - len(analysis["skipped"])


if __name__ == "__main__":
    sys.exit(main())
