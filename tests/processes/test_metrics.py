"""The manual's table of metrics, compared with the metrics of idle processes."""

import contextlib
import re

from prometheus_client.parser import text_string_to_metric_families

from devtools.services import Process
from devtools.waiting import eventually
from tests.support.cloud import Cloud, on_sqlite
from tests.tools.deploy.places import DOCS

Metrics = dict[str, frozenset[str]]
"""Names of metrics, each with its labels."""


def documented(service: str) -> Metrics:
    """The metrics of a service in the manual's table."""
    manual = (DOCS / "operating.md").read_text()
    found: Metrics = {}
    row = re.compile(r"^\| (`opencloud_.*?) \| ([\w, ]+) \|", re.MULTILINE)
    for names, services in row.findall(manual):
        if {service, "all"} & set(services.split(", ")):
            for name, labels in re.findall(r"`(\w+)(?:\{([\w,]+)\})?`", names):
                found[name] = frozenset(filter(None, labels.split(",")))
    return found


def shown(page: str) -> Metrics:
    """The metrics that have a value on a process's page."""
    return {
        family.name: frozenset(family.samples[0].labels) - {"le"}
        for family in text_string_to_metric_families(page)
        if family.name.startswith("opencloud_") and family.samples
    }


@on_sqlite
async def test_idle_processes_have_a_value_for_every_metric_in_the_manual(cloud: Cloud) -> None:
    processes = {
        "dispatcher": cloud.dispatcher(),
        "notifier": cloud.notifier(),
        "gateway": await cloud.gateway(),
    }
    assert (await cloud.caller.ask("GET", "/")).status == 200
    for service, process in processes.items():
        await process.wait_until_ready()
        # the first look at the loop comes after half a second
        await eventually(lambda p=process: p.metric("opencloud_loop_lag_seconds_count"))
        known = documented(service)
        of_jobs = {name for name in known if "application" in known[name]}  # none was seen yet
        expected = {name: known[name] for name in known.keys() - of_jobs}

        async def has_all(process: Process = process, expected: Metrics = expected) -> bool:
            return expected.keys() <= shown(await process.page("/metrics")).keys()

        with contextlib.suppress(TimeoutError):  # some come with the first ticks
            await eventually(has_all)
        page = await process.page("/metrics")
        assert shown(page) == expected, service
        assert all(f"# TYPE {name} histogram" in page for name in of_jobs)
        assert await process.metric("opencloud_ready") == 1
        assert await process.metric("opencloud_database_pool_size") == 10
        in_use, idle = [
            await process.metric(f'opencloud_database_connections{{state="{state}"}}')
            for state in ("in_use", "idle")
        ]
        assert 1 <= in_use + idle <= 10
