"""Clients that generators make from `/openapi.json` run a job in the sandbox."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.sandbox.cognito import USER
from devtools.services import REPOSITORY
from tests.processes.test_end_to_end import Sandbox, call, running
from tests.support.tools import needs, tool

SCRIPTS = REPOSITORY / "tests/support/generated"


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    with running(tmp_path_factory.mktemp("generated")) as sandbox:
        yield sandbox


async def generate(name: str, *arguments: str, folder: Path) -> None:
    """Let the generator make the package `client`, without a complaint."""
    generator = tool(name)
    path = f"PATH={generator.parent}:{os.environ['PATH']}"  # with the formatter that it calls
    status, output = await call("env", path, str(generator), "generate", *arguments, folder=folder)
    assert status == 0, output


async def run_job(sandbox: Sandbox, script: str, python: Path, folder: Path) -> None:
    samples = sandbox.run["samples"]
    status, output = await call(
        "env", f"PYTHONPATH={folder}", str(python), str(SCRIPTS / script),
        sandbox.run["gateway"], USER.email, USER.password, samples["data"], samples["config"],
        folder=folder,
    )  # fmt: skip
    assert (status, output) == (0, "finished\n")


@needs("openapi-python-client")
async def test_a_client_by_openapi_python_client_runs_a_job(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    url = f"{sandbox.run['gateway']}/openapi.json"
    options = ("--meta", "none", "--output-path", "client", "--fail-on-warning")
    await generate("openapi-python-client", "--url", url, *options, folder=tmp_path)
    # the client imports what the generator imports
    python = tool("openapi-python-client").resolve().parent / "python"
    await run_job(sandbox, "openapi_python_client.py", python, tmp_path)


@needs("openapi-generator-cli")
async def test_a_client_by_openapi_generator_runs_a_job(sandbox: Sandbox, tmp_path: Path) -> None:
    url = f"{sandbox.run['gateway']}/openapi.json"
    options = ("-g", "python", "-o", ".", "--package-name", "client")
    await generate("openapi-generator-cli", "-i", url, *options, folder=tmp_path)
    await run_job(sandbox, "openapi_generator.py", Path(sys.executable), tmp_path)
