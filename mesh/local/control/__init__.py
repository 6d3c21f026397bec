"""Plays istiod on one machine: `python -m mesh.local.control` issues certificates, fetches the issuer's keys, compiles the manifests."""
