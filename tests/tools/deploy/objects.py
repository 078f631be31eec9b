"""Finding one's way among rendered manifests."""

from tests.tools.deploy.kustomize import Manifest


def of_kind(manifests: list[Manifest], *kinds: str) -> list[Manifest]:
    found = [manifest for manifest in manifests if manifest["kind"] in kinds]
    assert found, f"there is no {kinds}"
    return found


def named(manifests: list[Manifest], kind: str, name: str) -> Manifest:
    (found,) = (m for m in manifests if (m["kind"], m["metadata"]["name"]) == (kind, name))
    return found


def pod_of(workload: Manifest) -> Manifest:
    pod: Manifest = workload["spec"]["template"]
    return pod


def container_of(workload: Manifest) -> Manifest:
    (container,) = pod_of(workload)["spec"]["containers"]
    assert isinstance(container, dict)
    return container


def component_of(workload: Manifest) -> str:
    component: str = pod_of(workload)["metadata"]["labels"]["app.kubernetes.io/component"]
    return component


def environment_of(workload: Manifest, manifests: list[Manifest]) -> dict[str, str]:
    """The container's environment, with a stand-in for every secret."""
    container = container_of(workload)
    environment: dict[str, str] = {}
    for source in container["envFrom"]:
        environment |= named(manifests, "ConfigMap", source["configMapRef"]["name"])["data"]
    for variable in container["env"]:
        assert "secretKeyRef" in variable["valueFrom"], f"{variable['name']} is not by reference"
        environment[variable["name"]] = "a-secret-by-reference"
    return environment


def memory_of(workload: Manifest) -> int:
    """The container's memory limit in MiB."""
    limit: str = container_of(workload)["resources"]["limits"]["memory"]
    return int(limit[:-2]) * {"Mi": 1, "Gi": 1024}[limit[-2:]]


def selected(selector: Manifest, manifests: list[Manifest]) -> list[Manifest]:
    """Workloads whose pods the labels select."""
    return [
        workload
        for workload in of_kind(manifests, "Deployment", "Job")
        if selector.items() <= pod_of(workload)["metadata"]["labels"].items()
    ]


def ports_of(workload: Manifest) -> dict[str, int]:
    return {port["name"]: port["containerPort"] for port in container_of(workload).get("ports", ())}
