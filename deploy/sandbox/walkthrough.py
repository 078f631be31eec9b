"""The text that the sandbox prints once it is up: an overview, and commands to paste."""

import json
import os
from typing import Any

import aiohttp

from deploy.sandbox.cognito import USER, WORKER
from deploy.sandbox.layout import Folder, Ports, SandboxError, url
from deploy.sandbox.terminal import paint


async def fetch_token(session: aiohttp.ClientSession, gateway: str) -> str:
    """Log the user in, as a client does. Raises `SandboxError`."""
    form = {"username": USER.email, "password": USER.password}
    try:
        async with session.post(f"{gateway}/token", data=form) as response:
            body = await response.json(content_type=None)
            if response.status == 201:
                return str(body["id_token"])
            raise SandboxError(f"POST /token returned {response.status}: {body}")
    except (aiohttp.ClientError, TimeoutError, ValueError, KeyError) as error:
        raise SandboxError(f"POST {gateway}/token failed: {type(error).__name__}.") from error


def run_file(folder: Folder, ports: Ports, pids: dict[str, int]) -> dict[str, Any]:
    """The run file for the demo."""
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
    """Addresses, accounts, folders and process ids."""
    gateway = url(ports.gateway)
    rows = [
        ("gateway", f"{gateway}    (try it: {gateway}/docs)"),
        ("mails", f"{url(ports.mail)}    (a page with every mail that was sent)"),
        ("webhooks", f"{url(ports.mail)}/webhooks    (a page with what came to /webhook there)"),
        ("worker-facing API", f"{url(ports.peer)}    (stand-in; /_queue shows its queue)"),
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
    """A user's steps as (comment, command); the first sets the variables of the others."""
    gateway, mail = url(ports.gateway), url(ports.mail)
    token = 'curl -sw "\\n" -H "Authorization: Bearer $TOKEN"'
    job = {
        "job_name": "NAME",
        "application": {"application": "superres", "version": "v1", "entrypoint": "render"},
        "attributes": {"files_down": {"config_id": "walkthrough", "data_ids": ["walkthrough"]}},
    }
    body = json.dumps(job).replace("NAME", "'$NAME'")
    value_of = 'sed -E \'s/.*"id_token": *"([^"]+)".*/\\1/\''
    secret_of = 'sed -E \'s/.*"secret": *"([^"]+)".*/\\1/\''
    number = "sed -E 's/.*[{,] *\"id\": *([0-9]+).*/\\1/'"
    ended = 'grep -E \'"status": *"(finished|error)"\''
    follow = f'{token} -N "{gateway}/jobs/events?job=$JOB&after=0"'
    wait = f'{token} "{gateway}/jobs/$JOB?wait=60"'
    reason = json.dumps({"reason": "wrong file"})
    slow = json.dumps({"attributes": {"env_vars": {"SLOW_MOTION": "60"}}})
    as_json = "-H 'Content-Type: application/json'"
    hook = json.dumps({"url": f"{mail}/webhook"})
    add_hook = f"{token} {as_json} -d '{hook}' {gateway}/webhooks"
    cancel = f"{token} {as_json} -d '{reason}' {gateway}/jobs/$JOB/cancel"
    samples = folder.samples
    login = f"{gateway}/token -d username={USER.email} -d password={USER.password}"
    send = f"{token} {as_json} -d '{body}' {gateway}/jobs"
    files = f"{gateway}/files"
    return [
        (
            "a new token (valid for an hour), and a job name",
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
        ("list your files", f'{token} "{files}/?recursive=true"'),
        (
            "announce your jobs to a receiver, which verifies signatures with the webhook's secret",
            f"{add_hook} | {secret_of} | curl -sw '\\n' -T - {mail}/webhook/secret",
        ),
        ("start a job", f"JOB=$({send} | {number}); echo job $JOB"),
        (
            "follow its events until it has ended",
            f"{follow} & until {wait} | {ended}; do :; done; kill $!",
        ),
        ("list its results", f"{token} {files}/output/$NAME"),
        ("download them", f"{token} -o $NAME.zip {files}/output/$NAME/download"),
        ("unpack them", "python3 -m zipfile -e $NAME.zip $NAME && ls $NAME"),
        ("read the mail", f'curl -sw "\\n" {mail}/_mails'),
        ("see what the webhook's receiver got", f'curl -sw "\\n" {mail}/_webhooks'),
        (
            "repeat the job, but slowly, and cancel the repetition",
            f"JOB=$({token} {as_json} -d '{slow}' {gateway}/jobs/$JOB/repeat | {number}); {cancel}",
        ),
    ]


def walkthrough(folder: Folder, ports: Ports) -> str:
    """The commands to paste, each with its comment."""
    return "\n".join(
        f"{paint('# ' + comment, 'dim')}\n{line}" for comment, line in curl_lines(folder, ports)
    )
