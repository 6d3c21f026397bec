"""Manifests that somebody spoilt: refused in words, or compiled; never anything else."""

from __future__ import annotations

import copy
import json
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mesh.local.compiler import ManifestError, compile_mesh, load, registry
from tests.unit.mesh.golden import SAMPLE
from tests.unit.mesh.workloads import JWKS, proxy

SIDECARS = (proxy("svc_oms-0", "svc-oms", 1), proxy("svc_risk-0", "svc-risk", 2, ports=(8080, 9000)))
FILES = {path.name: list(yaml.safe_load_all(path.read_text())) for path in sorted(SAMPLE.glob("*.yaml"))}

NAMED = re.compile(
    # A file, then its object as far as it can be told, then the field; MeshConfig is one object.
    r"[\w.-]+\.yaml: (?:cannot be read: |MeshConfig(?:[.\[].*)?: |(?:.*/.*: )?(?:object|kind|apiVersion|metadata|spec).*: )"
    # What no object says can name none of them.
    r"|no PeerAuthentication makes mTLS STRICT for |no Sidecar opens ports "
    # The registry is made of the Sidecars' ports.
    r"|registry: ServiceEntry/|\S+: has no mesh\.yaml",
    re.DOTALL,
)

Place = tuple[str, int, tuple[Any, ...]]


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Return the paths of all values inside a document, its own included."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, entry in items:
        yield from places(entry, (*path, key))


PLACES: list[Place] = [
    (name, number, path) for name, documents in FILES.items() for number, document in enumerate(documents) for path in places(document)
]
JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    st.text(max_size=20),
    st.sampled_from(["0s", "-1s", "1d", "*", "/", "a/*", "ALLOW", "svc-oms.trading.svc.cluster.local", 2**40, [], {}, [[]], {"": {}}]),
    st.dictionaries(st.text(max_size=5), st.integers(), max_size=3),
)


def spoilt(place: Place, junk: Any, *, removed: bool) -> dict[str, list[Any]]:
    """Return the files with one value replaced or removed."""
    files = copy.deepcopy(FILES)
    name, number, path = place
    holder: Any = files[name]
    for key in (number, *path)[:-1]:
        holder = holder[key]
    key = (number, *path)[-1]
    if removed:
        del holder[key]
    else:
        holder[key] = junk
    return files


@example(place=("mesh.yaml", 0, ("outboundTrafficPolicy",)), junk={":": 0}, removed=False)
@example(place=("svc-risk.yaml", 0, ("spec", "rules", 0, "to", 0, "operation", "ports", 0)), junk=":", removed=False)
@settings(max_examples=200, deadline=None)
@given(place=st.sampled_from(PLACES), junk=JUNK, removed=st.booleans())
def test_a_spoilt_manifest_is_refused_in_words_or_compiled(place: Place, junk: Any, removed: bool) -> None:
    with tempfile.TemporaryDirectory() as directory:
        for name, documents in spoilt(place, junk, removed=removed).items():
            (Path(directory) / name).write_text(yaml.safe_dump_all(documents, allow_unicode=True))
        findings = problems_of(Path(directory))
    assert findings is None or (findings and all(NAMED.match(finding) for finding in findings)), findings


def problems_of(directory: Path) -> tuple[str, ...] | None:
    """Compile a directory; return what is wrong with it, None where nothing is."""
    try:
        compiled = compile_mesh(registry(load(directory), SIDECARS), SIDECARS, JWKS)
    except ManifestError as error:
        return error.problems
    json.dumps([documents.static() for documents in compiled.values()], allow_nan=False)
    return None
