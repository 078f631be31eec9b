"""A byte-exact HTTP client, and a gateway that runs in a thread."""

import asyncio
import http.client
import json as jsonlib
import socket
import threading
import urllib.parse
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import pytest
import uvloop
from aiohttp import web
from sqlalchemy import text

from common.config.environment import Reader
from common.database.engine import Database
from common.runtime.process import Address, serve
from common.telemetry.health import Health
from devtools.postgres import run_apart
from devtools.user_pool import INTERNAL_KEY
from gateway.app import create_app, runner_for
from gateway.jobs.schemas import HARDWARE_KEYS
from gateway.settings import Settings, load
from tests.support.answers import check_answer

FRONTEND = "http://localhost:8080"

TOP = ["artifact/", "config/", "data/", "log/", "output/"]


ENTRYPOINT = {
    "app": {"cmd": ["run", "--fast"], "env": ["KEY", "OTHER_KEY"]},
    "handler": {
        "image_url": "registry.example/image",
        "files_down": {"config_id": "config", "data_ids": "data", "artifact_ids": "artifact"},
        "files_up": {"log": "log", "artifact": "model"},
    },
}
APPLICATIONS: dict[str, Any] = {
    "decode": {
        "v1": {
            "train": ENTRYPOINT,
            # takes no configuration and no artifacts
            "fit": {
                "app": {"cmd": ["run"], "env": []},
                "handler": {
                    "image_url": "registry.example/image",
                    "aws_job_def": "definition",
                    "files_down": {"data_ids": "data"},
                    "files_up": {"output": "output"},
                },
            },
            # puts everything in one place
            "flat": {
                "app": {"cmd": ["run"], "env": []},
                "handler": {
                    "image_url": "registry.example/image",
                    "files_down": {"config_id": "in", "data_ids": "in"},
                    "files_up": {},
                },
            },
        }
    }
}

on_both_databases = pytest.mark.parametrize(
    "gateway", ["sqlite", "postgresql"], indirect=True, scope="session"
)
on_both_storages = pytest.mark.parametrize(
    "gateway", ["sqlite", "s3"], indirect=True, scope="session", ids=["local", "s3"]
)


# -- the gateway --------------------------------------------------------------------------------


class Gateway:
    """The real application, served by an event loop of its own in a thread."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.environment = dict(environment)
        self.root = Path(environment["USER_DATA_ROOT_PATH"])
        self.settings = read_settings(environment)
        self.loop: asyncio.AbstractEventLoop
        self.port = 0
        self.app: web.Application | None = None
        self._stop = asyncio.Event()
        self._started = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        self._started.wait()
        if self._failure is not None:
            self._thread.join()
            raise self._failure
        return self

    def __exit__(self, *_: object) -> None:
        self.loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                self.loop = runner.get_loop()
                runner.run(self._serve())
        except BaseException as error:
            self._failure = error
        finally:
            self._started.set()

    async def _serve(self) -> None:
        self.app = create_app(self.settings, Health("gateway"))
        address = Address("PORT", "127.0.0.1", 0)
        async with serve(self.app, address, make_runner=runner_for(self.settings)) as self.port:
            self._started.set()
            await self._stop.wait()

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def raw(self, request: bytes, *, timeout: float = 30.0) -> "Reply":
        """Send these bytes as they are and read one answer."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=timeout) as connection:
            connection.sendall(request)
            method = request.partition(b" ")[0].decode("latin-1")
            answer = http.client.HTTPResponse(connection, method=method)
            try:
                answer.begin()
                headers = {name.lower(): value for name, value in answer.getheaders()}
                return Reply(answer.status, headers, answer.read())
            finally:
                answer.close()


def read_settings(environment: Mapping[str, str]) -> Settings:
    """The gateway's settings from this environment alone. Raises `SettingsError`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.environ", dict(environment))
        reader = Reader()
        settings = load(reader)
    reader.check()
    return settings


# -- the client ---------------------------------------------------------------------------------


@dataclass
class Reply:
    """An answer, its headers' names in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()

    def json(self) -> Any:
        return jsonlib.loads(self.body)

    @property
    def detail(self) -> Any:
        return self.json()["detail"]

    def faults(self) -> set[tuple[tuple[Any, ...], str]]:
        """Location and type of everything that a 422 reports."""
        assert self.status == 422, self
        for fault in self.detail:
            assert set(fault) == {"loc", "msg", "type"}, fault
            assert fault["msg"]
        return {(tuple(fault["loc"]), fault["type"]) for fault in self.detail}

    def __repr__(self) -> str:
        return f"<Reply {self.status} {self.body[:600]!r}>"


@dataclass
class Api:
    """One caller, which sends targets as they are written, without any normalisation."""

    gateway: Gateway
    user: str = ""
    token: str | None = None
    headers: dict[str, str] = field(default_factory=dict)

    def send(
        self,
        method: str,
        target: str,
        *,
        json: Any = ...,
        form: Any = None,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        sent = dict(self.headers)
        if self.token is not None:
            sent["Authorization"] = f"Bearer {self.token}"
        if json is not ...:
            body = jsonlib.dumps(json).encode()
            sent["Content-Type"] = "application/json"
        elif form is not None:
            body = urllib.parse.urlencode(form, doseq=True).encode()
            sent["Content-Type"] = "application/x-www-form-urlencoded"
        sent |= headers or {}
        if body is not None:
            sent.setdefault("Content-Length", str(len(body)))
        elif method in {"POST", "PUT"}:
            sent["Content-Length"] = "0"
        connection = http.client.HTTPConnection("127.0.0.1", self.gateway.port, timeout=30)
        try:
            connection.putrequest(
                method, target, skip_host="Host" in sent, skip_accept_encoding=True
            )
            for name, value in sent.items():
                connection.putheader(name, value)
            connection.endheaders(body)
            answer = connection.getresponse()
            found: dict[str, str] = {}
            for name, value in answer.getheaders():
                name = name.lower()
                found[name] = f"{found[name]}, {value}" if name in found else value
            reply = Reply(answer.status, found, answer.read())
        finally:
            connection.close()
        if isinstance(self.gateway, Gateway):
            kind = reply.headers.get("content-type", "")
            check_answer(method, target, reply.status, kind, reply.body)
        return reply

    def get(self, target: str, **kw: Any) -> Reply:
        return self.send("GET", target, **kw)

    def post(self, target: str, **kw: Any) -> Reply:
        return self.send("POST", target, **kw)

    def put(self, target: str, **kw: Any) -> Reply:
        return self.send("PUT", target, **kw)

    def delete(self, target: str, **kw: Any) -> Reply:
        return self.send("DELETE", target, **kw)

    # -- jobs -------------------------------------------------------------------------------

    def plant_inputs(self) -> None:
        """Files that `job_body` selects."""
        self.plant("config/exp/param.yaml")
        self.plant("data/exp/frames.tif")
        self.plant("data/exp/deep/more.tif")
        self.plant("artifact/exp/model.pt")

    def submit(self, **changes: Any) -> Reply:
        return self.post("/jobs", json=job_body(**changes))

    def new_job(self, **changes: Any) -> dict[str, Any]:
        """A job, without input files by default."""
        reply = self.submit(**{"attributes": {"files_down": {}}, **changes})
        assert reply.status == 201, reply
        return reply.json()

    def report(self, job_id: Any, status: Any, details: Any = ...) -> Reply:
        """A status update, as the worker-facing API sends it."""
        body = {"job_id": job_id, "status": status}
        if details is not ...:
            body["runtime_details"] = details
        headers = {"x-api-key": INTERNAL_KEY}
        return Api(self.gateway).put("/_job_status", json=body, headers=headers)

    # -- files ------------------------------------------------------------------------------

    @property
    def tree(self) -> Path:
        """The caller's directory on disk."""
        return self.gateway.root / self.user

    def plant(self, path: str, content: bytes = b"content") -> Path:
        """Put a file into the caller's tree, past the API."""
        target = self.tree / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
        return target

    def upload(self, directory: str, name: str | bytes, content: bytes = b"content") -> Reply:
        body, kind = multipart(name, content)
        return self.post(f"/files/{directory}/upload", body=body, headers={"Content-Type": kind})

    def paths(self, directory: str = "", query: str = "") -> list[str]:
        reply = self.get(f"/files/{directory}{query}")
        assert reply.status == 200, reply
        return [entry["path"] for entry in reply.json()]

    def follow(self, request: dict[str, Any], upload: tuple[str, bytes] | None = None) -> Reply:
        """Send the request that a `/url` answer describes, as `requests.request(**answer)` does."""
        assert set(request) == {"method", "url", "headers", "data"}
        url = urllib.parse.urlsplit(request["url"])
        target = urllib.parse.quote(url.path, safe="!#$%&'()*+,/:;=?@[]~")
        if url.query:
            target += f"?{url.query}"
        headers, body = dict(request["headers"]), None
        if upload is not None:
            body, headers["Content-Type"] = multipart(*upload, fields=request["data"])
        anybody = Api(self.gateway, headers={"Host": url.netloc})
        return anybody.send(request["method"].upper(), target, body=body, headers=headers)


def job_body(**changes: Any) -> dict[str, Any]:
    """A submission; `...` as a value leaves the field out."""
    body = {
        "job_name": fresh("job"),
        "environment": None,
        "priority": 0,
        "application": {"application": "decode", "version": "v1", "entrypoint": "train"},
        "attributes": {
            "files_down": {"config_id": "exp", "data_ids": ["exp"], "artifact_ids": ["exp"]},
            "env_vars": {"KEY": "value"},
        },
        "hardware": dict.fromkeys(HARDWARE_KEYS),
        **changes,
    }
    return {name: value for name, value in body.items() if value is not ...}


def rows(gateway: Gateway, statement: str, **values: Any) -> list[Any]:
    """Rows of the gateway's database."""

    async def ask() -> list[Any]:
        database = Database(gateway.settings.database)
        try:
            async with database.reading() as connection:
                return list((await connection.execute(text(statement), values)).all())
        finally:
            await database.close()

    return run_apart(ask())


def payload_of(user: Api, job_id: int) -> Any:
    """The message that the peer gets for a job."""
    statement = "SELECT payload FROM handovers WHERE job_id = :id"
    return jsonlib.loads(rows(user.gateway, statement, id=job_id)[0][0])


def multipart(
    name: str | bytes,
    content: bytes,
    *,
    field_name: str = "file",
    fields: Mapping[str, str] | None = None,
    disposition: bytes | None = None,
) -> tuple[bytes, str]:
    """A form with one file, as bytes and content type."""
    mark = uuid.uuid4().hex
    raw = name if isinstance(name, bytes) else name.encode()
    shown = disposition or b'form-data; name="%b"; filename="%b"' % (field_name.encode(), raw)
    parts = [
        f'--{mark}\r\nContent-Disposition: form-data; name="{key}"\r\n\r\n{value}\r\n'.encode()
        for key, value in (fields or {}).items()
    ]
    parts.append(
        f"--{mark}\r\nContent-Disposition: ".encode()
        + shown
        + b"\r\nContent-Type: application/octet-stream\r\n\r\n"
        + content
        + f"\r\n--{mark}--\r\n".encode()
    )
    return b"".join(parts), f"multipart/form-data; boundary={mark}"


def fresh(prefix: str = "t") -> str:
    return f"{prefix}-{uuid.uuid4().hex[:12]}"


def audited(written: str, action: str, request_id: str) -> str:
    """The line of the audit trail about a request."""
    (line,) = [
        line
        for line in written.splitlines()
        if "audit.recorded" in line and f"action={action} " in line and request_id in line
    ]
    return line
