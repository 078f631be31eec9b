"""The whole cloud in real processes: the main job, from upload to e-mail."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import pytest
from PIL import Image

from deploy.sandbox.lifeline import tied_to_parent
from deploy.sandbox.ports import free_port
from devtools.services import REPOSITORY
from devtools.waiting import eventually

PATIENCE = 90.0


class Sandbox:
    """`python -m deploy.sandbox` in a folder of its own, on ports of its own."""

    def __init__(self, folder: Path, **settings: str) -> None:
        self.folder = folder
        self._output = folder.with_suffix(".out")
        self._settings = settings
        self._environment: dict[str, str] = {}
        self._process: subprocess.Popen[bytes] | None = None

    def _choose_ports(self) -> None:
        names = ("PORT", "PEER_PORT", "AWS_PORT", "MAIL_PORT", "ADMIN_PORT")
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        self._environment = {
            **kept,
            **{name: str(free_port()) for name in names},
            **self._settings,
        }

    def command(self, module: str, *arguments: str) -> list[str]:
        return [sys.executable, "-m", module, "--folder", str(self.folder), *arguments]

    def __enter__(self) -> Self:
        """Start on ports that are free; one that is taken meanwhile is replaced by another."""
        for _ in range(5):
            self._choose_ports()
            if self._start_once():
                return self
            assert "is taken by another program" in self.output, self.output
        raise AssertionError(self.output)

    def _start_once(self) -> bool:
        with self._output.open("wb") as output:
            self._process = subprocess.Popen(
                tied_to_parent(self.command("deploy.sandbox"), signal.SIGTERM),
                cwd=REPOSITORY,
                env=self._environment,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        end = time.monotonic() + PATIENCE
        while "The sandbox is up." not in self.output:
            if self._process.poll() is not None:
                return False
            assert time.monotonic() < end, self.output
            time.sleep(0.1)
        return True

    def __exit__(self, *_: object) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGINT)
        assert self._process.wait(PATIENCE) == 0

    @property
    def output(self) -> str:
        return self._output.read_text(errors="replace")

    @property
    def run(self) -> dict[str, Any]:
        return dict(json.loads((self.folder / "run.json").read_text()))

    async def demo(self, *arguments: str) -> tuple[int, str]:
        """Exit status and output of the demo."""
        process = await self.start_demo(*arguments)
        return await self.finish(process)

    async def start_demo(self, *arguments: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *self.command("deploy.sandbox.demo", *arguments),
            cwd=REPOSITORY,
            env=self._environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )

    async def finish(self, process: asyncio.subprocess.Process) -> tuple[int, str]:
        async with asyncio.timeout(PATIENCE):
            output, _ = await process.communicate()
        assert process.returncode is not None
        return process.returncode, output.decode()

    def logs(self, text: str) -> dict[str, list[dict[str, Any]]]:
        """Per service, the log events that hold `text`."""
        return {
            service: [
                json.loads(line)
                for line in (self.folder / f"logs/{service}.log").read_text().splitlines()
                if text in line and line.startswith("{")
            ]
            for service in ("gateway", "dispatcher", "notifier")
        }


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    with Sandbox(tmp_path_factory.mktemp("end-to-end") / "sandbox") as sandbox:
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

    *_, submitted = sandbox.logs("job.submitted")["gateway"]
    story = sandbox.logs(submitted["correlation_id"])
    assert [event["event"] for event in story["dispatcher"]] == ["handover.delivered"]
    assert [event["event"] for event in story["notifier"]] == ["mail.sent"]
    changes = [event for event in story["gateway"] if event["event"] == "status.changed"]
    statuses = ["pulled", "preprocessing", "running", "postprocessing", "finished"]
    assert [event["status"] for event in changes] == statuses


async def test_the_readmes_walkthrough_can_be_pasted_as_it_is(sandbox: Sandbox) -> None:
    section = (REPOSITORY / "README.md").read_text().partition("### Walk-through")[2]
    lines = section.partition("```sh\n")[2].partition("```")[0]
    for theirs, ours in {
        "http://127.0.0.1:8000": sandbox.run["gateway"],
        ".sandbox/": f"{sandbox.folder}/",
    }.items():
        assert theirs in lines
        lines = lines.replace(theirs, ours)
    shell = await asyncio.create_subprocess_exec(
        "/bin/sh", "-e", "-c", lines, cwd=sandbox.folder, stdout=asyncio.subprocess.PIPE
    )
    status, output = await sandbox.finish(shell)
    assert (status, '"detail"' in output) == (0, False), output
    with zipfile.ZipFile(sandbox.folder / "render_1.zip") as results:
        assert sorted(results.namelist()) == ["render.png", "statistics.csv"]


async def test_a_command_that_fails_ends_in_error_with_the_logs_tail(sandbox: Sandbox) -> None:
    status, output = await sandbox.demo("--fail")
    assert status == 0, output
    assert "error  (to user@example.com)" in output
    assert "photons" in output.partition("run-time details")[2]


async def test_a_job_survives_the_death_of_every_service(sandbox: Sandbox) -> None:
    def changes() -> int:
        return len(sandbox.logs("status.changed")["gateway"])

    before = changes()
    demo = await sandbox.start_demo("--slow", "2")
    await eventually(lambda: changes() > before, within=PATIENCE)
    for service in ("gateway", "dispatcher", "notifier"):
        os.kill(sandbox.run["pids"][service], signal.SIGKILL)
    status, output = await sandbox.finish(demo)
    assert status == 0, output
    assert "finished  (to user@example.com)" in output
    assert all(f"{name} runs again" in sandbox.output for name in ("gateway", "dispatcher"))


async def test_the_main_job_runs_on_postgresql_and_s3(tmp_path: Path, postgresql_url: str) -> None:
    settings = {"FILESYSTEM": "s3", "DATABASE_URL": postgresql_url}
    with Sandbox(tmp_path / "sandbox", **settings) as sandbox:
        status, output = await sandbox.demo()
    assert status == 0, output
    assert "finished  (to user@example.com)" in output
