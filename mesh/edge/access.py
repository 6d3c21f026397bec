"""Reads `access.yaml`: which methods clients outside may call, where they are served, and with which roles."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from mesh.edge.contract import Contract, ContractError, Method

TABLE = Path(__file__).parent / "access.yaml"
TIMEOUT_SECONDS = 10.0

_NAME = re.compile(r"[a-z][a-z0-9-]{0,62}")
_TIMEOUT_SECONDS_MAX = 300


class AccessError(Exception):
    """The table is wrong; the message names every wrong place."""


@dataclass(frozen=True, slots=True)
class Grant:
    """One method that clients outside may call.

    Attributes:
        method: of the contract.
        workload: the service account that serves it.
        roles: the user needs one of these; None takes every user.
        timeout_seconds: deadline of callers who set none or a longer one, where the mesh says nothing.
        priority: it has a rate limit of its own.
    """

    method: Method
    workload: str
    roles: frozenset[str] | None
    timeout_seconds: float
    priority: bool


def load(contract: Contract, table: Path = TABLE) -> tuple[Grant, ...]:
    """Return the grants of the table.

    Raises:
        AccessError: the table is malformed, or names what the contract does not have.
    """
    try:
        document = yaml.safe_load(table.read_text())
    except yaml.YAMLError as error:
        raise AccessError(f"{table.name}: {error}") from None
    problems: list[str] = []
    grants: list[Grant] = []
    if not isinstance(document, dict) or set(document) != {"services"} or not isinstance(document["services"], dict):
        raise AccessError(f"{table.name}: needs `services`, and nothing else")
    for name, service in document["services"].items():
        grants += _service(contract, str(name), service, problems)
    if problems:
        raise AccessError(f"{table.name}: {'; '.join(problems)}")
    return tuple(grants)


def missing(contract: Contract, grants: Sequence[Grant]) -> list[str]:
    """Return the methods with a REST binding that no grant names: they have a door in the contract, and it is shut."""
    granted = {grant.method.path for grant in grants}
    found = (method for service in contract.services() for method in contract.methods(service))
    return sorted(method.path for method in found if method.bindings and method.path not in granted)


def _service(contract: Contract, name: str, service: Any, problems: list[str]) -> list[Grant]:
    if not isinstance(service, dict) or set(service) != {"workload", "methods"} or not isinstance(service["methods"], dict):
        problems.append(f"{name} needs `workload` and `methods`, and nothing else")
        return []
    workload = service["workload"]
    if not isinstance(workload, str) or _NAME.fullmatch(workload) is None:
        problems.append(f"{name}.workload: not the name of a service account")
        return []
    try:
        methods = {method.descriptor.name: method for method in contract.methods(name)}
    except ContractError as error:
        problems.append(str(error))
        return []
    grants = []
    for method_name, row in service["methods"].items():
        place = f"{name}.{method_name}"
        if method_name not in methods:
            problems.append(f"{place}: the contract has no such method")
        elif (wrong := _wrong(row)) is not None:
            problems.append(f"{place}: {wrong}")
        else:
            grants.append(_grant(methods[method_name], workload, row))
    return grants


def _wrong(row: Any) -> str | None:
    if not isinstance(row, dict) or "roles" not in row or not row.keys() <= {"roles", "timeout_seconds", "priority"}:
        return "needs `roles`, and may have `timeout_seconds` and `priority`"
    roles, timeout = row["roles"], row.get("timeout_seconds", TIMEOUT_SECONDS)
    if roles != "any" and not _names(roles):
        return "`roles` has to be a list of roles, or `any`"
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not 0 < timeout <= _TIMEOUT_SECONDS_MAX:
        return f"`timeout_seconds` has to be above 0 and at most {_TIMEOUT_SECONDS_MAX}"
    if not isinstance(row.get("priority", False), bool):
        return "`priority` has to be true or false"
    return None


def _names(roles: Any) -> bool:
    return isinstance(roles, list) and bool(roles) and all(isinstance(role, str) and _NAME.fullmatch(role) for role in roles)


def _grant(method: Method, workload: str, row: Mapping[str, Any]) -> Grant:
    roles = None if row["roles"] == "any" else frozenset(row["roles"])
    return Grant(method, workload, roles, float(row.get("timeout_seconds", TIMEOUT_SECONDS)), bool(row.get("priority", False)))
