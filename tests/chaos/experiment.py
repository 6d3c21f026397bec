"""Experiments by fault injection, as Istio manifests that a cluster takes as they are: `python -m tests.chaos.experiment` writes them.

Each is the VirtualService of a service as in `mesh/istio`, under the same name, with a fault in front of one of its routes for one caller.
`kubectl apply -f tests/chaos/experiments/NAME.yaml` begins it, `kubectl apply -k mesh/istio` ends it.
"""

from __future__ import annotations

import copy
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from mesh.local.sidecar import MANIFESTS
from tests.chaos import manifests

DIRECTORY = Path(__file__).parent / "experiments"

Json = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """One experiment.

    Attributes:
        name: of its file and of the fault's target.
        what: for people.
        service: whose VirtualService it is.
        caller: the label `app` of whom it happens to.
        route: the name of the route.
        fault: delay, abort or both, in Istio's form.
    """

    name: str
    what: str
    service: str
    caller: str
    route: str
    fault: Json

    def manifest(self, directory: Path = MANIFESTS) -> Json:
        """Return the VirtualService.

        Raises:
            LookupError: the service's manifests have no such route.
        """
        path = directory / f"{self.service}.yaml"
        for item in manifests.documents(path.read_text()):
            if item["kind"] == "VirtualService":
                found = copy.deepcopy(item)
                routes: list[Json] = found["spec"]["http"]
                number = next((number for number, http in enumerate(routes) if http["name"] == self.route), None)
                if number is None:
                    break
                routes.insert(number, self._faulty(routes[number]))
                return found
        raise LookupError(f"{path.name}: no route {self.route}")

    def text(self) -> str:
        """Return its file."""
        head = f"# {self.what}\n# Written by `python -m tests.chaos.experiment` from mesh/istio/{self.service}.yaml.\n"
        return head + yaml.safe_dump(self.manifest(), sort_keys=False, width=140)

    def _faulty(self, http: Json) -> Json:
        # Copies of everything: YAML would name what stands twice and refer to it.
        matches = [{**copy.deepcopy(match), "sourceLabels": {"app": self.caller}} for match in http.get("match", [{}])]
        return {**copy.deepcopy(http), "name": f"{self.route}-{self.name}", "match": matches, "fault": copy.deepcopy(self.fault)}


def _delay(seconds: str, percent: float = 100.0) -> Json:
    return {"fixedDelay": seconds, "percentage": {"value": percent}}


def _abort(percent: float = 100.0, **code: object) -> Json:
    return {**code, "percentage": {"value": percent}}


EXPERIMENTS = (
    Experiment(
        name="risk-late",
        what="Every question of the order service to risk waits for longer than its deadline.",
        service="svc-risk",
        caller="svc-oms",
        route="pre-trade",
        fault={"delay": _delay("15s")},
    ),
    Experiment(
        name="risk-refuses",
        what="Every question of the order service to risk is answered UNAVAILABLE by the mesh.",
        service="svc-risk",
        caller="svc-oms",
        route="pre-trade",
        fault={"abort": _abort(grpcStatus="UNAVAILABLE")},
    ),
    Experiment(
        name="risk-shaky",
        what="A third of the order service's questions to risk are refused, a half is late by 300 ms.",
        service="svc-risk",
        caller="svc-oms",
        route="pre-trade",
        fault={"delay": _delay("0.3s", 50.0), "abort": _abort(33.0, grpcStatus="UNAVAILABLE")},
    ),
    Experiment(
        name="orders-503",
        what="Half of the orders from outside get a bare 503 of a proxy.",
        service="svc-oms",
        caller="edge",
        route="order-entry",
        fault={"abort": _abort(50.0, httpStatus=503)},
    ),
    Experiment(
        name="cancels-late",
        what="Every cancel from outside is late by half a second.",
        service="svc-oms",
        caller="edge",
        route="cancels",
        fault={"delay": _delay("0.5s")},
    ),
    Experiment(
        name="quotes-refused",
        what="Half of the questions for prices from outside are answered UNAVAILABLE.",
        service="svc-marketdata",
        caller="edge",
        route="reads",
        fault={"abort": _abort(50.0, grpcStatus="UNAVAILABLE")},
    ),
    Experiment(
        name="events-late",
        what="Every page of the order service's log reaches portfolios a second late.",
        service="svc-oms",
        caller="svc-portfolio",
        route="reads",
        fault={"delay": _delay("1s")},
    ),
)


def main() -> int:
    """Write all of them; return the exit code."""
    DIRECTORY.mkdir(exist_ok=True)
    for path in DIRECTORY.glob("*.yaml"):
        path.unlink()
    for experiment in EXPERIMENTS:
        (DIRECTORY / f"{experiment.name}.yaml").write_text(experiment.text())
    return 0


if __name__ == "__main__":
    sys.exit(main())
