"""Dashboards and alert rules use metrics that exist, and every alert has instructions."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import REGISTRY
from prometheus_client.metrics import MetricWrapperBase

import common.database.pool
import common.jobs.metrics
import common.telemetry.health
import common.telemetry.loop_lag
import dispatcher.metrics
import gateway.metrics
import notifier.metrics
from tests.tools.deploy.kustomize import Manifest, render
from tests.tools.deploy.objects import named, of_kind, ports_of, selected
from tests.tools.deploy.places import DEPLOY, DOCS, KUBERNETES

MODULES = (
    *(common.telemetry.health, common.database.pool, common.telemetry.loop_lag),
    *(common.jobs.metrics, gateway.metrics, dispatcher.metrics, notifier.metrics),
)
SCRAPED = {"namespace", "pod", "component", "job"}
"""Labels that Prometheus adds."""

_WORDS = {
    *("sum", "max", "min", "rate", "increase", "changes", "absent", "count", "topk", "vector"),
    *("histogram_quantile", "label_values", "by", "and", "or", "unless", "le"),
}


def our_metrics() -> dict[str, set[str]]:
    """Names as Prometheus stores them, with their labels."""
    found: dict[str, set[str]] = {}
    for module in MODULES:
        for metric in vars(module).values():
            if isinstance(metric, MetricWrapperBase):
                for name in _stored_names(metric):
                    found[name] = set(metric._labelnames) | SCRAPED
                    if name.endswith("_bucket"):
                        found[name].add("le")
    return found


def _stored_names(metric: MetricWrapperBase) -> list[str]:
    suffixes = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"]}
    return [metric._name + suffix for suffix in suffixes.get(metric._type, [""])]


def process_metrics() -> dict[str, set[str]]:
    """Metrics of every process, and those that Prometheus adds to each scrape."""
    names = {sample.name for family in REGISTRY.collect() for sample in family.samples}
    return dict.fromkeys({n for n in names if n.startswith("process_")} | {"up"}, SCRAPED)


RUNBOOK = "https://example.org/opencloud/runbook.md"


def rules() -> list[dict[str, Any]]:
    document = yaml.safe_load((KUBERNETES / "monitoring" / "rules.yaml").read_text())
    return [rule for group in document["spec"]["groups"] for rule in group["rules"]]


def alerts() -> list[dict[str, Any]]:
    return [rule for rule in rules() if "alert" in rule]


def dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((DEPLOY / "dashboards" / "opencloud.json").read_text())
    return found


def dashboard_queries() -> Iterator[str]:
    board = dashboard()
    for panel in board["panels"]:
        yield from (target["expr"] for target in panel.get("targets", ()))
    yield from (note["expr"] for note in board["annotations"]["list"])
    for variable in board["templating"]["list"]:
        if variable["type"] == "query":
            yield variable["query"]["query"]


QUERIES = [*(rule["expr"] for rule in rules()), *dashboard_queries()]


def selectors_of(query: str) -> dict[str, set[str]]:
    """Metrics that a query names, with the labels it matches or groups them by."""
    grouped = {
        label.strip()
        for group in re.findall(r"\bby \(([^)]*)\)", query)
        for label in group.split(",")
    }
    bare = re.sub(r"\bby \([^)]*\)|\[[^]]*\]", " ", query)
    found: dict[str, set[str]] = {}
    for name, matchers in re.findall(r"(?<!\w)([a-zA-Z_:][\w:]*)(?:\{([^}]*)\})?", _unquoted(bare)):
        if name not in _WORDS:
            labels = set(re.findall(r"(\w+)(?:=~|!~|!=|=)", matchers))
            found[name] = found.get(name, set()) | labels | grouped
    return found


def _unquoted(query: str) -> str:
    return re.sub(r'"[^"]*"', '""', query)


@pytest.mark.parametrize("query", QUERIES)
def test_queries_use_metrics_and_labels_that_exist(query: str) -> None:
    assert query.count("(") == query.count(")")
    known = our_metrics() | process_metrics()
    asked = selectors_of(query)
    asked.pop("namespace", None)  # an argument of label_values
    assert asked
    for name, labels in asked.items():
        assert name in known, f"{name} is no metric of ours"
        assert labels <= known[name], f"{name} has no label {labels - known[name]}"


@pytest.mark.parametrize("query", QUERIES)
def test_queries_compare_with_states_and_verdicts_that_exist(query: str) -> None:
    from common.jobs.lifecycle import Status
    from common.outbox.breaker import LABELS
    from dispatcher.worker_api import Verdict as Handover
    from notifier.mailjet import Verdict as Mail

    known = {
        "opencloud_handover_backlog": {"due", "waiting", "sending", "in_doubt", "held"},
        "opencloud_mail_backlog": {"due", "waiting", "sending", "in_doubt", "held"},
        "opencloud_handover_gate": set(LABELS),
        "opencloud_mail_gate": set(LABELS),
        "opencloud_handovers_total": set(Handover),
        "opencloud_mails_total": set(Mail) | {"discarded"},
        "opencloud_webhook_backlog": {"due", "waiting", "sending", "in_doubt", "held"},
        "opencloud_webhook_deliveries_total": {"taken", "failed", "gone", "given_up", "not_signed"},
        "opencloud_database_connections": {"in_use", "idle"},
        "opencloud_status_updates_total": {"unchanged", "applied", "unknown", "unavailable"},
        "opencloud_jobs": set(Status),
        "opencloud_jobs_ended_total": {status for status in Status if status.is_final},
    }
    labels = "state|verdict|outcome|status"
    for name, values in re.findall(rf'(\w+)\{{[^}}]*\b(?:{labels})!?=~?"([^"]*)"', query):
        if not name.startswith("opencloud_request_seconds"):  # those are of HTTP
            assert set(values.split("|")) <= known[name]


def test_every_query_of_counters_takes_a_rate() -> None:
    for query in QUERIES:
        for name in re.findall(r"\b(\w+_(?:total|bucket|count))\b", query):
            assert re.search(rf"(rate|increase)\({name}", query), query


def test_every_alert_says_how_urgent_it_is_and_what_to_do() -> None:
    runbook = (DOCS / "runbook.md").read_text()
    headings = re.findall(r"^## (\S+)$", runbook, flags=re.MULTILINE)
    assert sorted(headings) == sorted(rule["alert"] for rule in alerts())
    for rule in alerts():
        assert rule["labels"]["severity"] in {"page", "ticket"}
        assert rule["annotations"]["summary"]
        assert rule["annotations"]["runbook_url"] == f"{RUNBOOK}#{rule['alert'].lower()}"


def test_one_annotation_says_where_the_runbook_is(tmp_path: Path) -> None:
    copy = tmp_path / "monitoring"
    shutil.copytree(KUBERNETES / "monitoring", copy)
    text = (copy / "rules.yaml").read_text()
    ours = "https://wiki.example.net/x?page=runbook"
    moved = text.replace(f"opencloud-runbook: {RUNBOOK}\n", f"opencloud-runbook: {ours}\n")
    (copy / "rules.yaml").write_text(moved)
    (rendered,) = of_kind(render(copy), "PrometheusRule")
    urls = {
        rule["annotations"]["runbook_url"]
        for group in rendered["spec"]["groups"]
        for rule in group["rules"]
        if "alert" in rule
    }
    assert urls == {f"{ours}#{rule['alert'].lower()}" for rule in alerts()}


def test_every_metric_is_in_the_dashboard_and_the_manual() -> None:
    queries = " ".join(dashboard_queries())
    manual = (DOCS / "operating.md").read_text()
    for module in MODULES:
        for metric in vars(module).values():
            if isinstance(metric, MetricWrapperBase):
                names = _stored_names(metric)
                assert any(re.search(rf"\b{name}\b", queries) for name in names), metric._name
                assert metric._name in manual


def test_panels_do_not_overlap_and_have_ids_of_their_own() -> None:
    panels = dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert at["x"] + at["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells


def test_the_daemons_scale_on_metrics_that_are_recorded(manifests: list[Manifest]) -> None:
    recorded = {rule["record"].replace(":", "_") for rule in rules() if "record" in rule}
    scalers = of_kind(manifests, "HorizontalPodAutoscaler")
    used = {
        metric["external"]["metric"]["name"]
        for scaler in scalers
        for metric in scaler["spec"]["metrics"]
        if metric["type"] == "External"
    }
    assert used == recorded


def test_prometheus_finds_every_service(manifests: list[Manifest]) -> None:
    (monitor,) = of_kind(manifests, "ServiceMonitor")
    wanted = monitor["spec"]["selector"]["matchLabels"]
    services = [
        service
        for service in of_kind(manifests, "Service")
        if wanted.items() <= service["metadata"]["labels"].items()
    ]
    assert services == [named(manifests, "Service", "opencloud-admin")]
    (endpoint,) = monitor["spec"]["endpoints"]
    assert endpoint["port"] in {port["name"] for port in services[0]["spec"]["ports"]}
    workloads = selected(services[0]["spec"]["selector"], manifests)
    assert len(workloads) == 3
    assert all("admin" in ports_of(workload) for workload in workloads)
