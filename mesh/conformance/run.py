"""One run of the comparison, from manifests to a judgement."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mesh.conformance import ads, istiod, normal
from mesh.conformance.committed import Answers, Committed, Inputs, Overlay, inputs
from mesh.conformance.compare import Difference, differences
from mesh.conformance.differences import RUNS, Entry, Judgement, judge
from mesh.conformance.overlays import Environment, environments, unserved
from mesh.conformance.pods import collector_entries, collectors, pods
from mesh.conformance.redirect import essence
from mesh.conformance.render import Rendered, node
from mesh.local.compiler import Documents, compile_mesh

SOCKETS, REDIRECT = RUNS
INTERCEPTION: Mapping[str, str] = {SOCKETS: "NONE", REDIRECT: "REDIRECT"}
_FORMS: Mapping[str, Callable[[Mapping[str, Any]], Mapping[str, Any]]] = {SOCKETS: lambda form: form, REDIRECT: essence}

Json = dict[str, Any]


@dataclass(frozen=True)
class Compared:
    """What came out.

    Attributes:
        workloads: how many were compared.
        resources: how many Istio served them, both runs together.
        fields: how many leaves were compared.
        judgement: what differs, and whether the table explains it.
    """

    workloads: int
    resources: int
    fields: int
    judgement: Judgement

    @property
    def right(self) -> bool:
        """Say whether nothing is left to explain, and no explanation is left over."""
        return not self.judgement.unexplained and not self.judgement.unused


def ask(rendered: Rendered, directory: Path) -> Committed:
    """Start Istio's programs, which are built, and ask for everything.

    Raises:
        istiod.IstiodError: they do not take the manifests.
        grpc.RpcError: they do not answer.
    """
    analysis = istiod.analysis(rendered.policies, pods(rendered.manifests, rendered.proxies), rendered.mesh)
    try:
        with istiod.discovery(rendered) as target:
            sockets = _fetched(rendered, target, SOCKETS)
    except istiod.IstiodError as error:
        raise _located(error, analysis) from error
    with istiod.redirected(rendered) as target:
        redirect = _fetched(rendered, target, REDIRECT)
    overlays = {environment.name: _overlay(rendered, environment) for environment in environments(directory)}
    return Committed(inputs(rendered, directory), {SOCKETS: sockets, REDIRECT: redirect}, analysis, overlays)


def _overlay(rendered: Rendered, environment: Environment) -> Overlay:
    """Ask about an environment among the same workloads, in pods as a cluster has them."""
    objects = istiod.kustomize(environment.directory)
    cluster = [*pods(rendered.manifests, rendered.proxies), *collectors(environment.mesh)]
    analysis = istiod.analysis(objects, cluster, environment.mesh)
    deployed = rendered.deployed(objects, collector_entries(environment.mesh), environment.mesh)
    try:
        with istiod.redirected(deployed) as target:
            answers = _fetched(deployed, target, REDIRECT)
    except istiod.IstiodError as error:
        raise _located(error, analysis, f"{environment.name}: ") from error
    vain = [
        f"{proxy.instance}: {problem}" for proxy in rendered.proxies for problem in unserved(objects, proxy.labels, answers[proxy.instance])
    ]
    return Overlay(analysis, vain, objects)


def _located(error: istiod.IstiodError, analysis: Json, prefix: str = "") -> istiod.IstiodError:
    """The error says what is wrong, and the analyzers where."""
    return istiod.IstiodError("\n".join([f"{prefix}{error}", *map(finding, analysis["findings"])]))


def finding(item: Mapping[str, str]) -> str:
    """Return a line about an analyzer's finding."""
    return f"  {item['level']} {item['code']} {item['object']}: {item['message']}"


def _fetched(rendered: Rendered, target: str, run: str) -> Answers:
    return {proxy.instance: ads.fetch(target, node(proxy, interception=INTERCEPTION[run])) for proxy in rendered.proxies}


def compiled(rendered: Rendered) -> dict[str, Documents]:
    """Return what the compiler makes of the same manifests.

    Raises:
        mesh.local.compiler.ManifestError: it refuses them.
    """
    return compile_mesh(rendered.manifests, rendered.proxies, rendered.keys)


def compare(answered: Committed, ours: Mapping[str, Documents], entries: Sequence[Entry]) -> Compared:
    """Compare Istio's answers with what was compiled, in every run.

    Raises:
        google.protobuf.json_format.ParseError: Envoy would not read what was compiled.
    """
    forms = {instance: normal.compiled(documents) for instance, documents in ours.items()}
    fields = 0
    found: dict[str, list[Difference]] = {}
    for run, answers in answered.runs.items():
        found[run] = []
        for instance in sorted({*answers, *forms}):
            theirs = normal.served(answers[instance]) if instance in answers else {}
            form = forms.get(instance, {})
            chosen = _FORMS[run]
            count, differing = differences(instance, chosen(theirs) if theirs else {}, chosen(form) if form else {})
            fields += count
            found[run].extend(differing)
    resources = sum(len(items) for answers in answered.runs.values() for kinds in answers.values() for items in kinds.values())
    return Compared(len(forms), resources, fields, judge(found, entries))


def stale(answered: Committed | None, now: Inputs) -> bool:
    """Say whether Istio was asked something else, or may have been: anything that makes up the question has changed."""
    return answered is None or answered.inputs != now
