"""What the manual says of metrics, held against the pages of processes that have done nothing."""

import re
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from deploy.sandbox.ports import free_port
from devtools.services import Process
from devtools.waiting import eventually
from tests.support.cloud import Cloud, gateway_settings
from tests.support.gateway import APPLICATIONS, Issuer
from tests.tools.deploy.places import DOCS

SERVICES = ("gateway", "dispatcher", "notifier")

Metrics = dict[str, frozenset[str]]
"""Names of metrics, each with its labels."""


def documented(service: str) -> Metrics:
    """What the manual's table says of a service."""
    manual = (DOCS / "operating.md").read_text()
    found: Metrics = {}
    for names, services in re.findall(r"^\| (`opencloud_.*?) \| (\w+) \|", manual, re.MULTILINE):
        if services in {service, "all"}:
            for name, labels in re.findall(r"`(\w+)(?:\{([\w,]+)\})?`", names):
                found[name] = frozenset(filter(None, labels.split(",")))
    return found


def shown(page: str) -> Metrics:
    """What a process's page has a value for."""
    return {
        family.name: frozenset(family.samples[0].labels) - {"le"}
        for family in text_string_to_metric_families(page)
        if family.name.startswith("opencloud_") and family.samples
    }


@pytest.fixture
async def cloud(database_url: str, tmp_path: Path) -> AsyncIterator[Cloud]:
    applications = tmp_path / "applications.yaml"
    applications.write_text(yaml.safe_dump(APPLICATIONS))
    settings = gateway_settings(f"http://127.0.0.1:{free_port()}/keys", applications)
    async with Cloud(database_url, tmp_path, settings, Issuer()) as cloud:
        yield cloud


async def start(cloud: Cloud) -> dict[str, Process]:
    """The three services; the gateway has answered one request."""
    processes = {
        "dispatcher": cloud.dispatcher(),
        "notifier": cloud.notifier(f"http://127.0.0.1:{free_port()}"),
        "gateway": await cloud.gateway(),
    }
    for process in processes.values():
        await process.wait_until_ready()
    async with aiohttp.ClientSession() as session, session.get(f"{cloud.url}/") as answer:
        assert answer.status == 200
    return processes


async def test_idle_processes_have_a_value_for_every_metric_in_the_manual(cloud: Cloud) -> None:
    processes = await start(cloud)

    for service in SERVICES:
        process = processes[service]
        # the first look at the loop comes after half a second
        await eventually(lambda p=process: p.metric("opencloud_loop_lag_seconds_count"))
        page = await process.page("/metrics")

        assert documented(service) == shown(page), service
        assert await process.metric("opencloud_ready") == 1
        assert await process.metric("opencloud_database_pool_size") == 10
        in_use, idle = [
            await process.metric(f'opencloud_database_connections{{state="{state}"}}')
            for state in ("in_use", "idle")
        ]
        assert 1 <= in_use + idle <= 10
