"""What others make of `/openapi.json`: clients by generators, and Swagger UI."""

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.sandbox.cognito import USER
from devtools.services import REPOSITORY
from tests.processes.test_end_to_end import Sandbox, call, running
from tests.support.browser import Page, open_page
from tests.support.tools import needs, tool

BYTES = ("application/octet-stream", "application/zip", "application/offset+octet-stream")
"""Types of contents that openapi-python-client takes for bytes only where it is configured so."""

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
    config = tmp_path / "config.yaml"
    config.write_text(json.dumps({"content_type_overrides": dict.fromkeys(BYTES, BYTES[0])}))
    options = ("--meta", "none", "--output-path", "client", "--fail-on-warning")
    await generate(
        "openapi-python-client", "--url", url, "--config", str(config), *options, folder=tmp_path
    )
    # the client imports what the generator imports
    python = tool("openapi-python-client").resolve().parent / "python"
    await run_job(sandbox, "openapi_python_client.py", python, tmp_path)


@needs("openapi-generator-cli")
async def test_a_client_by_openapi_generator_runs_a_job(sandbox: Sandbox, tmp_path: Path) -> None:
    url = f"{sandbox.run['gateway']}/openapi.json"
    options = ("-g", "python", "-o", ".", "--package-name", "client")
    await generate("openapi-generator-cli", "-i", url, *options, folder=tmp_path)
    await run_job(sandbox, "openapi_generator.py", Path(sys.executable), tmp_path)


FILL = """(selector, text) => {
    const field = document.querySelector(selector)
    const setter = Object.getOwnPropertyDescriptor(HTMLInputElement.prototype, "value").set
    setter.call(field, text)  // past React, which otherwise sees no change
    field.dispatchEvent(new Event("input", {bubbles: true}))
}"""
CHOOSE = """selector => {
    const files = new DataTransfer()
    files.items.add(new File(["x,y"], "my cells.csv"))
    const field = document.querySelector(selector)
    field.files = files.files
    field.dispatchEvent(new Event("change", {bubbles: true}))
}"""


async def click(page: Page, element: str) -> None:
    await page.until(element)
    await page.run(f"{element}.click()")


async def log_in(page: Page) -> None:
    await click(page, "document.querySelector('button.authorize')")
    await page.until("document.querySelector('#oauth_username')")
    await page.run(f"({FILL})('#oauth_username', '{USER.email}')")
    await page.run(f"({FILL})('#oauth_password', '{USER.password}')")
    form = "document.querySelector('#oauth_username').closest('.auth-container')"
    await click(page, f"{form}.querySelector('.authorize')")
    await page.until("!document.querySelector('#oauth_username')")
    await click(page, "document.querySelector('.close-modal')")


async def execute(page: Page, block: str) -> str:
    """Press *Execute* in an operation that is open; its answer's body as it is shown."""
    await click(page, f"document.querySelector('{block} .btn.execute')")
    answer = f"document.querySelector('{block} .live-responses-table .highlight-code')"
    await page.until(answer)
    return str(await page.run(f"{answer}.innerText"))


@needs("chromium")
async def test_swagger_ui_logs_in_lists_the_root_and_uploads_into_data(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    root, upload, start = (
        f"#operations-{name}" for name in ("Files-list_root", "Files-upload_file", "Jobs-start_job")
    )
    async with open_page(tool("chromium"), tmp_path / "profile") as page:
        await page.open(f"{sandbox.run['gateway']}/docs")
        await log_in(page)
        for block in (root, upload, start):
            await click(page, f"document.querySelector('{block} .opblock-summary-control')")
        assert '"artifact/"' in await execute(page, root)
        await page.until(f"document.querySelector('{upload} input[type=file]')")
        await page.run(f"({CHOOSE})('{upload} input[type=file]')")
        assert '"data/my cells.csv"' in await execute(page, upload)
        prefilled = f"document.querySelector('{start} .body-param textarea').value"
        assert json.loads(await page.run(prefilled))["application"] == {
            "application": "superres",
            "version": "v1",
            "entrypoint": "render",
        }
