"""The whole cloud in real processes: the main job, from upload to e-mail."""

import asyncio
import json
import os
import re
import signal
import sys
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from PIL import Image

from deploy.sandbox.ports import free_port
from devtools.postgres import run_apart
from devtools.services import REPOSITORY, Process
from devtools.waiting import eventually

PATIENCE = 90.0
SERVICES = ("gateway", "dispatcher", "notifier")
PORTS = ("PORT", "PEER_PORT", "AWS_PORT", "MAIL_PORT")


class Sandbox:
    """`python -m deploy.sandbox` in a folder of its own, on ports of its own."""

    def __init__(self, folder: Path, **settings: str) -> None:
        self.folder = folder / "sandbox"
        own = {**{name: free_port() for name in PORTS}, **settings}
        arguments = ["--folder", str(self.folder)]
        admin_port = free_port(in_a_row=3)  # of the gateway, the dispatcher and the notifier
        self.process = Process(
            "deploy.sandbox", own, folder, arguments=arguments, admin_port=admin_port
        )

    @property
    def run(self) -> dict[str, Any]:
        return dict(json.loads((self.folder / "run.json").read_text()))

    def has_started(self) -> bool:
        assert self.process.is_running, self.process.output
        return "To stop: Ctrl-C." in self.process.output

    async def demo(self, *arguments: str) -> tuple[int, str]:
        """Exit status and output of the demo."""
        command = (sys.executable, "-m", "deploy.sandbox.demo", "--folder", str(self.folder))
        return await call(*command, *arguments, folder=REPOSITORY)

    def logs(self, text: str) -> dict[str, list[dict[str, Any]]]:
        """Per service, the log events that hold `text`."""
        return {
            service: [
                json.loads(line)
                for line in (self.folder / f"logs/{service}.log").read_text().splitlines()
                if text in line and line.startswith("{")
            ]
            for service in SERVICES
        }


async def call(*command: str, folder: Path) -> tuple[int | None, str]:
    """Exit status and output of a command."""
    pipe, stdout = asyncio.subprocess.PIPE, asyncio.subprocess.STDOUT
    process = await asyncio.create_subprocess_exec(*command, cwd=folder, stdout=pipe, stderr=stdout)
    async with asyncio.timeout(PATIENCE):
        output, _ = await process.communicate()
    return process.returncode, output.decode()


@contextmanager
def running(folder: Path, **settings: str) -> Iterator[Sandbox]:
    """A sandbox, which Ctrl-C ends with everything that it has started."""
    sandbox = Sandbox(folder, **settings)
    try:
        run_apart(eventually(sandbox.has_started, within=PATIENCE))
        yield sandbox
        pids = sandbox.run["pids"]
        assert pids.keys() == {*SERVICES, "aws", "mailjet", "peer", "worker"}
        os.kill(sandbox.process.pid, signal.SIGINT)
        assert run_apart(sandbox.process.wait()) == 0
        assert not [pid for pid in pids.values() if Path(f"/proc/{pid}").exists()]
    finally:
        sandbox.process.kill()


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    with running(tmp_path_factory.mktemp("end-to-end")) as sandbox:
        yield sandbox


async def test_the_main_job_runs_from_upload_to_email(sandbox: Sandbox) -> None:
    results = sandbox.folder / "results"
    before = set(results.glob("*"))
    status, output = await sandbox.demo()
    assert status == 0, output
    (result,) = set(results.iterdir()) - before
    with Image.open(result / "output" / "render.png") as image:
        assert min(image.size) > 100
        assert len(image.convert("L").getcolors() or range(257)) > 10
    assert (result / "output" / "statistics.csv").read_text().count("\n") > 3
    assert "finished  (to user@example.com)" in output
    assert f"{result.name}-2" in output
    assert "Cancelled by user@example.com: only a demonstration" in output
    assert "Its worker was stopped" in output

    *_, submitted, _ = sandbox.logs("job.submitted")["gateway"]
    story = sandbox.logs(submitted["correlation_id"])
    assert [event["event"] for event in story["dispatcher"]] == ["handover.delivered"]
    assert [event["event"] for event in story["notifier"]] == ["mail.sent"]
    changes = [event for event in story["gateway"] if event["event"] == "status.changed"]
    statuses = ["pulled", "preprocessing", "running", "postprocessing", "finished"]
    assert [event["status"] for event in changes] == statuses


def of_sandbox(sandbox: Sandbox, lines: str) -> str:
    """Lines of a document, for another port and folder."""
    for theirs, ours in {
        "http://127.0.0.1:8000": sandbox.run["gateway"],
        "http://127.0.0.1:8025": sandbox.run["mail"],
        ".sandbox/": f"{sandbox.folder}/",
    }.items():
        assert theirs in lines
        lines = lines.replace(theirs, ours)
    return lines


def readme_lines(sandbox: Sandbox) -> str:
    section = (REPOSITORY / "README.md").read_text().partition("### Walk-through")[2]
    return of_sandbox(sandbox, section.partition("```sh\n")[2].partition("```")[0])


def printed_lines(sandbox: Sandbox) -> str:
    return sandbox.process.output.partition("one by one:\n")[2].partition("\nThe same")[0]


@pytest.mark.parametrize("lines_of", [readme_lines, printed_lines])
async def test_a_walkthrough_can_be_pasted_as_it_is(
    sandbox: Sandbox, tmp_path: Path, lines_of: Callable[[Sandbox], str]
) -> None:
    status, output = await call("/bin/sh", "-e", "-c", lines_of(sandbox), folder=tmp_path)
    assert (status, '"detail"' in output) == (0, False), output
    assert "event: job" in output
    (archive,) = tmp_path.glob("*.zip")
    with zipfile.ZipFile(archive) as results:
        assert sorted(results.namelist()) == ["render.png", "statistics.csv"]

    async def is_announced() -> bool:
        url = f"{sandbox.run['mail']}/_webhooks"
        async with aiohttp.ClientSession() as session, session.get(url) as response:
            messages = await response.json()
        return (archive.stem, "job.finished", "verified") in {
            (json.loads(message["body"])["data"]["job_name"], message["type"], message["verdict"])
            for message in messages
        }

    await eventually(is_announced, within=PATIENCE)


async def test_the_guide_for_clients_can_be_pasted_as_it_is(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    guide = (REPOSITORY / "docs/clients.md").read_text()
    blocks = re.findall(r"^```sh\n(.*?)^```", guide, re.MULTILINE | re.DOTALL)
    lines = of_sandbox(sandbox, "".join(blocks))
    status, output = await call("/bin/sh", "-e", "-c", lines, folder=tmp_path)
    assert status == 0, output
    (job,) = {*re.findall(r"attempt \d: job (\d+)", output)}
    for shown in (
        f'"job_id":{job},', '"batch_id":', "X-Total-Count: 4",
        '"result":"cancelled"', "Upload-Offset: 1000", "Repr-Digest: sha-256=:", '"sha256":',
        "/folder/render.yaml", '"mail":"errors"', '"event":"webhook.test"', '"last_status":204',
    ):  # fmt: skip
        assert shown in output, (shown, output)
    (archive,) = tmp_path.glob("*.zip")
    with zipfile.ZipFile(archive) as results:
        assert {"output/render.png", "output/statistics.csv"} <= {*results.namelist()}


async def test_a_command_that_fails_ends_in_error_with_the_logs_tail(sandbox: Sandbox) -> None:
    status, output = await sandbox.demo("--fail")
    assert status == 0, output
    assert "error  (to user@example.com)" in output
    assert "photons" in output.partition("run-time details")[2]


async def test_a_job_survives_the_death_of_every_service(sandbox: Sandbox) -> None:
    def changes() -> int:
        return len(sandbox.logs("status.changed")["gateway"])

    before = changes()
    demo = asyncio.ensure_future(sandbox.demo("--slow", "2"))
    await eventually(lambda: changes() > before, within=PATIENCE)
    for service in SERVICES:
        os.kill(sandbox.run["pids"][service], signal.SIGKILL)
    status, output = await demo
    assert status == 0, output
    assert "finished  (to user@example.com)" in output
    assert all(f"{name} runs again" in sandbox.process.output for name in SERVICES[:2])


async def test_the_main_job_runs_on_postgresql_and_s3(tmp_path: Path, postgresql_url: str) -> None:
    settings = {"FILESYSTEM": "s3", "DATABASE_URL": postgresql_url}
    with running(tmp_path, **settings) as sandbox:
        status, output = await sandbox.demo()
    assert status == 0, output
    assert "finished  (to user@example.com)" in output
