"""The certificate authority of a mesh on one machine: SPIFFE certificates for an hour, for workloads of one trust domain."""

from __future__ import annotations

from mesh.local.ca.authority import Authority, Svid
from mesh.local.ca.publication import flip, publish_certificate

__all__ = ["Authority", "Svid", "flip", "publish_certificate"]
