"""The compose file's monitoring: checked without a container engine."""

import subprocess
from pathlib import Path
from typing import Any

import yaml

from tests.tools.deploy.places import DEPLOY, KUBERNETES
from tests.tools.deploy.test_image import OURS, compose_services
from tests.tools.deploy.test_monitoring import RUNBOOK, SCRAPED, dashboard

PROFILE = {
    name: service
    for name, service in compose_services().items()
    if service.get("profiles") == ["monitoring"]
}


def mounted(name: str) -> dict[str, Path]:
    """The files of the repository that a service sees, by its paths."""
    sources = [volume.split(":") for volume in PROFILE[name]["volumes"]]
    return {target: DEPLOY / source for source, target, *_ in sources if source.startswith("./")}


def configuration(name: str, path: str) -> Any:
    return yaml.safe_load(mounted(name)[path].read_text())


def test_prometheus_and_grafana_run_with_their_profile_only() -> None:
    assert set(PROFILE) == {"prometheus", "grafana"}
    for service in compose_services().values():
        assert not set(PROFILE) & set(service.get("depends_on", ())) or service in PROFILE.values()


def test_every_file_that_is_mounted_is_there() -> None:
    for name in PROFILE:
        assert mounted(name)
        for path in mounted(name).values():
            assert path.exists(), path


def test_prometheus_reads_the_rules_of_kubernetes(tmp_path: Path) -> None:
    service = PROFILE["prometheus"]
    (script,) = service["command"]
    stand_in = tmp_path / "prometheus"
    stand_in.write_text('#!/bin/sh\necho "$@"\n')
    stand_in.chmod(0o755)
    rules = tmp_path / "rules.yaml"
    base = "https://wiki.example.net/runbook?id=1"
    for inside, path in mounted("prometheus").items():
        script = script.replace(f" {inside}", f" {path}")
    done = subprocess.run(
        [*service["entrypoint"], script.replace("$$", "$").replace("/tmp/rules.yaml", str(rules))],
        env={"PATH": f"{tmp_path}:/usr/bin:/bin", "RUNBOOK_URL": base},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "--config.file=" in done.stdout
    wrapped = (KUBERNETES / "monitoring" / "rules.yaml").read_text()
    assert (
        yaml.safe_load(rules.read_text())
        == yaml.safe_load(wrapped.replace(f"runbook_url: {RUNBOOK}", f"runbook_url: {base}"))[
            "spec"
        ]
    )


def test_prometheus_scrapes_every_service_with_the_labels_of_rules_and_dashboard() -> None:
    found = configuration("prometheus", "/etc/opencloud/prometheus.yaml")
    assert found["rule_files"] == ["/tmp/rules.yaml"]
    (job,) = found["scrape_configs"]
    assert job["job_name"] == "opencloud"
    scraped = {
        target: group["labels"] for group in job["static_configs"] for target in group["targets"]
    }
    services = set(OURS) - {"migrate"}
    assert {target: labels["component"] for target, labels in scraped.items()} == {
        f"{name}:9000": name for name in services
    }
    assert all(set(labels) | {"job"} == SCRAPED for labels in scraped.values())
    for name in services:
        assert OURS[name]["environment"]["ADMIN_HOST"] == "0.0.0.0"


def test_grafana_shows_the_dashboard_from_that_prometheus() -> None:
    provisioning = "/etc/grafana/provisioning"
    (source,) = configuration("grafana", f"{provisioning}/datasources/opencloud.yaml")[
        "datasources"
    ]
    assert (source["type"], source["url"]) == ("prometheus", "http://prometheus:9090")
    (provider,) = configuration("grafana", f"{provisioning}/dashboards/opencloud.yaml")["providers"]
    folder = mounted("grafana")[provider["options"]["path"]]
    home = PROFILE["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert (folder / Path(home).name).is_file()
    assert dashboard()["uid"] == "opencloud"
