"""The demo: the names it sends, and its wait for a sandbox that starts."""

import json
import os
import re
import subprocess
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from deploy.sandbox import demo
from deploy.sandbox.client import ClientError, GatewayClient
from deploy.sandbox.layout import Folder


@pytest.mark.parametrize(
    ("name", "sent"),
    [
        ("my cells.csv", "my cells.csv"),
        ("Zürich.csv", "Zürich.csv"),
        ("50%.csv", "50%.csv"),
        ("a%41b.csv", "a%41b.csv"),
        ('a"b.csv', "a%22b.csv"),
        ("a\nb.csv", "a%0Ab.csv"),
    ],
)
async def test_names_are_sent_as_browsers_send_them(
    tmp_path: Path, session: aiohttp.ClientSession, name: str, sent: str
) -> None:
    bodies: list[bytes] = []

    async def link(request: web.Request) -> web.Response:
        url = str(request.url.with_path("/upload"))
        return web.json_response({"method": "post", "url": url, "headers": {}, "data": {}})

    async def upload(request: web.Request) -> web.Response:
        bodies.append(await request.read())
        return web.Response(status=201)

    app = web.Application()
    app.router.add_post("/files/data/exp/url", link)
    app.router.add_post("/upload", upload)
    (tmp_path / name).write_text("content")
    async with TestServer(app) as server:
        await GatewayClient(session, str(server.make_url(""))).upload(
            "data", "exp", tmp_path / name
        )
    (body,) = bodies
    (found,) = re.findall(rb'name="file"; filename="(.*)"\r\n', body)
    assert found.decode() == sent


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    monkeypatch.setattr(demo, "_LOCK_PATIENCE", 0.0)
    return Folder(tmp_path)


@pytest.fixture
def dead() -> int:
    """The id of a process that has ended."""
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


def write_run_file(folder: Folder, pid: int) -> None:
    folder.run_file.write_text(json.dumps({"pid": pid}))


def test_the_demo_waits_with_a_word_for_a_sandbox_that_starts(
    folder: Folder, dead: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder.root / "lock").write_text(f"{os.getpid()}\n")
    write_run_file(folder, dead)  # of one that was killed before
    said: list[str] = []

    def say(text: str) -> None:
        said.append(text)
        write_run_file(folder, os.getpid())

    monkeypatch.setattr(demo, "say", say)
    assert demo.read_run_file(folder) == {"pid": os.getpid()}
    assert said == ["Waiting for the sandbox to be ready ..."]


def test_a_sandbox_that_was_killed_is_not_up(folder: Folder, dead: int) -> None:
    (folder.root / "lock").write_text(f"{dead}\n")
    write_run_file(folder, dead)
    with pytest.raises(ClientError, match="the sandbox is not up"):
        demo.read_run_file(folder)


def test_demos_of_the_same_second_have_names_of_their_own() -> None:
    assert demo.new_name() != demo.new_name()
