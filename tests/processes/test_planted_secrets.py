"""Secrets planted in every setting, in each form, do not appear in any output."""

import asyncio
import base64
import json
from collections.abc import Awaitable, Iterator
from typing import Any
from urllib.parse import quote, quote_plus

from aiohttp import web
from sqlalchemy.engine import make_url

from common.database.engine import Database
from common.database.tables import emails, handovers, jobs
from deploy.sandbox import aws
from deploy.sandbox.ports import free_port
from devtools.postgres import OwnServer
from devtools.services import Process
from devtools.user_pool import Issuer
from devtools.waiting import eventually
from tests.support.cloud import Cloud, on_own_server
from tests.support.dispatcher import FakePeer
from tests.support.gateway import job_body
from tests.support.key_server import KeyServer
from tests.support.notifier import FakeMailjet
from tests.support.records import add_handover, add_mail, rows
from tests.support.tus import metadata

ODD = '"+/%&=?#@: \\'
LESS_ODD = {
    "INTERNAL_API_KEY_SECRET": '"+/%&=?#@:\\',
    "EMAIL_SENDER_API_KEY": '"+/%&=?#@\\',
    "EMAIL_SENDER_EVENT_TOKEN": '"+/%&=?#@:\\',
    **dict.fromkeys(["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"], "-"),
}


class Plants(dict[str, str]):
    """A value for every setting that is asked for; odd, so that spellings differ."""

    def __missing__(self, name: str) -> str:
        self[name] = f"planted-{name}{LESS_ODD.get(name, ODD)}end-of-{name}"
        return self[name]

    def as_json(self, name: str) -> str:
        return json.dumps({"username": "postgres", "password": self[name]})

    def found_in(self, text: str) -> dict[str, str]:
        """The line in which each value that is found stands first."""
        return {
            name: next(line for line in text.splitlines() if spelling in line)
            for name, value in self.items()
            for spelling in spellings(value)
            if spelling in text
        }


def spellings(value: str) -> Iterator[str]:
    """Texts by which a value would be recognised."""
    raw = value.encode()
    yield from (value, json.dumps(value)[1:-1], repr(value)[1:-1], raw.hex())
    yield from (quote(value, safe=""), quote(value), quote_plus(value))
    # in the middle of what was encoded, at each of the three places where it may begin
    for shift in range(3):
        encoded = base64.b64encode(b"x" * shift + raw).decode()[4:-4]
        yield from (encoded, encoded.replace("+", "-").replace("/", "_"))


def test_a_planted_value_is_recognised_in_any_spelling() -> None:
    plants = Plants()
    value = plants["key"]
    for shown in (
        f"x{value}y",
        json.dumps({"a": value}),
        repr((value,)),
        f"https://user:{quote(value, safe='')}@host",
        base64.b64encode(f"user:{value}".encode()).decode(),
        base64.b64encode(f"long-user:{value}".encode()).decode(),
    ):
        assert plants.found_in(shown).keys() == {"key"}, shown
    assert plants.found_in("planted-key") == {}


class Scene:
    """The three services with planted settings, and all that they have shown."""

    def __init__(self, cloud: Cloud, plants: Plants) -> None:
        self._cloud = cloud
        self._plants = plants
        self.processes: dict[str, Process] = {}
        self.shown: list[str] = []

    async def ask(self, method: str, path: str, **parts: Any) -> None:
        answer = await self._cloud.caller.ask(method, path, **parts)
        self.shown.append(f"{dict(answer.headers)} {answer.text}")

    async def look_around(self) -> None:
        """Ask for everything that describes the service, and provoke every kind of refusal."""
        token, key = self._cloud.token, self._plants["INTERNAL_API_KEY_SECRET"]
        callers = [{"Authorization": f"Bearer {shown}"} for shown in (token, key, f"{token}x")]
        public = ("/docs", "/openapi.json", "/access_info", "/", "/none")
        private = ("/user", "/jobs", "/jobs/1", "/jobs/x", "/jobs/applications", "/files/")
        update = {"job_id": 1, "status": "running", "runtime_details": "details"}
        account = {"email": "me@example.org", "password": "wrong"}
        tus = {"Tus-Resumable": "1.0.0", "Upload-Length": "3"}
        tus["Upload-Metadata"] = metadata(path="data/x", note=key)
        await asyncio.gather(
            *(self.ask("GET", path, headers={}) for path in public),
            *(self.ask("GET", path, headers=caller) for path in private for caller in callers),
            self.ask("POST", "/jobs", json=job_body(attributes={"files_down": {}})),
            self.ask("POST", "/jobs", json={"job_name": 3}),
            *(
                self.ask(method, path, headers=caller | tus)
                for method, path in (("POST", "/uploads"), ("HEAD", "/uploads/x"))
                for caller in callers
            ),
            *(
                self.ask("PUT", "/_job_status", headers={"x-api-key": shown}, json=update)
                for shown in (key, f"{key}x")
            ),
            *(
                self.ask("POST", path, json=account, headers={})
                for path in ("/token", "/login", "/user")
            ),
        )
        for process in self.processes.values():
            for path in ("/livez", "/readyz", "/metrics"):
                self.shown.append(await process.page(path))

    def shows(self, service: str, event: str) -> Awaitable[bool]:
        return eventually(lambda: event in self.processes[service].output, within=60)

    def assert_harmless(self) -> None:
        outputs = [process.output for process in self.processes.values()]
        assert self._plants.found_in("\n".join([*self.shown, *outputs])) == {}


def environments(
    plants: Plants, aws_url: str, server: OwnServer, keys_port: int, peer: FakePeer
) -> dict[str, dict[str, Any]]:
    """The settings of each service: every secret, in each of the forms that it may have."""

    def as_arn(name: str) -> str:
        return aws.create_secret(aws_url, name, plants.as_json(name))

    def in_url(url: str, name: str) -> str:
        return url.replace("//", f"//user:{quote(plants[name], safe='')}@")

    def database_with(password: str) -> str:
        url = make_url(server.url).set(password=password)
        return url.render_as_string(hide_password=False)

    keys_url = f"http://127.0.0.1:{keys_port}/jwks.json"
    credentials = {
        **aws.environment(aws_url),
        **{name: plants[name] for name in LESS_ODD if name.startswith("AWS_")},
        "DATABASE_URL": database_with("PLACE").replace("PLACE", "{}"),
        "LOG_LEVEL": "DEBUG",
        "LOG_FORMAT": "json",
    }
    return {
        "gateway": {
            **credentials,
            "DATABASE_SECRET": plants["DATABASE_SECRET"],
            "INTERNAL_API_KEY_SECRET": as_arn("INTERNAL_API_KEY_SECRET"),
            "COGNITO_SECRET": plants.as_json("COGNITO_SECRET"),
            "COGNITO_JWKS_URL": in_url(keys_url, "COGNITO_JWKS_URL"),
            "NOTIFICATION_KEYS": plants["NOTIFICATION_KEYS"],
            "EMAIL_SENDER_EVENT_TOKEN": plants["EMAIL_SENDER_EVENT_TOKEN"],
            "PROD": "false",
        },
        "dispatcher": {
            **credentials,
            "DATABASE_SECRET": as_arn("DATABASE_SECRET"),
            "INTERNAL_API_KEY_SECRET": plants.as_json("INTERNAL_API_KEY_SECRET"),
            "WORKERFACING_API_URL": in_url(peer.url, "WORKERFACING_API_URL"),
        },
        "notifier": {
            **credentials,
            "DATABASE_URL": database_with(plants["DATABASE_URL"]),
            "EMAIL_SENDER_API_KEY": plants["EMAIL_SENDER_API_KEY"],
            "EMAIL_SENDER_SECRET_KEY": as_arn("EMAIL_SENDER_SECRET_KEY"),
            "NOTIFICATION_KEYS": plants.as_json("NOTIFICATION_KEYS"),
            "PUBLIC_URL": "https://api.example.org",
            "LOG_FORMAT": "pretty",
        },
    }


async def echo_all(request: web.Request, _: Any) -> web.StreamResponse:
    """Refuse, in words that repeat every header that came."""
    words = {name: str(value) for name, value in request.headers.items()}
    return web.json_response({"detail": str(words), "ErrorMessage": str(words)}, status=400)


@on_own_server
async def test_no_secret_is_shown_by_any_failure(
    cloud: Cloud,
    database: Database,
    server: OwnServer,
    peer: FakePeer,
    mailjet: FakeMailjet,
    issuer: Issuer,
    aws_url: str,
) -> None:
    plants, keys_port = Plants(), free_port()
    own = environments(plants, aws_url, server, keys_port, peer)
    scene = Scene(cloud, plants)
    outputs = scene.processes
    outputs["gateway"] = await cloud.gateway(**own["gateway"])
    await scene.look_around()  # without the keys of the user pool
    with KeyServer(issuer, port=keys_port):

        async def knows_keys() -> bool:
            return (await cloud.caller.ask("GET", "/user")).status == 200

        await eventually(knows_keys)
        await scene.look_around()

    # a peer that refuses our key, then a job; the same of Mailjet
    outputs["dispatcher"] = cloud.dispatcher(**own["dispatcher"])
    outputs["notifier"] = cloud.notifier(**own["notifier"])
    await add_handover(database)
    await add_mail(database)
    await scene.shows("dispatcher", "handover.held")
    await scene.shows("notifier", "mail.held")
    peer.key = plants["INTERNAL_API_KEY_SECRET"]
    mailjet.api_key = plants["EMAIL_SENDER_API_KEY"]
    mailjet.secret_key = plants["EMAIL_SENDER_SECRET_KEY"]
    peer.behave = mailjet.behave = echo_all
    await scene.shows("dispatcher", "handover.refused")
    await scene.shows("notifier", "mail.refused")
    for table in (jobs, handovers, emails):
        scene.shown += [str(row) for row in await rows(database, table)]
    await scene.look_around()

    # programming errors, then no database at all
    async with database.transaction() as tx:
        for number, table in enumerate((jobs, handovers, emails)):
            await tx.exec_driver_sql(f"ALTER TABLE {table.name} RENAME TO others_{number}")
    await scene.look_around()
    await scene.shows("dispatcher", "claim.failed")
    await scene.shows("notifier", "claim.failed")
    await database.close()
    await asyncio.to_thread(server.stop)
    await scene.look_around()
    assert '"event":"request.failed"' in outputs["gateway"].output
    for process in outputs.values():
        assert await process.terminate() == 0
    scene.assert_harmless()
