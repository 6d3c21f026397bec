"""The edge: the Envoy gateway through which clients outside the mesh come, by gRPC, gRPC-Web and REST.

`documents` turns options, clusters and routes into the gateway's Envoy v3 documents; it reads no clock and opens no file. The contract
(which methods there are, what their JSON looks like) comes from the generated descriptor, who may call what from `access.yaml`.
"""
