"""Two ways to say the same get one form; what Envoy would treat differently stays different."""

from __future__ import annotations

import copy
from typing import Any

from mesh.conformance import normal
from mesh.conformance.ads import CLUSTER, ENDPOINT, LISTENER, ROUTE
from mesh.conformance.redirect import essence

HCM = "envoy.filters.network.http_connection_manager"
ROUTES = {"name": "r", "virtual_hosts": [{"name": "a:1", "domains": ["a", "b"], "routes": [{"match": {"prefix": "/"}}]}]}


def served(*, clusters: Any = (), endpoints: Any = (), listeners: Any = (), routes: Any = ()) -> dict[str, Any]:
    return normal.served({CLUSTER: list(clusters), ENDPOINT: list(endpoints), LISTENER: list(listeners), ROUTE: list(routes)})


def listener(manager: dict[str, Any], **fields: Any) -> dict[str, Any]:
    filters = [{"name": HCM, "typed_config": manager}]
    address = {"socket_address": {"address": "0.0.0.0", "port_value": 9000}}  # noqa: S104 (what a pod's listener says)
    return {"name": "l", "address": address, "filter_chains": [{"filters": filters}], **fields}


def endpoint(address: str) -> dict[str, Any]:
    return {"endpoint": {"address": {"socket_address": {"address": address, "port_value": 1}}}}


def test_endpoints_are_the_same_inline_or_discovered_in_any_order() -> None:
    assignment = {"cluster_name": "c", "endpoints": [{"lb_endpoints": [endpoint("127.0.0.1"), endpoint("127.0.0.2")]}]}
    turned = {"cluster_name": "c", "endpoints": [{"lb_endpoints": [endpoint("127.0.0.2"), endpoint("127.0.0.1")]}]}
    inline = served(clusters=[{"name": "c", "load_assignment": assignment}])
    discovered = served(clusters=[{"name": "c"}], endpoints=[turned])
    assert inline == discovered
    assert set(inline["clusters"]["c"]["endpoints"]) == {"127.0.0.1:1", "127.0.0.2:1"}


def test_routes_are_the_same_inline_or_discovered_but_for_the_note_that_they_are() -> None:
    inline = served(listeners=[listener({"route_config": ROUTES})])
    discovered = served(listeners=[listener({"rds": {"route_config_name": "r"}})], routes=[ROUTES])
    manager = next(iter(inline["listeners"].values()))["filter_chains"]["any"]["filters"][HCM]["typed_config"]
    other = next(iter(discovered["listeners"].values()))["filter_chains"]["any"]["filters"][HCM]["typed_config"]
    assert manager["route_config"] == other["route_config"]
    assert (manager["routes_discovered"], other["routes_discovered"]) == (False, True)


def test_the_order_of_routes_and_of_filters_counts() -> None:
    turned = copy.deepcopy(ROUTES)
    turned["virtual_hosts"][0]["routes"].insert(0, {"match": {"path": "/x"}})  # type: ignore[index]  # plain JSON
    assert served(listeners=[listener({"route_config": ROUTES})]) != served(listeners=[listener({"route_config": turned})])
    one = listener({"route_config": ROUTES, "http_filters": [{"name": "a"}, {"name": "b"}]})
    other = listener({"route_config": ROUTES, "http_filters": [{"name": "b"}, {"name": "a"}]})
    assert served(listeners=[one]) != served(listeners=[other])


def rbac(permission: dict[str, Any], action: str = "ALLOW") -> dict[str, Any]:
    kind = "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC"
    rules = {"action": action, "policies": {"p": {"permissions": [permission], "principals": [{"any": True}]}}}
    http_filter = {"name": "envoy.filters.http.rbac", "typed_config": {"@type": kind, "rules": rules}}
    return served(listeners=[listener({"route_config": ROUTES, "http_filters": [http_filter]})])


def path(text: str) -> dict[str, Any]:
    return {"url_path": {"path": {"exact": text}}}


def test_logic_of_one_member_is_the_member_and_members_have_no_order() -> None:
    assert rbac(path("/a")) == rbac({"and_rules": {"rules": [{"or_rules": {"rules": [path("/a")]}}]}})
    assert rbac({"or_rules": {"rules": [path("/a"), path("/b")]}}) == rbac({"or_rules": {"rules": [path("/b"), path("/a")]}})


def test_or_is_not_and_deny_is_not_allow_and_members_count() -> None:
    members = [path("/a"), path("/b")]
    assert rbac({"or_rules": {"rules": members}}) != rbac({"and_rules": {"rules": members}})
    assert rbac(path("/a")) != rbac(path("/a"), action="DENY")
    assert rbac({"or_rules": {"rules": members}}) != rbac({"or_rules": {"rules": [*members, path("/c")]}})


def test_nested_logic_is_kept() -> None:
    inner = {"or_rules": {"rules": [path("/a"), path("/b")]}}
    port = {"destination_port": 1}
    assert rbac({"and_rules": {"rules": [inner, port]}}) == rbac({"and_rules": {"rules": [port, inner]}})
    assert rbac({"and_rules": {"rules": [inner, port]}}) != rbac({"or_rules": {"rules": [inner, port]}})


def tls(**context: Any) -> dict[str, Any]:
    socket = {"name": "tls", "typed_config": {"common_tls_context": context}}
    found: dict[str, Any] = served(clusters=[{"name": "c", "transport_socket": socket}])["clusters"]["c"]["transport_socket"]
    return dict(found["common_tls_context"])


def test_names_of_certificates_are_compared_wherever_they_stand() -> None:
    plain = tls(validation_context={"match_typed_subject_alt_names": [{"san_type": "URI", "matcher": {"exact": "spiffe://a"}}]})
    combined = tls(combined_validation_context={"default_validation_context": {"match_subject_alt_names": [{"exact": "spiffe://a"}]}})
    key = '{"exact":"spiffe://a"}'
    assert plain["validation"]["subject_alt_names"] == {key: "URI"}
    assert combined["validation"]["subject_alt_names"] == {key: "any type"}


def test_redirected_listeners_are_told_apart_by_the_ports_of_their_chains() -> None:
    chains = [
        {"filter_chain_match": {"destination_port": port}, "filters": [{"name": HCM, "typed_config": {"route_config": ROUTES}}]}
        for port in (15006, 9000, 8080)
    ]
    whole = served(listeners=[listener({"route_config": ROUTES}, traffic_direction="INBOUND", filter_chains=chains)])
    assert set(essence(whole)["listeners"]) == {"inbound|9000", "inbound|8080", "outbound|all"}


def test_names_without_a_port_get_that_of_their_listener() -> None:
    whole = served(listeners=[listener({"route_config": ROUTES}, traffic_direction="OUTBOUND")])
    assert essence(whole)["listeners"]["outbound|all"]["virtual_hosts"]["a:1"]["domains"] == {"a:1": True, "b:1": True}
