"""The image's steps, run without a container engine, yield working services.

Installing the dependencies downloads them and takes about a minute, so that part runs only with
OPENCLOUD_TEST_IMAGE=1. Without it the dependencies are the ones of the running interpreter.
"""

import asyncio
import os
import signal
import subprocess
import sys
import sysconfig
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from deploy.sandbox.ports import free_port
from devtools.waiting import eventually
from tests.tools.deploy.places import DEPLOY, REPOSITORY

STEPS = DEPLOY / "image-steps.sh"
MODULES = ("gateway", "dispatcher", "notifier")


def take_step(name: str, target: Path) -> None:
    subprocess.run(
        [str(STEPS), name, str(REPOSITORY), str(target)],
        env={**os.environ, "PYTHON": sys.executable},
        check=True,
    )


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """What the image would hold."""
    target = tmp_path / "opencloud"
    if os.environ.get("OPENCLOUD_TEST_IMAGE"):
        take_step("dependencies", target)
    else:
        subprocess.run(
            [sys.executable, "-m", "venv", "--without-pip", str(target / "venv")], check=True
        )
        (packages,) = (target / "venv").glob("lib/python*/site-packages")
        (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    take_step("application", target)
    return target


@asynccontextmanager
async def running(target: Path, module: str, folder: Path) -> AsyncIterator[dict[str, str]]:
    """`python -m module` from `target`, isolated from this repository."""
    environment = {
        "DATABASE_URL": f"sqlite:///{folder}/opencloud.db",
        "USER_DATA_ROOT_PATH": f"{folder}/user_data",
        "COGNITO_USER_POOL_ID": "eu-central-1_pool",
        "COGNITO_CLIENT_ID": "client",
        "INTERNAL_API_KEY_SECRET": "a-key-of-the-peer",
        "WORKERFACING_API_URL": f"http://127.0.0.1:{free_port()}",
        "HOST": "127.0.0.1",
        "PORT": str(free_port()),
        "ADMIN_PORT": str(free_port()),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    python = str(target / "venv/bin/python")
    process = await asyncio.create_subprocess_exec(
        python, "-m", module, cwd=folder, env=environment, stdout=asyncio.subprocess.DEVNULL
    )
    try:
        yield environment
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(60):
            assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def get(url: str) -> tuple[int, str]:
    """Status and body; status 0 while nobody answers."""
    try:
        async with aiohttp.ClientSession() as session, session.get(url) as response:
            return response.status, await response.text()
    except aiohttp.ClientError:
        return 0, ""


async def test_what_the_image_holds_serves(target: Path, tmp_path: Path) -> None:
    folder = tmp_path / "clean"
    folder.mkdir()
    for module in MODULES:
        async with running(target, module, folder) as environment:
            admin = f"http://127.0.0.1:{environment['ADMIN_PORT']}"

            async def is_ready(url: str = f"{admin}/readyz") -> bool:
                return (await get(url))[0] == 200

            await eventually(is_ready, within=60)
            if module == "gateway":
                public = f"http://127.0.0.1:{environment['PORT']}"
                status, body = await get(f"{public}/")
                assert (status, "DECODE OpenCloud" in body) == (200, True)
                assert (await get(f"{public}/docs"))[0] == 200
                assert (await get(f"{public}/openapi.json"))[0] == 200


def test_nothing_that_installs_and_no_tests_are_in_it(target: Path) -> None:
    assert {path.name for path in (target / "app").iterdir()} == {
        "common",
        "gateway",
        "dispatcher",
        "notifier",
        "application_config.yaml",
        "LICENSE",
    }
    assert not list((target / "venv/bin").glob("pip*"))
    (packages,) = (target / "venv").glob("lib/python*/site-packages")
    assert not [p.name for p in packages.iterdir() if p.name in {"pip", "setuptools", "wheel"}]
