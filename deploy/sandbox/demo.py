"""A user's path from the login to the mail, in the running sandbox (`make run`).

The input is the sandbox's sample unless other files are given.
"""

import argparse
import asyncio
import contextlib
import json
import secrets
import sys
import time
import zipfile
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import aiohttp

from deploy.sandbox.client import ClientError, GatewayAwayError, GatewayClient
from deploy.sandbox.exclusive import holder
from deploy.sandbox.layout import Folder
from deploy.sandbox.progress import Progress
from deploy.sandbox.terminal import complain, paint, say

_POLL = 0.1
_START_PATIENCE = 120.0
_LOCK_PATIENCE = 3.0  # a sandbox that was started just now takes its lock after some imports
_GATEWAY_PATIENCE = 30.0  # it may restart in the middle of a job
_ERROR_PATIENCE = 15.0  # the details of an error follow its status
_TOO_SLOW = 30.0  # seconds in each of the job's steps
_CANCEL_PATIENCE = 60.0
_MAIL_PATIENCE = 90.0  # the mail about an error may wait a minute for the details


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m deploy.sandbox.demo", description=__doc__)
    parser.add_argument("--data", type=Path, help="localisations: CSV with x, y, frame, photons")
    parser.add_argument("--config", type=Path, help="how to render: YAML")
    parser.add_argument("--fail", action="store_true", help="start a job that fails")
    parser.add_argument("--slow", type=float, metavar="SECONDS", help="pause in each of 4 steps")
    parser.add_argument("--into", type=Path, help="directory for the results")
    parser.add_argument("--folder", type=Path, help="the sandbox's, if not .sandbox")
    parser.add_argument("--url", help="the gateway, if not the sandbox's")
    parser.add_argument("--timeout", type=float, default=600.0, help="seconds to wait for the job")
    return parser.parse_args()


async def demonstrate(given: argparse.Namespace, run: dict[str, Any], folder: Path) -> bool:
    """Do all steps; returns whether the job ended as expected. Raises `ClientError`."""
    data, config = (_input(given, run, kind) for kind in ("data", "config"))
    name = new_name()
    user = run["accounts"]["user"]
    timeout = aiohttp.ClientTimeout(total=None, connect=10, sock_read=60)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        gateway = GatewayClient(session, given.url or run["gateway"])
        say(f"Logging in as {user['email']}")
        await gateway.log_in(user["email"], user["password"])
        say(f"Uploading {config} and {data}")
        await gateway.upload("config", name, config)
        await gateway.upload("data", name, data)
        job = await gateway.start_job(_request(name, fail=given.fail, slow=given.slow))
        say(f"Started job {job['id']}, {paint(name, 'bold')}")
        job = await _follow(gateway, job, given.timeout)
        if job["status"] == "error":
            say(paint("The job's run-time details:", "bold"))
            say(_indented(job["runtime_details"] or "(none)"))
        await _fetch_results(gateway, job, folder / name)
        await _show_mail(session, run["mail"], job)
        if not given.fail:
            await _repeat_and_cancel(gateway, job)
    return bool(job["status"] == ("error" if given.fail else "finished"))


def new_name() -> str:
    """A job's name, which no other demo has, even if it started in the same second."""
    return f"demo_{time.strftime('%Y%m%d_%H%M%S')}_{secrets.token_hex(2)}"


def _input(given: argparse.Namespace, run: dict[str, Any], kind: str) -> Path:
    path = Path(getattr(given, kind) or run["samples"][kind])
    if not path.is_file():
        raise ClientError(f"there is no file {path}.")
    return path


def _request(name: str, *, fail: bool, slow: float | None) -> dict[str, Any]:
    entrypoint = "fail" if fail else "render"
    return {
        "job_name": name,
        "application": {"application": "superres", "version": "v1", "entrypoint": entrypoint},
        "attributes": {
            "files_down": {"config_id": name, "data_ids": [name]},
            "env_vars": {"SLOW_MOTION": str(slow)} if slow else {},
        },
    }


async def _follow(gateway: GatewayClient, job: dict[str, Any], seconds: float) -> dict[str, Any]:
    """The job at its end, which its events show; one that fails with its details."""
    progress = Progress()
    turning = asyncio.ensure_future(progress.turn())
    status = job["status"]
    try:
        async with asyncio.timeout(seconds) as patience, aclosing(_events(gateway, job)) as events:
            async for event in events:
                status = event["status"]
                progress.show(status)
                if status == "finished" or (status == "error" and event["details"]):
                    break
                if status == "error":  # its details follow
                    patience.reschedule(asyncio.get_running_loop().time() + _ERROR_PATIENCE)
    except TimeoutError as error:
        if status != "error":
            number = job["id"]
            raise ClientError(f"job {number} is still {status} after {seconds:.0f} s.") from error
    finally:
        turning.cancel()
        progress.end()
    return await gateway.job(job["id"])


async def _events(gateway: GatewayClient, job: dict[str, Any]) -> AsyncGenerator[dict[str, Any]]:
    """The job's events from its submission on; waits for a gateway that restarts."""
    after, away_since = 0, None
    while True:
        try:
            async with aclosing(gateway.events(job["id"], after=after)) as events:
                async for event in events:
                    after, away_since = event["id"], None
                    yield event
        except GatewayAwayError:
            away_since = away_since or time.monotonic()
            if time.monotonic() > away_since + _GATEWAY_PATIENCE:
                raise
        await asyncio.sleep(_POLL)


async def _repeat_and_cancel(gateway: GatewayClient, job: dict[str, Any]) -> None:
    """Repeat the job, but slowly, and cancel the repetition once a worker has it."""
    slow = {"attributes": {"env_vars": {"SLOW_MOTION": str(_TOO_SLOW)}}}
    again = await gateway.repeat(job["id"], slow)
    name = paint(again["job_name"], "bold")
    say(f"Repeating it as job {again['id']}, {name}, which takes too long, and cancelling that")
    try:
        async with asyncio.timeout(_CANCEL_PATIENCE), aclosing(_events(gateway, again)) as events:
            async for event in events:
                if event["status"] == "running":
                    await gateway.cancel(again["id"], "only a demonstration")
                if event["type"] == "cancel":
                    say(_indented(event["details"]))
                if event["type"] == "cancelled":
                    say(_indented("Its worker was stopped"))
                    return
    except TimeoutError as error:
        raise ClientError(f"no worker stopped job {again['id']}, which was cancelled.") from error


async def _fetch_results(gateway: GatewayClient, job: dict[str, Any], folder: Path) -> None:
    await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
    kinds = ("output", "log") if job["status"] == "finished" else ("log",)
    for kind in kinds:
        archive = folder / f"{kind}.zip"
        with archive.open("wb") as file:
            async for chunk in gateway.download(job["paths_out"][kind]):
                file.write(chunk)
        try:
            with zipfile.ZipFile(archive) as content:
                content.extractall(folder / kind)
        except zipfile.BadZipFile as error:
            raise ClientError(f"{archive} is not a zip: {error}.") from error
    say(paint(f"Results in {folder}:", "bold"))
    for path in _files_below(folder):
        say(f"  {path.stat().st_size:>10,} bytes  {path.relative_to(folder)}")


def _files_below(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


async def _show_mail(session: aiohttp.ClientSession, mail_url: str, job: dict[str, Any]) -> None:
    wanted = f"(id={job['id']})"
    end = time.monotonic() + _MAIL_PATIENCE
    say("Waiting for the mail ...")
    while time.monotonic() < end:
        try:
            async with session.get(f"{mail_url}/_mails") as response:
                mails = await response.json()
        except (aiohttp.ClientError, TimeoutError, ValueError):
            mails = []
        for mail in reversed(mails):
            if wanted in mail["subject"] and job["job_name"] in mail["subject"]:
                receivers = ", ".join(to["Email"] for to in mail["to"])
                say(f"{paint(mail['subject'], 'bold')}  (to {receivers})")
                say(_indented(mail["text"] or "(HTML only)"))
                say(f"All mails: {mail_url}/mails/{mail['id']}")
                return
        await asyncio.sleep(_POLL)
    raise ClientError(f"no mail about job {job['id']} arrived within {_MAIL_PATIENCE:.0f} s.")


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.strip().splitlines())


def read_run_file(folder: Folder) -> dict[str, Any]:
    """The supervisor's run file, as soon as the sandbox is ready; blocks while it starts.

    Raises `ClientError` if no sandbox runs, or if it is not ready after `_START_PATIENCE` seconds.
    """
    began = time.monotonic()
    last_seen = began
    waiting = False
    while time.monotonic() < began + _START_PATIENCE:
        pid = holder(folder)
        with contextlib.suppress(OSError, ValueError, KeyError):
            run = dict(json.loads(folder.run_file.read_text()))
            if run["pid"] == pid:  # a killed sandbox leaves its file behind
                return run
        if pid is not None:
            last_seen = time.monotonic()
            if not waiting:
                say("Waiting for the sandbox to be ready ...")
                waiting = True
        elif time.monotonic() > last_seen + _LOCK_PATIENCE:
            break
        time.sleep(_POLL)
    raise ClientError("the sandbox is not up: start it with `make run`.")


def main() -> int:
    """Exit status 0 if the job ended as expected, else 1."""
    given = parse_arguments()
    folder = Folder(given.folder.resolve()) if given.folder else Folder()
    try:
        run = read_run_file(folder)
        good = asyncio.run(demonstrate(given, run, given.into or folder.results))
    except ClientError as error:
        complain(f"demo: {error}")
        return 1
    except KeyboardInterrupt:
        return 130
    if not good:
        complain("demo: the job did not end as expected.")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
