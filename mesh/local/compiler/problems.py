"""How a manifest is refused: every finding names file, object and field."""

from __future__ import annotations

from collections.abc import Sequence


class ManifestError(Exception):
    """The manifests cannot be compiled; nothing was produced.

    `problems` has one sentence per finding, such as `svc-oms.yaml: DestinationRule/svc-oms: spec.trafficPolicy.tls.mode: must be …`.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("manifests refused:\n" + "\n".join(f"  {problem}" for problem in problems))
        self.problems = tuple(problems)
