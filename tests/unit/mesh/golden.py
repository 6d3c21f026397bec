"""Writes what the sample is compiled to, once somebody has read the difference: `python -m tests.unit.mesh.golden`."""

from __future__ import annotations

import json
from pathlib import Path

from mesh.local.compiler import compile_mesh, load, registry
from tests.unit.mesh.workloads import JWKS, proxy

SAMPLE, EXPECTED = Path(__file__).parent / "sample", Path(__file__).parent / "expected"


def texts() -> dict[str, str]:
    """Return the sample's documents as text, by file name."""
    sidecars = (
        proxy("svc_oms-0", "svc-oms", 1),
        proxy("svc_risk-0", "svc-risk", 2, ports=(8080, 9000)),
        proxy("svc_risk-1", "svc-risk", 3, ports=(8080, 9000)),
    )
    compiled = compile_mesh(registry(load(SAMPLE), sidecars), sidecars, JWKS)
    return {
        f"{instance}.json": json.dumps({"bootstrap": documents.bootstrap, **documents.files()}, indent=1, sort_keys=True) + "\n"
        for instance, documents in compiled.items()
        if not instance.endswith("-1")
    }


if __name__ == "__main__":
    for name, text in texts().items():
        (EXPECTED / name).write_text(text)
