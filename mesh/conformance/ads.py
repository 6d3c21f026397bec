"""Asks a control plane for the whole configuration of one workload (xDS v3, aggregated, state of the world)."""

from __future__ import annotations

import queue
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import grpc
from google.protobuf import json_format
from google.protobuf.message import Message

from mesh.conformance.protos import message_class, pool, to_json

METHOD = "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources"
CLUSTER = "envoy.config.cluster.v3.Cluster"
ENDPOINT = "envoy.config.endpoint.v3.ClusterLoadAssignment"
LISTENER = "envoy.config.listener.v3.Listener"
ROUTE = "envoy.config.route.v3.RouteConfiguration"

_REQUEST = "envoy.service.discovery.v3.DiscoveryRequest"
_RESPONSE = "envoy.service.discovery.v3.DiscoveryResponse"
_ANSWER_BYTES_MAX = 64 * 1024 * 1024

Json = dict[str, Any]
Resources = dict[str, list[Json]]
"""Resources by type, each in protobuf's JSON mapping."""


def fetch(target: str, node: Mapping[str, Any], *, timeout_seconds: float = 30.0) -> Resources:
    """Return a workload's clusters, endpoints, listeners and routes, each sorted by name.

    Args:
        target: of the control plane, without TLS.
        node: who asks, in the JSON mapping of `envoy.config.core.v3.Node`.
        timeout_seconds: for all of it.

    Raises:
        grpc.RpcError: there was no answer.
    """
    with grpc.insecure_channel(target, options=[("grpc.max_receive_message_length", _ANSWER_BYTES_MAX)]) as channel:
        stream = _Stream(channel, node, timeout_seconds)
        clusters = stream.ask(CLUSTER)
        dynamic = [item.get("eds_cluster_config", {}).get("service_name", item["name"]) for item in clusters if item.get("type") == "EDS"]
        endpoints = stream.ask(ENDPOINT, dynamic)
        listeners = stream.ask(LISTENER)
        routes = stream.ask(ROUTE, sorted(set(_route_names(listeners))))
        stream.close()
    return {CLUSTER: clusters, ENDPOINT: endpoints, LISTENER: listeners, ROUTE: routes}


class _Stream:
    """One stream of questions, each answered before the next is put."""

    def __init__(self, channel: grpc.Channel, node: Mapping[str, Any], timeout_seconds: float) -> None:
        self._requests: queue.SimpleQueue[Message | None] = queue.SimpleQueue()
        self._node = node
        call: Any = channel.stream_stream(
            METHOD,
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=message_class(_RESPONSE).FromString,
        )
        self._answers: Iterator[Any] = call(iter(self._requests.get, None), timeout=timeout_seconds)

    def ask(self, name: str, resources: Sequence[str] | None = None) -> list[Json]:
        """Return the resources of a type; None asks for all that there are."""
        if resources is not None and not resources:
            return []
        request: Any = message_class(_REQUEST)(type_url=_url(name), resource_names=list(resources or []))
        json_format.ParseDict(dict(self._node), request.node, descriptor_pool=pool())
        self._requests.put(request)
        answer = next(item for item in self._answers if item.type_url == _url(name))
        # Acknowledged, or the control plane would hold back what comes later.
        acknowledged: Any = message_class(_REQUEST)(
            type_url=_url(name), resource_names=list(resources or []), version_info=answer.version_info, response_nonce=answer.nonce
        )
        self._requests.put(acknowledged)
        found = [to_json(message_class(name).FromString(resource.value)) for resource in answer.resources]
        return sorted(found, key=lambda item: str(item.get("name", item.get("cluster_name"))))

    def close(self) -> None:
        """Say that there is no further question."""
        self._requests.put(None)


def _url(name: str) -> str:
    return f"type.googleapis.com/{name}"


def _route_names(value: Any) -> Iterator[str]:
    """Find what listeners leave to route discovery."""
    if isinstance(value, dict):
        if "route_config_name" in value:
            yield value["route_config_name"]
        for entry in value.values():
            yield from _route_names(entry)
    elif isinstance(value, list):
        for entry in value:
            yield from _route_names(entry)
