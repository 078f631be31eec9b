"""What the sandbox prints once it is up: what runs where, and lines to paste."""

import json
import os
from typing import Any

import aiohttp

from deploy.sandbox.cognito import USER, WORKER
from deploy.sandbox.layout import Folder, Ports, SandboxError, url
from deploy.sandbox.terminal import paint


async def fetch_token(session: aiohttp.ClientSession, gateway: str) -> str:
    """Log the user in as a client would. Raises `SandboxError`."""
    form = {"username": USER.email, "password": USER.password}
    try:
        async with session.post(f"{gateway}/token", data=form) as response:
            body = await response.json(content_type=None)
            if response.status == 201:
                return str(body["id_token"])
            raise SandboxError(f"POST /token answered {response.status}: {body}")
    except (aiohttp.ClientError, TimeoutError, ValueError, KeyError) as error:
        raise SandboxError(f"POST {gateway}/token failed: {type(error).__name__}.") from error


def run_file(folder: Folder, ports: Ports, pids: dict[str, int]) -> dict[str, Any]:
    """What the demo needs to know."""
    return {
        "pid": os.getpid(),
        "gateway": url(ports.gateway),
        "mail": url(ports.mail),
        "peer": url(ports.peer),
        "aws": url(ports.aws),
        "admin": {
            "gateway": url(ports.gateway_admin),
            "dispatcher": url(ports.dispatcher_admin),
            "notifier": url(ports.notifier_admin),
        },
        "accounts": {
            "user": {"email": USER.email, "password": USER.password},
            "worker": {"email": WORKER.email, "password": WORKER.password},
        },
        "samples": {
            "data": str(folder.samples / "localizations.csv"),
            "config": str(folder.samples / "render.yaml"),
        },
        "logs": str(folder.root / "logs"),
        "pids": pids,
    }


def overview(folder: Folder, ports: Ports, pids: dict[str, int], users_files: str) -> str:
    """What runs where."""
    gateway = url(ports.gateway)
    rows = [
        ("gateway", f"{gateway}    (try it: {gateway}/docs)"),
        ("mails", f"{url(ports.mail)}    (a page that shows every mail sent)"),
        ("worker-facing API", f"{url(ports.peer)}    (stand-in; /_queue shows what waits there)"),
        ("AWS", f"{url(ports.aws)}    (stand-in: Cognito, S3, Secrets Manager)"),
    ]
    admin = (ports.gateway_admin, ports.dispatcher_admin, ports.notifier_admin)
    for name, port in zip(("gateway", "dispatcher", "notifier"), admin, strict=True):
        rows.append((f"{name} probes", f"{url(port)}    (/livez /readyz /metrics)"))
    rows += [
        ("user account", f"{USER.email}    password {USER.password}"),
        ("worker account", f"{WORKER.email}    password {WORKER.password}"),
        ("users' files", users_files),
        ("logs", str(folder.root / "logs")),
        ("process ids", "  ".join(f"{name} {pid}" for name, pid in pids.items())),
    ]
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"  {paint(name.ljust(width), 'bold')}  {text}" for name, text in rows)


def curl_lines(folder: Folder, ports: Ports) -> list[tuple[str, str]]:
    """What a user would do, as (comment, line); the first line sets what the others use."""
    gateway, mail = url(ports.gateway), url(ports.mail)
    token = 'curl -sw "\\n" -H "Authorization: Bearer $TOKEN"'
    job = {
        "job_name": "NAME",
        "application": {"application": "superres", "version": "v1", "entrypoint": "render"},
        "attributes": {"files_down": {"config_id": "walkthrough", "data_ids": ["walkthrough"]}},
    }
    body = json.dumps(job).replace("NAME", "'$NAME'")
    value_of = 'sed -E \'s/.*"id_token": *"([^"]+)".*/\\1/\''
    number = "sed -E 's/.*[{,] *\"id\": *([0-9]+).*/\\1/'"
    ended = 'grep -E \'"status": *"(finished|error)"\''
    samples = folder.samples
    login = f"{gateway}/token -d username={USER.email} -d password={USER.password}"
    send = f"{token} -H 'Content-Type: application/json' -d '{body}' {gateway}/jobs"
    files = f"{gateway}/files"
    return [
        (
            "a fresh token (good for an hour), and a job name of your own",
            f"TOKEN=$(curl -s {login} | {value_of}); NAME=walkthrough_$(date +%s)",
        ),
        (
            "upload a configuration",
            f'{token} -F "file=@{samples}/render.yaml" {files}/config/walkthrough/upload',
        ),
        (
            "upload data",
            f'{token} -F "file=@{samples}/localizations.csv" {files}/data/walkthrough/upload',
        ),
        ("see your files", f'{token} "{files}/?recursive=true"'),
        ("start a job", f"JOB=$({send} | {number}); echo job $JOB"),
        (
            "follow it until it has ended",
            f"until {token} {gateway}/jobs/$JOB | {ended}; do sleep 1; done",
        ),
        ("list what it made", f"{token} {files}/output/$NAME"),
        ("download it", f"{token} -o $NAME.zip {files}/output/$NAME/download"),
        ("unpack it", "python3 -m zipfile -e $NAME.zip $NAME && ls $NAME"),
        ("read the mail", f'curl -sw "\\n" {mail}/_mails'),
    ]


def walkthrough(folder: Folder, ports: Ports) -> str:
    """The lines to paste, one by one, each with its comment."""
    return "\n".join(
        f"{paint('# ' + comment, 'dim')}\n{line}" for comment, line in curl_lines(folder, ports)
    )
