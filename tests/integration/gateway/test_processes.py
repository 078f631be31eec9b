"""How a gateway's process starts and ends."""

import asyncio
import os
import re
import signal
import socket
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.engine import make_url

from deploy.sandbox.ports import free_port
from devtools.postgres import Server
from devtools.services import Process
from devtools.waiting import eventually
from tests.integration.gateway.conftest import StartProcess

pytestmark = pytest.mark.slow

UNREACHABLE = "postgresql://u@127.0.0.1:1/n"


async def failure(process: Process) -> str:
    """The one sentence of a failed start."""
    assert await process.wait() == 1
    sentence = process.output.splitlines()[-1]
    assert re.fullmatch(r"gateway: .+\.", sentence), process.output
    assert "Traceback" not in process.output
    assert "gateway.started" not in process.output
    return sentence


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"COGNITO_USER_POOL_ID": None}, "COGNITO_USER_POOL_ID is missing"),
        ({"APPLICATION_CONFIG_FILE": "/none.yaml"}, "APPLICATION_CONFIG_FILE"),
        ({"DATABASE_URL": UNREACHABLE, "DATABASE_STARTUP_TIMEOUT": 0}, "database did not answer"),
    ],
    ids=["missing", "applications", "database"],
)
async def test_a_start_that_fails_says_why_in_one_sentence(
    start_process: StartProcess, changes: dict[str, Any], sentence: str
) -> None:
    assert sentence in await failure(start_process(**changes))


async def test_a_database_that_refuses_is_a_wrong_setting(
    start_process: StartProcess, postgres: Server
) -> None:
    url = postgres.url_of("no_such_database")
    place = f"{make_url(url).host}:{make_url(url).port}"
    assert await failure(start_process(DATABASE_URL=url)) == (
        "gateway: DATABASE_URL or DATABASE_SECRET is wrong"
        f' ({place}: database "no_such_database" does not exist).'
    )


async def test_an_invalid_application_configuration_names_the_key(
    start_process: StartProcess, tmp_path: Path
) -> None:
    path = tmp_path / "applications.yaml"
    path.write_text("decode: {v1: {train: {app: {cmd: [x]}, handler: {image_url: 3}}}}")
    sentence = await failure(start_process(APPLICATION_CONFIG_FILE=path))
    assert "decode.v1.train.handler.image_url" in sentence


@pytest.mark.parametrize("setting", ["PORT", "ADMIN_PORT", "INTERNAL_PORT"])
async def test_a_taken_port_ends_the_start_with_the_settings_name(
    start_process: StartProcess, setting: str
) -> None:
    with socket.create_server(("127.0.0.1", free_port())) as taken:
        port = taken.getsockname()[1]
        own = {"admin_port": port} if setting == "ADMIN_PORT" else {setting: port}
        assert await failure(start_process(**own)) == (
            f"gateway: cannot listen on 127.0.0.1 ({setting} {port}: address already in use)."
        )


@pytest.mark.parametrize("setting", ["PORT", "ADMIN_PORT", "INTERNAL_PORT"])
async def test_one_of_two_gateways_that_start_at_once_on_one_port_ends(
    start_process: StartProcess, setting: str
) -> None:
    port = free_port()
    own = {"admin_port": port} if setting == "ADMIN_PORT" else {setting: port}
    both = [start_process(**own), start_process(**own)]
    ended = [process for process in both if await _ends_or_starts(process) == "ended"]
    assert len(ended) == 1, [process.output for process in both]
    assert f"({setting} {port}: address already in use)" in await failure(ended[0])


async def _ends_or_starts(process: Process) -> str:
    async with asyncio.timeout(90):
        while "gateway.started" not in process.output:
            if "gateway: " in process.output:
                return "ended"
            await asyncio.sleep(0.05)
    return "started"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_during_the_startup_ends_it(
    start_process: StartProcess, number: signal.Signals
) -> None:
    process = start_process(DATABASE_URL=UNREACHABLE)
    await eventually(lambda: "admin.started" in process.output)
    os.kill(process.pid, number)
    assert await process.wait() == 0
    assert "gateway.started" not in process.output
    assert "process.stopped" in process.output
    assert "Traceback" not in process.output


async def test_a_second_signal_ends_the_drain(start_process: StartProcess) -> None:
    process = start_process(DRAIN_DELAY=600)
    await process.wait_until_ready()
    os.kill(process.pid, signal.SIGTERM)
    await eventually(lambda: "process.draining" in process.output)
    assert await process.probe("/readyz") == 503
    os.kill(process.pid, signal.SIGTERM)
    assert await process.wait() == 0
    assert "process.stopped" in process.output
    assert "Traceback" not in process.output
