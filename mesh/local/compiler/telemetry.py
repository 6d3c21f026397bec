"""Telemetry as access logs of Envoy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mesh.local.compiler.manifests import Manifest
from mesh.local.compiler.problems import ManifestError

Json = dict[str, Any]


def access_logs(policies: Sequence[Manifest], mesh: Mapping[str, Any]) -> list[Json]:
    """Return the access logs of a workload's listeners; without a Telemetry none.

    Args:
        policies: what applies to the workload.
        mesh: MeshConfig, whose extension providers the policies name.

    Raises:
        ManifestError: several apply, which Istio would merge, or a provider is not there.
    """
    if len(policies) > 1:
        raise ManifestError([policies[1].problem(f"spec: {policies[0].name} applies to the same workload; merging is not in the subset")])
    formats = {item["name"]: item["envoyFileAccessLog"] for item in mesh.get("extensionProviders", [])}
    problems, found = [], []
    for policy in policies:
        for number, logging in enumerate(policy.spec["accessLogging"]):
            for position, provider in enumerate(logging["providers"]):
                if provider["name"] in formats:
                    found.append(_log(formats[provider["name"]], logging.get("filter")))
                else:
                    where = f"spec.accessLogging[{number}].providers[{position}].name"
                    problems.append(policy.problem(f"{where}: no extension provider is called {provider['name']}"))
    if problems:
        raise ManifestError(problems)
    return found


def _log(provider: Mapping[str, Any], wanted: Mapping[str, str] | None) -> Json:
    log: Json = {
        "name": "envoy.access_loggers.file",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
            "path": provider["path"],
            "log_format": {
                "json_format": dict(provider["logFormat"]["labels"]),
                "json_format_options": {"sort_properties": False},
            },
        },
    }
    if wanted is not None:
        log["filter"] = {
            "extension_filter": {
                "name": "envoy.access_loggers.extension_filters.cel",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.access_loggers.filters.cel.v3.ExpressionFilter",
                    "expression": wanted["expression"],
                },
            }
        }
    return log
