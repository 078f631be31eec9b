"""Connectivity: selectors, services, the ingress and the network policies."""

import re
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from gateway.http.server import _MAX_LINE
from tests.tools.deploy.kustomize import Manifest
from tests.tools.deploy.objects import (
    environment_of,
    named,
    of_kind,
    pod_of,
    ports_of,
    selected,
)
from tests.tools.deploy.places import DOCS


def test_selectors_select_what_they_are_named_for(manifests: list[Manifest]) -> None:
    for workload in of_kind(manifests, "Deployment"):
        selector = workload["spec"]["selector"]["matchLabels"]
        assert selected(selector, manifests) == [workload]
        for constraint in pod_of(workload)["spec"]["topologySpreadConstraints"]:
            assert constraint["labelSelector"]["matchLabels"] == selector
        name = workload["metadata"]["name"]
        budget = named(manifests, "PodDisruptionBudget", name)
        assert budget["spec"]["selector"]["matchLabels"] == selector
        scaler = named(manifests, "HorizontalPodAutoscaler", name)
        assert scaler["spec"]["scaleTargetRef"]["name"] == name
        assert "replicas" not in workload["spec"], "the autoscaler's number would be overwritten"


def test_services_lead_to_ports_that_every_selected_pod_has(manifests: list[Manifest]) -> None:
    for service in of_kind(manifests, "Service"):
        workloads = selected(service["spec"]["selector"], manifests)
        assert workloads
        for port in service["spec"]["ports"]:
            assert all(port["targetPort"] in ports_of(workload) for workload in workloads)


def test_the_ingress_reaches_the_public_port_only(manifests: list[Manifest]) -> None:
    (ingress,) = of_kind(manifests, "Ingress")
    (rule,) = ingress["spec"]["rules"]
    (path,) = rule["http"]["paths"]
    backend = path["backend"]["service"]
    service = named(manifests, "Service", backend["name"])
    assert {port["targetPort"] for port in service["spec"]["ports"]} == {"http"}
    assert backend["port"]["name"] == "http"
    assert ingress["spec"]["tls"] == [
        {"hosts": [rule["host"]], "secretName": ingress["spec"]["tls"][0]["secretName"]}
    ]


def test_the_ingress_bounds_clients_but_no_body(manifests: list[Manifest]) -> None:
    (ingress,) = of_kind(manifests, "Ingress")
    prefix = "nginx.ingress.kubernetes.io/"
    annotations = {
        name.removeprefix(prefix): value
        for name, value in ingress["metadata"]["annotations"].items()
        if name.startswith(prefix)
    }
    assert annotations["proxy-body-size"] == "0"
    assert annotations["proxy-request-buffering"] == annotations["proxy-buffering"] == "off"
    assert 0 < int(annotations["limit-connections"]) <= 1000
    assert 0 < int(annotations["limit-rps"]) <= 1000
    assert not [name for name in annotations if name.endswith("-snippet")]


def test_the_manuals_controller_reads_at_most_64_kib_of_a_request_head() -> None:
    manual = (DOCS / "operating.md").read_text()
    (block,) = re.findall(r"^```yaml\n(large-client-header-buffers.*?)^```$", manual, re.M | re.S)
    controller = yaml.safe_load(block)
    count, size = map(int, re.findall(r"\d+", controller["large-client-header-buffers"]))
    assert count * size <= 64
    assert size * 1024 == _MAX_LINE


def _peers(manifests: list[Manifest], direction: str, component: str) -> dict[Any, list[Any]]:
    """Ports, named or numbered, open to a component's pods, with their rules' peers."""
    (workload,) = selected({"app.kubernetes.io/component": component}, manifests)
    found: dict[Any, list[Any]] = {}
    for policy in of_kind(manifests, "NetworkPolicy"):
        if workload not in selected(
            policy["spec"]["podSelector"].get("matchLabels", {}), manifests
        ):
            continue
        for rule in policy["spec"].get(direction.lower(), ()):
            for port in rule["ports"]:
                found.setdefault(port["port"], []).extend(
                    rule["from" if direction == "Ingress" else "to"]
                )
    return found


def _namespaces(peers: list[Any]) -> set[str]:
    return {
        peer["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"] for peer in peers
    }


def test_everything_is_denied_but_what_is_named(manifests: list[Manifest]) -> None:
    assert named(manifests, "NetworkPolicy", "opencloud-default-deny")["spec"] == {
        "podSelector": {},
        "policyTypes": ["Ingress", "Egress"],
    }
    for component in ("gateway", "dispatcher", "notifier", "migrate"):
        inbound = {
            port: _namespaces(peers)
            for port, peers in _peers(manifests, "Ingress", component).items()
        }
        expected = {} if component == "migrate" else {"admin": {"monitoring"}}
        if component == "gateway":
            expected |= {"http": {"ingress-nginx"}, "internal": {"workerfacing-api"}}
        assert inbound == expected
        outbound = set(_peers(manifests, "Egress", component))
        assert outbound - {8000} == {53, 443, 5432}
        assert (8000 in outbound) == (component == "dispatcher")


def test_dns_is_allowed_to_the_clusters_resolver_and_a_nodes_cache_only(
    manifests: list[Manifest],
) -> None:
    for component in ("gateway", "dispatcher", "notifier", "migrate"):
        cluster, cache = _peers(manifests, "Egress", component)[53][:2]
        assert _namespaces([cluster]) == {"kube-system"}
        assert cache == {"ipBlock": {"cidr": "169.254.20.10/32"}}
        # once each for UDP and TCP
        assert _peers(manifests, "Egress", component)[53] == [cluster, cache] * 2


def test_nobody_reaches_a_nodes_metadata_service(manifests: list[Manifest]) -> None:
    metadata = ip_address("169.254.169.254")
    for policy in of_kind(manifests, "NetworkPolicy"):
        for rule in policy["spec"].get("egress", ()):
            for block in (peer["ipBlock"] for peer in rule["to"] if "ipBlock" in peer):
                excluded = any(metadata in ip_network(part) for part in block.get("except", ()))
                assert excluded or metadata not in ip_network(block["cidr"])


def test_daemons_may_reach_the_peer_that_their_settings_name(manifests: list[Manifest]) -> None:
    workload = named(manifests, "Deployment", "opencloud-dispatcher")
    url = urlsplit(environment_of(workload, manifests)["WORKERFACING_API_URL"])
    assert url.hostname
    _, namespace, _ = url.hostname.split(".", 2)
    peers = _peers(manifests, "Egress", "dispatcher")
    assert _namespaces(peers[url.port]) == {namespace}


def test_everything_is_in_the_overlays_namespace(overlay: Path, manifests: list[Manifest]) -> None:
    (namespace,) = of_kind(manifests, "Namespace")
    assert namespace["metadata"]["name"] == f"opencloud-{overlay.name}"
    rest = {m["metadata"]["namespace"] for m in manifests if m["kind"] != "Namespace"}
    assert rest == {namespace["metadata"]["name"]}
