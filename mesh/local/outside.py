"""The way into a mesh of this machine from outside: where its edge and its issuer are, and how its owner registers clients there."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from kernel.errors import Reason, UnavailableError
from mesh.local import report
from mesh.local.layout import Layout, running_supervisor
from mesh.local.state import own_directory, secret_file

EDGE_FACT, ISSUER_FACT, AUTHORITY_FACT = "edge", "issuer", "edge_authority_file"


@dataclass(frozen=True, slots=True)
class Door:
    """The edge of a running mesh.

    Attributes:
        edge: `host:port`.
        authority_file: PEM of the authority that signs its certificate.
        issuer: URL of the issuer whose tokens it takes.
        registration_token: registers clients at the issuer (RFC 7591 §3); whoever has it may be anybody to this mesh.
    """

    edge: str
    authority_file: Path
    issuer: str
    registration_token: str = field(repr=False)


def registration_token(layout: Layout) -> str:
    """Return the issuer's initial access token, made at the first call and kept."""
    return secret_file(own_directory(layout.data("secrets")) / "issuer-registration.token")


def door(layout: Layout) -> Door:
    """Return the door of the mesh that runs here.

    Raises:
        UnavailableError: none runs, or it runs without an edge.
    """
    current = report.read(layout.status_file)
    if current is None or running_supervisor(layout) is None:
        raise UnavailableError(Reason.DEPENDENCY_UNAVAILABLE, f"no mesh runs in {layout.root}")
    facts = current.facts
    if EDGE_FACT not in facts:
        raise UnavailableError(Reason.DEPENDENCY_UNAVAILABLE, f"the mesh in {layout.root} runs without an edge")
    return Door(facts[EDGE_FACT], Path(facts[AUTHORITY_FACT]), facts[ISSUER_FACT], registration_token(layout))
