"""File names as real clients send them in forms: curl, Python's, node's, a browser's."""

import asyncio
import json
import sys
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.support.browser import open_page
from tests.support.gateway import Api
from tests.support.tools import needs, tool

pytestmark = pytest.mark.slow

NAMES = (
    "my cells.csv", "Zürich.csv", 'a"b.csv', "laser_50%.csv", "a+b.csv", "😀.csv", "it's;a,b&c.csv",
)  # fmt: skip

PYTHON = """
import sys, {module}
url, token, *names = sys.argv[1:]
for name in names:
    answer = {module}.post(
        url, files={{"file": (name, b"content")}}, headers={{"Authorization": f"Bearer {{token}}"}}
    )
    answer.raise_for_status()
"""
AIOHTTP = """
import asyncio, sys, aiohttp
url, token, *names = sys.argv[1:]

async def main():
    async with aiohttp.ClientSession(headers={{"Authorization": f"Bearer {{token}}"}}) as session:
        for name in names:
            form = aiohttp.FormData({options})
            form.add_field("file", b"content", filename=name)
            async with session.post(url, data=form) as answer:
                answer.raise_for_status()

asyncio.run(main())
"""
FETCH = """
async (url, token, ...names) => {
    for (const name of names) {
        const body = new FormData()
        body.append("file", new Blob(["content"]), name)
        const headers = {Authorization: `Bearer ${token}`}
        const answer = await fetch(url, {method: "POST", body, headers})
        if (!answer.ok) throw new Error(await answer.text())
    }
}
"""


def url_of(api: Api) -> str:
    return f"{api.gateway.base}/files/data/up/upload"


def stored(api: Api) -> set[str]:
    return {path.name for path in (api.tree / "data/up").iterdir()}


async def run(*command: str) -> None:
    process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE)
    _, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()


@needs("curl")
async def test_curl(api: Api, tmp_path: Path) -> None:
    for name in NAMES:
        path = tmp_path / name
        path.write_bytes(b"content")
        escaped = str(path).replace("\\", "\\\\").replace('"', '\\"')
        authorization = f"Authorization: Bearer {api.token}"
        form = f'file=@"{escaped}"'
        await run("curl", "-sSf", "-o", "/dev/null", "-H", authorization, "-F", form, url_of(api))
    assert stored(api) == set(NAMES)


@pytest.mark.parametrize("module", ["requests", "httpx"])
async def test_pythons_clients(api: Api, module: str) -> None:
    script = PYTHON.format(module=module)
    await run(sys.executable, "-c", script, url_of(api), str(api.token), *NAMES)
    assert stored(api) == set(NAMES)


def as_quoted(name: str) -> str:
    """What aiohttp sends by default, but for the quotation mark that browsers quote as well."""
    return quote(name, safe="").replace("%22", '"')


@pytest.mark.parametrize(
    ("options", "expected"),
    [("", as_quoted), ("quote_fields=False", str)],
    ids=["default", "plain"],
)
async def test_aiohttp(api: Api, options: str, expected: Callable[[str], str]) -> None:
    script = AIOHTTP.format(options=options)
    await run(sys.executable, "-c", script, url_of(api), str(api.token), *NAMES)
    assert stored(api) == set(map(expected, NAMES))


@needs("node")
async def test_node(api: Api) -> None:
    script = f"await ({FETCH})(...process.argv.slice(1))"
    options = ("--input-type=module", "-e", script, "--")
    await run(str(tool("node")), *options, url_of(api), str(api.token), *NAMES)
    assert stored(api) == set(NAMES)


@needs("chromium")
async def test_a_browser(api: Api, tmp_path: Path) -> None:
    async with open_page(tool("chromium"), tmp_path / "profile") as page:
        await page.open(f"{api.gateway.base}/docs")
        await page.run(f"({FETCH})(...{json.dumps([url_of(api), api.token, *NAMES])})")
    assert stored(api) == set(NAMES)
