"""The HTTP filters of the edge, in the order in which a request meets them.

Who the user is (a token, whatever the path) is asked before a body is read; what the user may do is asked behind the transcoder, where
REST and gRPC requests bear the same names (ADR 28).
"""

from __future__ import annotations

import base64
from typing import Any

from kernel.identity import CLAIMS_HEADER
from mesh.edge.options import EdgeOptions
from mesh.edge.refusals import FULL_HEADER

Json = dict[str, Any]

METHOD_HEADER = "x-trademesh-method"
"""Which method the strict door read out of a request; the rules of the method that the transcoder chose require the same."""
JWT = "envoy.filters.http.jwt_authn"
LUA = "envoy.filters.http.lua"
FULL = "trademesh.full"
"""Does nothing but on routes to a pool of bounded size, which bring its script."""
LINES = "trademesh.lines"
"""Does nothing but on routes of server streams, which bring its script."""
RBAC = "envoy.filters.http.rbac"
TRANSCODER = "envoy.filters.http.grpc_json_transcoder"
CONNECTION_RATE = "trademesh.connection_rate"
USER_RATE = "trademesh.user_rate"
CLAIMS = "payload"

_FILTERS = "type.googleapis.com/envoy.extensions.filters.http"
_CLOCK_SKEW_SECONDS = 5
"""The services' own check has no leeway; this one only keeps a slow clock of the edge from refusing fresh tokens."""
_JWT_CACHE = {"jwt_cache_size": 4_096, "jwt_max_token_size": 8_192}


def http_filters(options: EdgeOptions, *, tokens: Json, full: str, script: str, lines: str, transcoder: Json) -> list[Json]:
    """Return the chain.

    Args:
        options: of the edge.
        tokens: the filter that `tokens` returns, or a reference to it.
        full: the Lua of `lua_tables.full_script`.
        script: the Lua of `lua_tables.script`.
        lines: the Lua of `lua_tables.lines_script`.
        transcoder: as `transcoder` returns it.
    """
    limits = options.limits
    return [
        _filter("envoy.filters.http.header_mutation", "header_mutation.v3.HeaderMutation", mutations={"response_mutations": _answers()}),
        _filter("envoy.filters.http.cors", "cors.v3.Cors"),
        _filter("envoy.filters.http.grpc_web", "grpc_web.v3.GrpcWeb"),
        {"name": CONNECTION_RATE, "typed_config": _connection_rate(limits.connection_requests_per_second)},
        # Before the token: what is too much costs least here.
        _filter(FULL, "lua.v3.Lua", source_codes={FULL: {"inline_string": full}}),
        tokens,
        _filter(LUA, "lua.v3.Lua", default_source_code={"inline_string": script}),
        # By name, because every inline script of a route would be an interpreter of its own.
        _filter(LINES, "lua.v3.Lua", source_codes={LINES: {"inline_string": lines}}),
        {"name": TRANSCODER, "typed_config": transcoder},
        # Without a rule of its own a route is shut.
        _filter(RBAC, "rbac.v3.RBAC", rules={"action": "ALLOW", "policies": {}}),
        {"name": USER_RATE, "typed_config": user_rate(limits.user_requests_per_second, limits.users_max)},
        _filter("envoy.filters.http.router", "router.v3.Router", suppress_envoy_headers=True),
    ]


def tokens(options: EdgeOptions, *, public: tuple[str, ...], tickets: tuple[str, ...]) -> Json:
    """Return the filter that asks for a token, with the issuer's keys.

    Args:
        options: of the edge.
        public: exact paths without a token.
        tickets: exact paths that may come with or without one; what is behind them decides.
    """
    provider = {
        "issuer": options.issuer,
        "audiences": [options.audience],
        "local_jwks": {"inline_string": options.jwks},
        # Stated, because by default a token is taken from the query as well, and queries end in logs.
        "from_headers": [{"name": "authorization", "value_prefix": "Bearer "}],
        "forward": True,
        "forward_payload_header": CLAIMS_HEADER,
        "payload_in_metadata": CLAIMS,
        "clock_skew_seconds": _CLOCK_SKEW_SECONDS,
        "require_expiration": True,
        "jwt_cache_config": _JWT_CACHE,
    }
    required = {"provider_name": "users"}
    optional = {"requires_any": {"requirements": [required, {"allow_missing": {}}]}}
    rules = [
        *({"match": {"path": path}} for path in public),
        *({"match": {"path": path}, "requires": optional} for path in tickets),
        {"match": {"prefix": "/"}, "requires": required},
    ]
    providers = {"users": provider}
    fixed = {"bypass_cors_preflight": True, "strip_failure_response": False}
    return _filter(JWT, "jwt_authn.v3.JwtAuthentication", providers=providers, rules=rules, **fixed)


def transcoder(options: EdgeOptions, descriptor_set: bytes, services: list[str], *, sse: bool) -> Json:
    """Return the transcoder's configuration, with the strict options that were measured (see docs/reference/rest.md).

    Args:
        options: of the edge.
        descriptor_set: with the details of errors: a detail of an unknown type would make the body of an error empty.
        services: to transcode, by full name.
        sse: streams as Server-Sent Events; otherwise as lines.
    """
    style = {"stream_sse_style_delimited": True} if sse else {"stream_newline_delimited": True}
    return {
        "@type": f"{_FILTERS}.grpc_json_transcoder.v3.GrpcJsonTranscoder",
        "proto_descriptor_bin": base64.b64encode(descriptor_set).decode(),
        "services": services,
        "match_incoming_request_route": False,
        "auto_mapping": False,
        "convert_grpc_status": True,
        "case_insensitive_enum_parsing": False,
        "ignore_unknown_query_parameters": False,
        "url_unescape_spec": "ALL_CHARACTERS_EXCEPT_SLASH",
        "query_param_unescape_plus": False,
        "print_options": {"preserve_proto_field_names": True, "always_print_primitive_fields": True, **style},
        "request_validation_options": {
            "reject_unknown_method": True,
            "reject_unknown_query_parameters": True,
            "reject_binding_body_field_collisions": True,
        },
        "max_request_body_size": options.limits.body_bytes_max,
        "max_response_body_size": options.limits.response_bytes_max,
    }


def route_rules(method: str, roles: frozenset[str] | None) -> Json:
    """Return the RBAC rule of a method's route: the strict door read the same method, and the user has one of the roles."""
    named = {"header": {"name": METHOD_HEADER, "string_match": {"exact": method}}}
    if roles is None:
        principal = _claim("sub", {"string_match": {"safe_regex": {"regex": ".+"}}})
    else:
        matches = [{"string_match": {"exact": role}} for role in sorted(roles)]
        principal = {"or_ids": {"ids": [_claim("roles", {"list_match": {"one_of": match}}) for match in matches]}}
    return _allow({"permissions": [named], "principals": [principal]})


def open_rules() -> Json:
    """Return the RBAC rule of a route that is no RPC: whoever came this far may pass."""
    return _allow({"permissions": [{"any": True}], "principals": [{"any": True}]})


def user_rate(per_second: int, users_max: int) -> Json:
    """Return a rate limit of one bucket per user; the bucket of all users together is as large as all of theirs."""
    bucket = _bucket(per_second)
    return {
        "@type": f"{_FILTERS}.local_ratelimit.v3.LocalRateLimit",
        "stat_prefix": "user_rate",
        "token_bucket": _bucket(per_second * users_max),
        **_always(),
        "descriptors": [{"entries": [{"key": "user"}], "token_bucket": bucket}],
        "max_dynamic_descriptors": users_max,
        "rate_limited_as_resource_exhausted": True,
        "rate_limits": [
            {
                "actions": [
                    {
                        "metadata": {
                            "descriptor_key": "user",
                            "metadata_key": {"key": JWT, "path": [{"key": CLAIMS}, {"key": "sub"}]},
                            "source": "DYNAMIC",
                            "skip_if_absent": True,
                        }
                    }
                ]
            }
        ],
    }


def _connection_rate(per_second: int) -> Json:
    return {
        "@type": f"{_FILTERS}.local_ratelimit.v3.LocalRateLimit",
        "stat_prefix": "connection_rate",
        "token_bucket": _bucket(per_second),
        **_always(),
        "local_rate_limit_per_downstream_connection": True,
        "rate_limited_as_resource_exhausted": True,
    }


def _bucket(per_second: int) -> Json:
    """A tenth of a second at a time, so that a burst is no longer than that."""
    tokens = max(per_second // 10, 1)
    return {"max_tokens": tokens, "tokens_per_fill": tokens, "fill_interval": f"{tokens / per_second:.6f}s"}


def _always() -> Json:
    whole = {"default_value": {"numerator": 100, "denominator": "HUNDRED"}}
    return {"filter_enabled": whole, "filter_enforced": whole}


def _answers() -> list[Json]:
    """Headers of every answer, Envoy's own included."""
    always = {
        "strict-transport-security": "max-age=31536000",
        "x-content-type-options": "nosniff",
        "cache-control": "no-store",
        "referrer-policy": "no-referrer",
    }
    added = [{"append": {"header": {"key": key, "value": value}, "append_action": "ADD_IF_ABSENT"}} for key, value in always.items()]
    return [*added, *({"remove": name} for name in ("server", "grpc-accept-encoding", FULL_HEADER))]


def _claim(name: str, value: Json) -> Json:
    return {"metadata": {"filter": JWT, "path": [{"key": CLAIMS}, {"key": name}], "value": value}}


def _allow(policy: Json) -> Json:
    rules = {"action": "ALLOW", "policies": {"method": policy}}
    return {"@type": f"{_FILTERS}.rbac.v3.RBACPerRoute", "rbac": {"rules": rules}}


def _filter(name: str, kind: str, **config: Any) -> Json:
    return {"name": name, "typed_config": {"@type": f"{_FILTERS}.{kind}", **config}}
