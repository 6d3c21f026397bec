"""Compares what `mesh.local.compiler` makes of the manifests with what Istio itself makes of them: `make conformance`.

Istio's own `pilot-discovery` is built with Go, run without Kubernetes on the same manifests and the same registry, and asked for the
configuration of every workload of a mesh with two replicas of each service. Both sides are brought into one form and compared leaf by
leaf. What differs must stand in `differences.yaml` with its reason.

What Istio answered is committed (`expected/`), so that a comparison needs no Go as long as nothing that Istio reads has changed.
"""
