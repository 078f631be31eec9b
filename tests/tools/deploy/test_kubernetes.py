"""The Kubernetes manifests: valid by the schemas, and consistent with each other and the code."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
import yaml
from kubernetes_validate import validate

from common.config.settings import VERSION
from tests.tools.deploy.kustomize import Manifest, render
from tests.tools.deploy.objects import (
    component_of,
    container_of,
    environment_of,
    memory_of,
    named,
    of_kind,
    pod_of,
    ports_of,
)
from tests.tools.deploy.places import KUBERNETES, REPOSITORY
from tests.tools.deploy.settings import AFTER_THE_GRACE, read
from tests.tools.deploy.test_monitoring import alerts

VERSIONS = ("1.30", "1.37")
CUSTOM = {"ServiceMonitor", "PrometheusRule"}
SERVICES = ("gateway", "dispatcher", "notifier")


def settings_of(workload: Manifest, manifests: list[Manifest]) -> Any:
    """The settings that the service reads in its container."""
    return read(component_of(workload), environment_of(workload, manifests))[0]


# -- the schemas -------------------------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS)
def test_every_object_is_valid(manifests: list[Manifest], version: str) -> None:
    for manifest in manifests:
        if manifest["kind"] not in CUSTOM:
            validate(manifest, version, strict=True)


def test_names_are_unique(manifests: list[Manifest]) -> None:
    names = [(manifest["kind"], manifest["metadata"]["name"]) for manifest in manifests]
    assert len(names) == len(set(names))


def test_kubectl_renders_the_same(overlay: Path, manifests: list[Manifest]) -> None:
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("kubectl is not installed: its rendering is not compared with ours")
    rendered = subprocess.run(
        [kubectl, "kustomize", str(overlay)],
        env={"PATH": "/usr/bin:/bin", "HOME": "/nonexistent", "KUBECONFIG": "/dev/null"},
        stdout=subprocess.PIPE,
        check=True,
    ).stdout

    def by_name(objects: Iterator[Manifest]) -> dict[tuple[str, str], Manifest]:
        return {(found["kind"], found["metadata"]["name"]): found for found in objects}

    assert by_name(iter(manifests)) == by_name(yaml.safe_load_all(rendered))


# -- workloads ---------------------------------------------------------------------------------


def test_every_container_is_hardened_and_bounded(manifests: list[Manifest]) -> None:
    for workload in of_kind(manifests, "Deployment", "Job"):
        pod, container = pod_of(workload)["spec"], container_of(workload)
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] >= 10_000
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        for bound in ("requests", "limits"):
            assert set(container["resources"][bound]) == {"cpu", "memory", "ephemeral-storage"}
        for volume in pod["volumes"]:
            assert "emptyDir" not in volume or volume["emptyDir"]["sizeLimit"]
        mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
        assert mounts["tmp"] == "/tmp"
        assert set(mounts) == {volume["name"] for volume in pod["volumes"]}
        assert not any("subPath" in mount for mount in container["volumeMounts"])


def test_every_service_has_its_three_probes_on_the_admin_port(manifests: list[Manifest]) -> None:
    for workload in of_kind(manifests, "Deployment"):
        container = container_of(workload)
        paths = {
            kind: container[f"{kind}Probe"]["httpGet"]
            for kind in ("startup", "readiness", "liveness")
        }
        assert paths == {
            "startup": {"path": "/livez", "port": "admin"},
            "readiness": {"path": "/readyz", "port": "admin"},
            "liveness": {"path": "/livez", "port": "admin"},
        }


def test_every_workload_runs_the_image_of_its_version(manifests: list[Manifest]) -> None:
    (image,) = {container_of(w)["image"] for w in of_kind(manifests, "Deployment", "Job")}
    name, _, version = image.rpartition(":")
    assert name
    assert version == VERSION
    (job,) = of_kind(manifests, "Job")
    assert job["metadata"]["name"] == f"opencloud-migrate-{version.replace('.', '-')}"
    commands = {
        component_of(w): container_of(w)["command"] for w in of_kind(manifests, "Deployment")
    }
    assert commands == {service: ["python", "-m", service] for service in SERVICES}
    assert container_of(job)["command"] == ["python", "-m", "common.migrate"]


def test_service_accounts_exist(manifests: list[Manifest]) -> None:
    accounts = {account["metadata"]["name"] for account in of_kind(manifests, "ServiceAccount")}
    used = {
        pod_of(workload)["spec"]["serviceAccountName"]
        for workload in of_kind(manifests, "Deployment", "Job")
    }
    assert used == accounts


# -- settings ----------------------------------------------------------------------------------


def test_services_accept_their_environment_and_know_every_name_in_it(
    manifests: list[Manifest],
) -> None:
    for workload in of_kind(manifests, "Deployment", "Job"):
        environment = environment_of(workload, manifests)
        _, names = read(component_of(workload), environment)
        assert set(environment) <= names, component_of(workload)


def test_an_edit_of_any_setting_rolls_the_services_out_and_leaves_the_migration_as_it_was(
    overlay: Path, manifests: list[Manifest], tmp_path: Path
) -> None:
    """A Job's pod cannot be changed: `kubectl apply` would fail for a day after the migration."""
    copy = tmp_path / "kubernetes"
    shutil.copytree(KUBERNETES, copy)
    edited = [copy / "base", copy / "overlays" / overlay.name]
    for folder in edited:
        file = folder / "kustomization.yaml"
        literal = re.compile(r"^( +- (?:&\S+ )?[A-Z0-9_]+=.*)$", flags=re.MULTILINE)
        text, count = literal.subn(r"\1-edited", file.read_text())
        assert count > 5
        file.write_text(text)

    after = render(edited[-1])

    (job,) = of_kind(manifests, "Job")
    assert of_kind(after, "Job") == [job]
    assert environment_of(job, manifests) != environment_of(job, after)
    for before in of_kind(manifests, "Deployment"):
        rolled_out = named(after, "Deployment", before["metadata"]["name"])
        assert pod_of(rolled_out) != pod_of(before)


def test_only_the_migration_has_the_role_that_owns_the_tables(manifests: list[Manifest]) -> None:
    databases, roles = set(), set()
    for workload in of_kind(manifests, "Deployment", "Job"):
        url = urlsplit(environment_of(workload, manifests)["DATABASE_URL"])
        databases.add((url.hostname, url.port, url.path, url.query))
        (secret,) = (
            variable["valueFrom"]["secretKeyRef"]["name"]
            for variable in container_of(workload)["env"]
            if variable["name"] == "DATABASE_SECRET"
        )
        roles.add((workload["kind"], url.username, secret))
    assert len(databases) == 1
    assert roles == {
        ("Deployment", "opencloud", "opencloud-database"),
        ("Job", "opencloud_owner", "opencloud-database-owner"),
    }


def test_every_workload_verifies_the_database_with_the_mounted_certificates(
    manifests: list[Manifest],
) -> None:
    for workload in of_kind(manifests, "Deployment", "Job"):
        url = urlsplit(environment_of(workload, manifests)["DATABASE_URL"])
        options = dict(parse_qsl(url.query))
        assert options["sslmode"] == "verify-full"
        mounts = {m["mountPath"]: m for m in container_of(workload)["volumeMounts"]}
        mount = mounts[str(Path(options["sslrootcert"]).parent)]
        (volume,) = (v for v in pod_of(workload)["spec"]["volumes"] if v["name"] == mount["name"])
        assert volume["configMap"] == {"name": "opencloud-database-ca"}


def test_nobody_registers_from_outside(manifests: list[Manifest]) -> None:
    workload = named(manifests, "Deployment", "opencloud-gateway")
    assert settings_of(workload, manifests).account_endpoints is False


def test_ports_are_the_ones_that_the_services_listen_on(manifests: list[Manifest]) -> None:
    for workload in of_kind(manifests, "Deployment"):
        settings = settings_of(workload, manifests)
        expected = {"admin": settings.admin.port}
        if component_of(workload) == "gateway":
            expected |= {"http": settings.port, "internal": settings.internal_port}
            assert settings.internal_port
        assert settings.admin.host == "0.0.0.0"
        assert ports_of(workload) == expected


def test_the_gateway_trusts_the_ingress_that_terminates_tls(manifests: list[Manifest]) -> None:
    """Else links in its answers are `http://`, and clients send their tokens there."""
    workload = named(manifests, "Deployment", "opencloud-gateway")
    settings = settings_of(workload, manifests)
    assert settings.trusted_proxies
    for network in settings.trusted_proxies:
        assert network.is_private
        assert not network.is_loopback


def test_there_is_memory_for_the_largest_jobs_that_the_gateway_takes(
    manifests: list[Manifest],
) -> None:
    """The arithmetic of docs/operating.md, Resources, in MiB."""
    gateway = named(manifests, "Deployment", "opencloud-gateway")
    dispatcher = named(manifests, "Deployment", "opencloud-dispatcher")
    takes, sends = settings_of(gateway, manifests), settings_of(dispatcher, manifests)
    files = takes.limits.job_files
    assert files
    assert 80 + sends.handover_concurrency * 4.5 * files * 3.5 / 20_000 < memory_of(dispatcher)
    assert 90 + 192 + 32 * files * 12 / 20_000 < memory_of(gateway)


def test_the_alert_on_memory_comes_before_the_limit(manifests: list[Manifest]) -> None:
    (alert,) = (rule for rule in alerts() if rule["alert"] == "OpencloudMemoryHigh")
    bounds = dict(re.findall(r'component="(\w+)"} > (\d+)e6', alert["expr"]))
    assert set(bounds) == set(SERVICES)
    for service, megabytes in bounds.items():
        limit = memory_of(named(manifests, "Deployment", f"opencloud-{service}")) * 1.048576
        assert 0.7 * limit < int(megabytes) < 0.8 * limit


def test_a_pod_may_drain_for_longer_than_its_service_does(manifests: list[Manifest]) -> None:
    for workload in of_kind(manifests, "Deployment"):
        service, settings = component_of(workload), settings_of(workload, manifests)
        patience = pod_of(workload)["spec"]["terminationGracePeriodSeconds"]
        if service == "gateway":
            before = container_of(workload)["lifecycle"]["preStop"]["sleep"]["seconds"]
            assert settings.drain_delay > 0
            assert patience >= before + settings.drain_delay + settings.shutdown_grace + 5
            continue
        longest_call = (
            settings.handover_timeout if service == "dispatcher" else settings.send_timeout
        )
        assert settings.shutdown_grace > longest_call
        assert patience >= settings.shutdown_grace + AFTER_THE_GRACE


def test_a_pod_may_wait_for_the_schema_before_it_counts_as_stuck(manifests: list[Manifest]) -> None:
    for workload in of_kind(manifests, "Deployment"):
        settings = settings_of(workload, manifests)
        probe = container_of(workload)["startupProbe"]
        assert (
            probe["periodSeconds"] * probe["failureThreshold"] > settings.database.startup_timeout
        )


def test_the_applications_are_where_the_services_look(manifests: list[Manifest]) -> None:
    config = named(manifests, "ConfigMap", "opencloud-applications")
    for service in ("gateway", "dispatcher"):
        workload = named(manifests, "Deployment", f"opencloud-{service}")
        location = Path(environment_of(workload, manifests)["APPLICATION_CONFIG_FILE"])
        (mount,) = (
            mount
            for mount in container_of(workload)["volumeMounts"]
            if mount["name"] == "applications"
        )
        assert str(location.parent) == mount["mountPath"]
        assert location.name in config["data"]
    assert "LOG_FORMAT" not in config["data"]


def test_the_mounted_applications_are_the_repositorys() -> None:
    """kustomize reads no file outside its folder, so there is a copy."""
    name = "application_config.yaml"
    assert (KUBERNETES / "base" / name).read_text() == (REPOSITORY / name).read_text()
