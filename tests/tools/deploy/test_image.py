"""The Dockerfile and the compose file, checked without a container engine."""

import asyncio
import json
import re
import shutil
import subprocess
import sys
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiohttp import web
from aiohttp.test_utils import TestServer

from common.config.settings import VERSION
from tests.tools.deploy.places import DEPLOY, REPOSITORY
from tests.tools.deploy.settings import AFTER_THE_GRACE, read

DOCKERFILE = (DEPLOY / "Dockerfile").read_text()
COMPOSE = (DEPLOY / "compose.yaml").read_text()
FINAL_STAGE = DOCKERFILE[DOCKERFILE.rindex("\nFROM ") :]


def compose_services() -> dict[str, Any]:
    """The services, with defaults for variables and a placeholder for required ones."""
    text = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", COMPOSE)
    text = re.sub(r"\$\{\w*POOL_ID(:\?[^}]*)?\}", "eu-central-1_AbCdEfGhI", text)
    text = re.sub(r"\$\{\w+(:\?[^}]*)?\}", "given-by-the-operator", text)
    assert "${" not in text
    services: dict[str, Any] = yaml.safe_load(text)["services"]
    return services


OURS = {
    name: service
    for name, service in compose_services().items()
    if service["image"].startswith("opencloud:")
}


def test_the_dockerfile_is_lint_free() -> None:
    hadolint = shutil.which("hadolint", path=str(Path(sys.executable).parent))
    if hadolint is None:
        pytest.skip("hadolint is not installed: the Dockerfile is not linted")
    done = subprocess.run(
        [hadolint, str(DEPLOY / "Dockerfile")], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")


def test_both_stages_have_the_same_python_of_a_minor_version() -> None:
    assert re.search(r"^ARG PYTHON=3\.\d+$", DOCKERFILE, flags=re.MULTILINE)
    bases = re.findall(r"^FROM (\S+)", DOCKERFILE, flags=re.MULTILINE)
    assert bases == ["python:${PYTHON}-slim-bookworm"] * 2


def test_the_image_runs_as_a_number_and_takes_from_the_builder_only() -> None:
    assert re.search(r"^USER [1-9]\d{3,}:[1-9]\d{3,}$", FINAL_STAGE, flags=re.MULTILINE)
    assert re.findall(r"^COPY (?!--from=builder )", FINAL_STAGE, flags=re.MULTILINE) == []
    assert "pip install" not in FINAL_STAGE
    assert re.search(r'^CMD \["python", "-m", "gateway"\]$', FINAL_STAGE, flags=re.MULTILINE)


def test_everything_that_is_copied_is_there_and_not_ignored() -> None:
    ignore = (REPOSITORY / ".dockerignore").read_text().splitlines()
    assert "*" in ignore
    for sources in re.findall(r"^COPY (?!--)(.+) \S+$", DOCKERFILE, flags=re.MULTILINE):
        for source in sources.split():
            assert (REPOSITORY / source).exists()
            assert f"!{source}" in ignore


@pytest.mark.parametrize(
    ("answer", "status"), [(HTTPStatus.OK, 0), (HTTPStatus.SERVICE_UNAVAILABLE, 1)]
)
async def test_the_health_check_passes_for_a_live_process_only(
    answer: HTTPStatus, status: int
) -> None:
    found = re.search(r"HEALTHCHECK .*\n\s+CMD (\[.+\])", FINAL_STAGE)
    assert found
    _, *arguments = json.loads(found[1])

    async def livez(_: web.Request) -> web.Response:
        return web.Response(status=answer)

    app = web.Application()
    app.add_routes([web.get("/livez", livez)])
    async with TestServer(app) as server:
        process = await asyncio.create_subprocess_exec(
            sys.executable, *arguments, env={"ADMIN_PORT": str(server.port)}
        )
        assert await process.wait() == status


def test_compose_starts_every_service_after_the_migration() -> None:
    assert set(OURS) == {"migrate", "gateway", "dispatcher", "notifier"}
    assert {service["image"] for service in OURS.values()} == {f"opencloud:{VERSION}"}
    for name, service in OURS.items():
        module = "common.migrate" if name == "migrate" else name
        assert service["command"] == ["python", "-m", module]
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        if name != "migrate":
            condition = service["depends_on"]["migrate"]["condition"]
            assert condition == "service_completed_successfully"


def test_compose_makes_the_bucket_however_late_the_store_answers(tmp_path: Path) -> None:
    """A first failure would be the last word to the services that wait for its success."""
    bucket = compose_services()["bucket"]
    assert OURS["gateway"]["depends_on"]["bucket"]["condition"] == "service_completed_successfully"
    assert bucket["restart"] == "no"
    stand_in, tries = tmp_path / "mc", tmp_path / "tries"
    stand_in.write_text(f'#!/bin/sh\necho "$@" >> {tries}\ntest $(wc -l < {tries}) -ge 2\n')
    stand_in.chmod(0o755)

    done = subprocess.run(
        [*bucket["entrypoint"], *bucket["command"]],
        env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
        timeout=20,
        check=False,
    )

    assert done.returncode == 0
    assert tries.read_text().splitlines() == ["mb --ignore-existing store/opencloud"] * 2


@pytest.mark.parametrize("name", OURS)
def test_compose_sets_what_the_services_read(name: str) -> None:
    environment = {key: str(value or "") for key, value in OURS[name]["environment"].items()}
    settings, names = read(name, environment)
    assert {key for key in environment if not key.startswith("AWS_")} <= names
    if name in {"dispatcher", "notifier"}:
        longest = settings.handover_timeout if name == "dispatcher" else settings.send_timeout
        assert longest < settings.shutdown_grace
        patience = int(OURS[name]["stop_grace_period"].removesuffix("s"))
        assert patience >= settings.shutdown_grace + AFTER_THE_GRACE


def test_compose_has_no_password_of_its_own_and_its_example_names_what_must_be_set() -> None:
    required = set(re.findall(r"\$\{(\w+):\?", COMPOSE))
    assert set(re.findall(r"\$\{(\w+)\}", COMPOSE)) <= required
    example = (DEPLOY / ".env.example").read_text()
    assert set(re.findall(r"^(\w+)=$", example, flags=re.MULTILINE)) == required
    assert not re.findall(r"^\w+=.+$", example, flags=re.MULTILINE)
    for name, service in compose_services().items():
        for key, value in (service.get("environment") or {}).items():
            if re.search("SECRET|PASSWORD", key) and value:
                assert value == "given-by-the-operator", (name, key)


def test_compose_publishes_on_this_machine_only() -> None:
    for service in compose_services().values():
        for port in service.get("ports", ()):
            assert port.startswith("127.0.0.1:")


def test_images_are_pinned() -> None:
    for service in compose_services().values():
        _, _, tag = service["image"].partition(":")
        assert tag not in {"", "latest"}
