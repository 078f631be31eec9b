"""Secrets planted in every setting, in each form, do not appear in what processes show."""

import asyncio
import base64
import json
from collections.abc import Awaitable, Iterator
from typing import Any
from urllib.parse import quote, quote_plus

import aiohttp
import pytest
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


class Plants:
    """A value of its own for every setting that holds a secret; odd, so that spellings differ."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}

    def plant(self, name: str, *, odd: str = '"+/%&=?#@: \\') -> str:
        self.values[name] = f"planted-{name}{odd}end-of-{name}"
        return self.values[name]

    def spellings(self) -> Iterator[tuple[str, str]]:
        """Each value's name, and a text by which it would be recognised."""
        for name, value in self.values.items():
            raw = value.encode()
            yield name, value
            yield name, json.dumps(value)[1:-1]
            yield name, repr(value)[1:-1]
            yield name, quote(value, safe="")
            yield name, quote(value)
            yield name, quote_plus(value)
            yield name, raw.hex()
            # in the middle of what was encoded, at each of the three places where it may begin
            for shift in range(3):
                encoded = base64.b64encode(b"x" * shift + raw).decode()
                yield name, encoded[4:-4]
                yield name, encoded[4:-4].replace("+", "-").replace("/", "_")

    def found_in(self, text: str) -> dict[str, str]:
        """The line in which each value that is found stands first."""
        return {
            name: next(line for line in text.splitlines() if spelling in line)
            for name, spelling in self.spellings()
            if spelling in text
        }


@pytest.fixture
def plants() -> Plants:
    return Plants()


def test_a_planted_value_is_recognised_in_any_spelling(plants: Plants) -> None:
    value = plants.plant("key")
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


def with_password(url: str, password: str) -> str:
    """A database's URL with this password, encoded as URLs want it."""
    changed = make_url(url).set(password=password)
    return changed.render_as_string(hide_password=False)


async def page(session: aiohttp.ClientSession, method: str, url: str, **parts: Any) -> str:
    """The answer, headers included."""
    async with session.request(method, url, **parts) as answer:
        return f"{answer.status} {dict(answer.headers)} {await answer.text()}"


class Scene:
    """The three services with planted settings, and all that they have shown."""

    def __init__(self, cloud: Cloud, plants: Plants, session: aiohttp.ClientSession) -> None:
        self._cloud = cloud
        self._plants = plants
        self._session = session
        self.key = plants.values["INTERNAL_API_KEY_SECRET"]
        self.processes: dict[str, Process] = {}
        self.shown: list[str] = []

    async def ask(self, method: str, path: str, **parts: Any) -> None:
        self.shown.append(await page(self._session, method, self._cloud.url + path, **parts))

    async def look_around(self) -> None:
        """Ask for everything that describes the service, and provoke every kind of refusal."""
        user = {"Authorization": f"Bearer {self._cloud.token}"}
        others = (f"Bearer {self.key}", f"{user['Authorization']}x")
        strangers = [user, *({"Authorization": other} for other in others)]
        body = job_body(attributes={"files_down": {}})
        update = {"job_id": 1, "status": "running", "runtime_details": "details"}
        account = {"email": "me@example.org", "password": "wrong"}
        await asyncio.gather(
            *(
                self.ask("GET", path)
                for path in ("/docs", "/openapi.json", "/access_info", "/", "/none")
            ),
            *(
                self.ask("GET", path, headers=caller)
                for path in (
                    "/user",
                    "/jobs",
                    "/jobs/1",
                    "/jobs/x",
                    "/jobs/applications",
                    "/files/",
                )
                for caller in strangers
            ),
            self.ask("POST", "/jobs", headers=user, json=body),
            self.ask("POST", "/jobs", headers=user, json={"job_name": 3}),
            *(
                self.ask("PUT", "/_job_status", headers={"x-api-key": key}, json=update)
                for key in (self.key, f"{self.key}x")
            ),
            *(self.ask("POST", path, json=account) for path in ("/token", "/login", "/user")),
        )
        for process in self.processes.values():
            for path in ("/livez", "/readyz", "/metrics"):
                self.shown.append(await process.page(path))

    def assert_harmless(self) -> None:
        outputs = [process.output for process in self.processes.values()]
        assert self._plants.found_in("\n".join([*self.shown, *outputs])) == {}


def environments(
    plants: Plants, aws_url: str, server: OwnServer, keys_port: int, peer: FakePeer
) -> dict[str, dict[str, Any]]:
    """The settings of each service: every secret, in each of the forms that it may have."""
    database = plants.plant("DATABASE_SECRET")
    key = plants.plant("INTERNAL_API_KEY_SECRET", odd='"+/%&=?#@:\\')
    for name in ("COGNITO_SECRET", "EMAIL_SENDER_SECRET_KEY"):
        plants.plant(name)
    plants.plant("EMAIL_SENDER_API_KEY", odd='"+/%&=?#@\\')

    def as_json(name: str) -> str:
        return json.dumps({"username": "postgres", "password": plants.values[name]})

    def as_arn(name: str) -> str:
        return aws.create_secret(aws_url, name, as_json(name))

    unfilled = make_url(server.url).set(password="PLACE").render_as_string(hide_password=False)
    templated = unfilled.replace("PLACE", "{}")
    credentials = {
        **aws.environment(aws_url),
        "AWS_ACCESS_KEY_ID": plants.plant("AWS_ACCESS_KEY_ID", odd="-"),
        "AWS_SECRET_ACCESS_KEY": plants.plant("AWS_SECRET_ACCESS_KEY", odd="-"),
        "AWS_SESSION_TOKEN": plants.plant("AWS_SESSION_TOKEN", odd="-"),
        "LOG_LEVEL": "DEBUG",
        "LOG_FORMAT": "json",
    }
    in_keys_url = quote(plants.plant("COGNITO_JWKS_URL"), safe="")
    in_peer_url = quote(plants.plant("WORKERFACING_API_URL"), safe="")
    peer.key = key
    return {
        "gateway": {
            **credentials,
            "DATABASE_URL": templated,
            "DATABASE_SECRET": database,
            "INTERNAL_API_KEY_SECRET": as_arn("INTERNAL_API_KEY_SECRET"),
            "COGNITO_SECRET": as_json("COGNITO_SECRET"),
            "COGNITO_JWKS_URL": f"http://user:{in_keys_url}@127.0.0.1:{keys_port}/jwks.json",
            "PROD": "false",
        },
        "dispatcher": {
            **credentials,
            "DATABASE_URL": templated,
            "DATABASE_SECRET": as_arn("DATABASE_SECRET"),
            "INTERNAL_API_KEY_SECRET": as_json("INTERNAL_API_KEY_SECRET"),
            "WORKERFACING_API_URL": peer.url.replace("//", f"//user:{in_peer_url}@"),
        },
        "notifier": {
            **credentials,
            "DATABASE_URL": with_password(server.url, plants.plant("DATABASE_URL")),
            "EMAIL_SENDER_API_KEY": plants.values["EMAIL_SENDER_API_KEY"],
            "EMAIL_SENDER_SECRET_KEY": as_arn("EMAIL_SENDER_SECRET_KEY"),
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
    plants: Plants,
) -> None:
    keys_port = free_port()
    own = environments(plants, aws_url, server, keys_port, peer)
    async with aiohttp.ClientSession() as session:
        scene = Scene(cloud, plants, session)
        outputs = scene.processes

        def shows(service: str, event: str) -> Awaitable[bool]:
            return eventually(lambda: event in outputs[service].output, within=30)

        outputs["gateway"] = await cloud.gateway(**own["gateway"])
        await scene.look_around()  # without the keys of the user pool
        keys = KeyServer(issuer, port=keys_port)

        async def knows_keys() -> bool:
            return (await cloud.caller.ask("GET", "/user")).status == 200

        await eventually(knows_keys)
        await scene.look_around()

        # a peer that refuses our key, then a job; the same of Mailjet
        outputs["dispatcher"] = cloud.dispatcher(**own["dispatcher"])
        outputs["notifier"] = cloud.notifier(**own["notifier"])
        peer.key = "another"
        await add_handover(database)
        await add_mail(database)
        await shows("dispatcher", "handover.held")
        await shows("notifier", "mail.held")
        peer.key = scene.key
        mailjet.api_key = plants.values["EMAIL_SENDER_API_KEY"]
        mailjet.secret_key = plants.values["EMAIL_SENDER_SECRET_KEY"]
        peer.behave = mailjet.behave = echo_all
        await shows("dispatcher", "handover.refused")
        await shows("notifier", "mail.refused")
        for table in (jobs, handovers, emails):
            scene.shown += [str(row) for row in await rows(database, table)]
        await scene.look_around()

        # mistakes of ours, then no database at all
        async with database.transaction() as tx:
            for number, table in enumerate((jobs, handovers, emails)):
                await tx.exec_driver_sql(f"ALTER TABLE {table.name} RENAME TO others_{number}")
        await scene.look_around()
        await shows("dispatcher", "claim.failed")
        await shows("notifier", "claim.failed")
        await database.close()
        await asyncio.to_thread(server.stop)
        await scene.look_around()
        assert '"event":"request.failed"' in outputs["gateway"].output
        for process in outputs.values():
            assert await process.terminate() == 0
        scene.assert_harmless()
        keys.__exit__()
