"""The kinds of Istio manifests that are compiled here, field by field. A field that is not listed is refused, never ignored."""

from __future__ import annotations

from collections.abc import Mapping

from mesh.local.compiler.schema import (
    Check,
    boolean,
    choice,
    duration,
    fields,
    list_of,
    map_of,
    one_of,
    one_of_with,
    percentage,
    some_of,
    text,
    whole,
)

HOST = r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)+"
NAME = r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?"

_RETRY_CONDITIONS = r"[a-z0-9-]+(,[a-z0-9-]+)*"
_PORT = whole(1, 65_535)
_PORT_TEXT = r"[1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5]"
_LABELS = map_of(text())

_HEADER = r"[a-z0-9!#$%&'*+.^_`|~-]+"
_LOCALITY = r"[A-Za-z0-9.-]+(/[A-Za-z0-9.-]+){0,2}"

GRPC_STATUS = (
    "OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS",
    "UNAUTHENTICATED",
)  # fmt: skip
"""Names of gRPC's status codes; each one's place is its number."""

RETRIES = fields({"attempts": whole(0, 10)}, {"retryOn": text(_RETRY_CONDITIONS), "perTryTimeout": duration})

MESH_CONFIG = fields(
    {
        "trustDomain": text(HOST),
        "rootNamespace": text(NAME),
        "outboundTrafficPolicy": fields({"mode": choice("REGISTRY_ONLY")}),
        "defaultConfig": fields(
            {"proxyHeaders": fields({"forwardedClientCert": choice("SANITIZE_SET")})},
            # Of what Istio's proxies count, only some is kept unless asked for; Envoys here keep all of it.
            {"proxyStatsMatcher": fields({"inclusionRegexps": list_of(text())})},
        ),
    },
    {
        "defaultHttpRetryPolicy": RETRIES,
        "connectTimeout": duration,
        "meshMTLS": fields({"minProtocolVersion": choice("TLSV1_2", "TLSV1_3")}),
        "extensionProviders": list_of(
            fields(
                {
                    "name": text(NAME),
                    "envoyFileAccessLog": fields({"path": choice("/dev/stdout"), "logFormat": fields({"labels": map_of(text())})}),
                }
            )
        ),
    },
)
"""MeshConfig, a file of its own without a header, as istiod reads it."""

_SELECTOR = fields({"matchLabels": _LABELS})

_PEER_AUTHENTICATION = fields({"mtls": fields({"mode": choice("STRICT")})}, {"selector": _SELECTOR})

_SOURCE = fields({}, {"principals": list_of(text()), "requestPrincipals": list_of(text())})

_OPERATION = fields({}, {"paths": list_of(text()), "methods": list_of(text()), "ports": list_of(text(_PORT_TEXT))})

_RULE = fields({}, {"from": list_of(fields({"source": _SOURCE})), "to": list_of(fields({"operation": _OPERATION}))})

_AUTHORIZATION_POLICY = fields({}, {"selector": _SELECTOR, "action": choice("ALLOW", "DENY"), "rules": list_of(_RULE)})

_REQUEST_AUTHENTICATION = fields(
    {
        "jwtRules": list_of(
            fields(
                {"issuer": text(), "audiences": list_of(text()), "fromHeaders": list_of(fields({"name": text()}, {"prefix": text()}))},
                {"jwksUri": text(r"https?://\S+"), "forwardOriginalToken": boolean, "outputPayloadToHeader": text(r"[a-z0-9-]+")},
            )
        )
    },
    {"selector": _SELECTOR},
)

_CONNECTION_POOL = fields(
    {},
    {
        "tcp": fields({}, {"maxConnections": whole(1), "connectTimeout": duration, "maxConnectionDuration": duration}),
        "http": fields(
            {},
            {
                "http2MaxRequests": whole(1),
                "http1MaxPendingRequests": whole(1),
                "maxRetries": whole(1),
                "maxConcurrentStreams": whole(1),
                "idleTimeout": duration,
                "http2KeepAlive": fields({"interval": duration, "timeout": duration}),
            },
        ),
    },
)

# A pool of two is never emptied by half by accident: whoever states outlier detection states how much of the pool it may take.
_OUTLIER_DETECTION = fields(
    {"maxEjectionPercent": whole(0, 100), "interval": duration, "baseEjectionTime": duration},
    {
        "consecutive5xxErrors": whole(0),
        "consecutiveGatewayErrors": whole(0),
        "consecutiveLocalOriginFailures": whole(0),
        "splitExternalLocalOriginErrors": boolean,
        "minHealthPercent": whole(0, 100),
    },
)

TRAFFIC_POLICY = fields(
    {},
    {
        "tls": fields({"mode": choice("ISTIO_MUTUAL")}),
        "loadBalancer": fields(
            {}, {"simple": choice("LEAST_REQUEST", "ROUND_ROBIN", "RANDOM"), "localityLbSetting": fields({"enabled": boolean})}
        ),
        "connectionPool": _CONNECTION_POOL,
        "outlierDetection": _OUTLIER_DETECTION,
        "retryBudget": fields({"percent": whole(0, 100)}, {"minRetryConcurrency": whole(1)}),
    },
)

_DESTINATION_RULE = fields(
    {"host": text(HOST)},
    {
        "trafficPolicy": TRAFFIC_POLICY,
        "subsets": list_of(fields({"name": text(NAME)}, {"labels": _LABELS, "trafficPolicy": TRAFFIC_POLICY})),
    },
)

_DESTINATION = fields({"host": text(HOST)}, {"port": fields({"number": _PORT}), "subset": text(NAME)})

_MATCH = some_of(
    {
        "uri": one_of({"exact": text(r"/\S*"), "prefix": text(r"/\S*")}),
        "headers": map_of(one_of({"exact": text(), "prefix": text(), "regex": text()})),
        "sourceLabels": _LABELS,
        "port": _PORT,
    }
)

_SHARE = fields({"value": percentage})

_FAULT = some_of(
    {
        "delay": fields({"fixedDelay": duration, "percentage": _SHARE}),
        "abort": one_of_with({"httpStatus": whole(200, 599), "grpcStatus": choice(*GRPC_STATUS)}, {"percentage": _SHARE}),
    }
)

_VIRTUAL_SERVICE = fields(
    {"hosts": list_of(text(HOST))},
    {
        "http": list_of(
            fields(
                {"name": text(NAME), "route": list_of(fields({"destination": _DESTINATION}, {"weight": whole(0, 100)}))},
                {"match": list_of(_MATCH), "timeout": duration, "retries": RETRIES, "fault": _FAULT},
            )
        ),
        "gateways": list_of(text(NAME)),
        "tls": list_of(
            fields(
                {
                    "match": list_of(fields({"sniHosts": list_of(text(HOST)), "port": _PORT})),
                    "route": list_of(fields({"destination": _DESTINATION})),
                }
            )
        ),
    },
)

_GATEWAY = fields(
    {
        "selector": _LABELS,
        "servers": list_of(
            fields(
                {
                    "port": fields({"number": _PORT, "name": text(NAME), "protocol": choice("TLS")}),
                    "hosts": list_of(text(HOST)),
                    "tls": fields({"mode": choice("PASSTHROUGH")}),
                }
            )
        ),
    }
)

_TELEMETRY = fields(
    {
        "accessLogging": list_of(
            fields({"providers": list_of(fields({"name": text(NAME)}))}, {"filter": fields({"expression": text()})}),
        )
    },
    {"selector": _SELECTOR},
)

_SIDECAR = fields(
    {"egress": list_of(fields({"hosts": list_of(text())}))},
    {
        "workloadSelector": fields({"labels": _LABELS}),
        "ingress": list_of(
            fields(
                {
                    "port": fields({"number": _PORT, "protocol": choice("GRPC", "HTTP"), "name": text(NAME)}),
                    "defaultEndpoint": text(r"unix:///\S+"),
                },
                {"connectionPool": _CONNECTION_POOL},
            )
        ),
    },
)

_SERVICE_ENTRY = fields(
    {
        "hosts": list_of(text(HOST)),
        "location": choice("MESH_INTERNAL"),
        "resolution": choice("STATIC"),
        "ports": list_of(fields({"number": _PORT, "name": text(NAME), "protocol": choice("GRPC", "HTTP")})),
        "workloadSelector": fields({"labels": _LABELS}),
    }
)

_WORKLOAD_ENTRY = fields({"address": text(), "serviceAccount": text(NAME), "labels": _LABELS}, {"locality": text(_LOCALITY)})

_NETWORKING, _SECURITY, _OBSERVED = "networking.istio.io/v1", "security.istio.io/v1", "telemetry.istio.io/v1"

KINDS: Mapping[str, tuple[str, Check]] = {
    "AuthorizationPolicy": (_SECURITY, _AUTHORIZATION_POLICY),
    "DestinationRule": (_NETWORKING, _DESTINATION_RULE),
    "Gateway": (_NETWORKING, _GATEWAY),
    "PeerAuthentication": (_SECURITY, _PEER_AUTHENTICATION),
    "RequestAuthentication": (_SECURITY, _REQUEST_AUTHENTICATION),
    "ServiceEntry": (_NETWORKING, _SERVICE_ENTRY),
    "Sidecar": (_NETWORKING, _SIDECAR),
    "Telemetry": (_OBSERVED, _TELEMETRY),
    "VirtualService": (_NETWORKING, _VIRTUAL_SERVICE),
    "WorkloadEntry": (_NETWORKING, _WORKLOAD_ENTRY),
}
"""API version and form of the spec, by kind."""

OBJECT = fields(
    {"apiVersion": text(), "kind": text(), "metadata": fields({"name": text(NAME), "namespace": text(NAME)}, {"labels": _LABELS})},
    {"spec": lambda value, path, problems: value},
)
"""What every manifest has around its spec."""
