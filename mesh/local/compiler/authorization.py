"""AuthorizationPolicies as Envoy's RBAC filters."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from mesh.local.compiler.authentication import JWT_FILTER, PAYLOAD
from mesh.local.compiler.manifests import Manifest

RBAC_FILTER = "envoy.filters.http.rbac"

Json = dict[str, Any]


def rbac_filters(policies: Sequence[Manifest]) -> list[Json]:
    """Return the filters, those that deny first.

    No policy at all allows everything, as in Istio; one without rules allows nothing by itself, so `spec: {}` denies what no other allows.
    """
    found = []
    for action in ("DENY", "ALLOW"):
        acting = [policy for policy in policies if policy.spec.get("action", "ALLOW") == action]
        if acting:
            found.append(_filter(action, acting))
    return found


def _filter(action: str, policies: Sequence[Manifest]) -> Json:
    rules = {
        f"ns[{policy.namespace}]-policy[{policy.name}]-rule[{number}]": {
            "permissions": [_permission(rule.get("to", []))],
            "principals": [_principal(rule.get("from", []))],
        }
        for policy in policies
        for number, rule in enumerate(policy.spec.get("rules", []))
    }
    return {
        "name": RBAC_FILTER,
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC",
            "rules": {"action": action, "policies": rules},
            "shadow_rules_stat_prefix": f"istio_dry_run_{action.lower()}_",
        },
    }


def _permission(operations: Sequence[Json]) -> Json:
    if not operations:
        return {"any": True}
    found = []
    for entry in operations:
        operation = entry["operation"]
        parts = [
            _any("or_rules", "rules", [{"url_path": {"path": _matcher(path)}} for path in operation.get("paths", [])]),
            _any("or_rules", "rules", [_header(":method", method) for method in operation.get("methods", [])]),
            _any("or_rules", "rules", [{"destination_port": int(port)} for port in operation.get("ports", [])]),
        ]
        found.append(_all("and_rules", "rules", [part for part in parts if part is not None]))
    return {"or_rules": {"rules": found}} if len(found) > 1 else found[0]


def _principal(sources: Sequence[Json]) -> Json:
    if not sources:
        return {"any": True}
    found = []
    for entry in sources:
        source = entry["source"]
        parts = [
            _any("or_ids", "ids", [{"authenticated": {"principal_name": _peer(name)}} for name in source.get("principals", [])]),
            _any("or_ids", "ids", [_request_principal(name) for name in source.get("requestPrincipals", [])]),
        ]
        found.append(_all("and_ids", "ids", [part for part in parts if part is not None]))
    return {"or_ids": {"ids": found}} if len(found) > 1 else found[0]


def _any(kind: str, field: str, items: list[Json]) -> Json | None:
    return {kind: {field: items}} if items else None


def _all(kind: str, field: str, items: list[Json]) -> Json:
    return {kind: {field: items}} if items else {"any": True}


def _peer(name: str) -> Json:
    """A principal as Istio writes it has no scheme, and `*` at one end stands for anything."""
    if name == "*":
        return {"safe_regex": {"regex": ".+"}}
    if name.endswith("*"):
        return {"prefix": f"spiffe://{name[:-1]}"}
    if name.startswith("*"):
        return {"suffix": name[1:]}
    return {"exact": f"spiffe://{name}"}


def _request_principal(name: str) -> Json:
    """`issuer/subject`; a subject of `*` stands for any."""
    anything = {"safe_regex": {"regex": ".+"}}
    issuer, _, subject = name.rpartition("/")
    matchers = (("iss", {"exact": issuer} if issuer else anything), ("sub", anything if subject == "*" else {"exact": subject}))
    return {"and_ids": {"ids": [_claim(key, matcher) for key, matcher in matchers]}}


def _claim(name: str, matcher: Json) -> Json:
    return {"metadata": {"filter": JWT_FILTER, "path": [{"key": PAYLOAD}, {"key": name}], "value": {"string_match": matcher}}}


def _matcher(path: str) -> Json:
    if path == "*":
        return {"safe_regex": {"regex": ".+"}}
    if path.endswith("*"):
        return {"prefix": path[:-1]}
    if path.startswith("*"):
        return {"suffix": path[1:]}
    return {"exact": path}


def _header(name: str, value: str) -> Json:
    if value == "*":
        return {"header": {"name": name, "string_match": {"safe_regex": {"regex": ".+"}}}}
    if value.endswith("*"):
        return {"header": {"name": name, "string_match": {"safe_regex": {"regex": f"{re.escape(value[:-1])}.*"}}}}
    return {"header": {"name": name, "string_match": {"exact": value}}}
