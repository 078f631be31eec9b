"""Calls to receivers that misbehave, and where connections may lead."""

import asyncio
import socket
import ssl
import subprocess
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from common.webhooks.addresses import ForbiddenAddress
from notifier.webhooks.connections import PublicResolver, open_session, open_socket
from notifier.webhooks.courier import AT_ONCE
from notifier.webhooks.receiver import MOST_READ, Outcome, Receivers, Verdict, outcome_of

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

HEAD = b"HTTP/1.1 200 OK\r\n"
DEADLINE = 0.5


@asynccontextmanager
async def serving(talk: Talk, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """A server that answers with bytes of its own; gives its port."""
    talks: set[Any] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        talks.add(asyncio.current_task())
        try:
            await talk(reader, writer)
        except (OSError, EOFError, asyncio.CancelledError):
            pass
        finally:
            writer.transport.abort()

    async with await asyncio.start_server(handle, "127.0.0.1", 0, ssl=tls) as server:
        yield server.sockets[0].getsockname()[1]
        for task in talks:
            task.cancel()
        await asyncio.gather(*talks)


async def call(
    url: str,
    *,
    trust: ssl.SSLContext | None = None,
    deadline: float = 15,
    allow_http: bool = True,
) -> Outcome:
    async with open_session(allow_private=True, connections=1, tls=trust) as session:
        receivers = Receivers(session, allow_http=allow_http, deadline=deadline)
        return await receivers.post(url, {"webhook-id": "msg_1"}, b"{}")


async def read_head(reader: asyncio.StreamReader) -> bytes:
    return await reader.readuntil(b"\r\n\r\n")


async def test_a_slow_receiver_has_failed_at_the_deadline() -> None:
    async def say_nothing(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read()

    async with serving(say_nothing) as port:
        outcome = await call(f"http://127.0.0.1:{port}/", deadline=DEADLINE)
    assert outcome == Outcome(Verdict.FAILED, "no answer within 0.5 s")


async def test_a_head_that_drips_has_failed_at_the_deadline() -> None:
    async def drip(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD)
        while not writer.is_closing():
            writer.write(b"X-More: 1\r\n")
            await asyncio.sleep(0.05)

    async with serving(drip) as port:
        outcome = await call(f"http://127.0.0.1:{port}/", deadline=DEADLINE)
    assert outcome == Outcome(Verdict.FAILED, "no answer within 0.5 s")


@pytest.mark.parametrize("deadline", [15.0, 1.5])
async def test_the_status_decides_before_a_body_that_drips(deadline: float) -> None:
    async def drip(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD + b"Content-Length: 1000\r\n\r\n.")
        await asyncio.Event().wait()

    async with serving(drip) as port:
        outcome = await call(f"http://127.0.0.1:{port}/", deadline=deadline)
    assert outcome == Outcome(Verdict.TAKEN, status=200)


async def test_of_a_huge_answer_little_is_read() -> None:
    written = asyncio.get_running_loop().create_future()

    async def pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(HEAD + b"Content-Length: 10000000000\r\n\r\n")
        count = 0
        try:
            while True:
                writer.write(bytes(MOST_READ))
                await writer.drain()
                count += MOST_READ
        except OSError:
            written.set_result(count)

    async with serving(pour) as port:
        outcome = await call(f"http://127.0.0.1:{port}/")
        assert outcome == Outcome(Verdict.TAKEN, status=200)
        # what the kernels of both ends hold, and what was read
        assert await written < 64 << 20


async def test_a_connection_that_breaks_off_is_a_failure() -> None:
    async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.transport.abort()

    async with serving(reset) as port:
        outcome = await call(f"http://127.0.0.1:{port}/")
    assert (outcome.verdict, outcome.status) == (Verdict.FAILED, None)


async def test_a_call_that_breaks_in_an_unknown_way_has_failed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def resolve(*_: Any, **__: Any) -> Any:
        raise RuntimeError("what nobody thought of")

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    assert await call("https://name.test/") == Outcome(Verdict.FAILED, "RuntimeError")


async def test_cookies_and_credentials_of_one_receiver_go_nowhere() -> None:
    heads = []

    async def set_cookie(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(2):
            heads.append(await read_head(reader))
            await reader.readexactly(2)
            writer.write(HEAD + b"Set-Cookie: a=b\r\nContent-Length: 0\r\n\r\n")

    async with serving(set_cookie) as port, open_session(allow_private=True, connections=1) as one:
        receivers = Receivers(one, allow_http=True)
        for _ in range(2):
            await receivers.post(f"http://127.0.0.1:{port}/", {}, b"{}")
    assert len(heads) == 2
    assert not any(b"cookie" in head.lower() for head in heads)
    assert not any(b"accept-encoding" in head.lower() for head in heads)


async def test_no_proxy_of_the_environment_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(HEAD + b"Content-Length: 0\r\n\r\n")

    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    async with serving(take) as port:
        outcome = await call(f"http://127.0.0.1:{port}/")
    assert outcome.verdict is Verdict.TAKEN


@pytest.mark.parametrize(
    ("status", "verdict"),
    [
        *((status, "taken") for status in (200, 204, 299)),
        *((status, "failed") for status in (302, 308, 404, 429, 500)),
        (410, "gone"),
    ],
)
def test_any_2xx_takes_a_message_and_410_is_the_last_word(status: int, verdict: str) -> None:
    assert (outcome_of(status).verdict, outcome_of(status).status) == (verdict, status)


# -- TLS ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for `receiver.test`, its own authority, with its key."""
    folder = tmp_path_factory.mktemp("tls")
    kind = ["-x509", "-days", "1", "-nodes", "-newkey", "ec", "-pkeyopt"]
    curve = "ec_paramgen_curve:prime256v1"
    names = ["-subj", "/CN=receiver.test", "-addext", "subjectAltName=DNS:receiver.test"]
    files = ["-keyout", "both.pem", "-out", "certificate.pem"]
    command = ["openssl", "req", *kind, curve, *files, *names]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    with (folder / "both.pem").open("a") as both:
        both.write((folder / "certificate.pem").read_text())
    return folder / "both.pem"


@pytest.mark.parametrize(
    ("url", "verdict"),
    [
        ("https://receiver.test", "taken"),
        ("HTTPS://Receiver.test", "taken"),
        ("https://elsewhere.test", "failed"),
    ],
)
async def test_a_certificate_must_be_for_the_name_in_the_url(
    certificate: Path, monkeypatch: pytest.MonkeyPatch, url: str, verdict: str
) -> None:
    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(HEAD + b"Content-Length: 0\r\n\r\n")

    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate)
    trust = ssl.create_default_context(cafile=str(certificate))
    monkeypatch.setattr(socket, "getaddrinfo", answers(["127.0.0.1"]))
    async with serving(take, tls) as port:
        outcome = await call(f"{url}:{port}/", trust=trust, allow_http=False)
    assert outcome.verdict == verdict
    assert outcome.reason == ("" if verdict == "taken" else "SSLCertVerificationError")


# -- addresses ------------------------------------------------------------------------------------


def answers(*rounds: list[str]) -> Callable[..., Any]:
    """A name server that gives these addresses, the last ones for ever."""
    left = list(rounds)

    def resolve(host: str, port: int, *_: Any, **__: Any) -> list[Any]:
        addresses = left.pop(0) if len(left) > 1 else left[0]
        return [
            (
                socket.AF_INET6 if ":" in address else socket.AF_INET,
                socket.SOCK_STREAM,
                6,
                "",
                (address, port, 0, 0) if ":" in address else (address, port),
            )
            for address in addresses
        ]

    return resolve


@pytest.mark.parametrize(
    "addresses",
    [["127.0.0.1"], ["::1"], ["::ffff:10.0.0.1"], ["64:ff9b::7f00:1"], ["93.184.215.14", "::1"]],
)
async def test_a_name_with_an_address_that_is_not_public_is_refused(
    monkeypatch: pytest.MonkeyPatch, addresses: list[str]
) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", answers(addresses))
    resolver = PublicResolver(allow_private=False, at_once=1)
    with pytest.raises(ForbiddenAddress):
        await resolver.resolve("name.test", 443)
    await resolver.close()


async def test_names_of_dead_name_servers_hold_up_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    are_asked, is_over = threading.Event(), threading.Event()
    resolve = answers(["127.0.0.1"])

    def look_up(host: str, port: int, *_: Any, **__: Any) -> list[Any]:
        if host.startswith("dead-"):
            are_asked.set()
            is_over.wait()
        return list(resolve(host, port))

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    async with open_session(allow_private=False, connections=AT_ONCE) as session:
        receivers = Receivers(session, allow_http=False)
        urls = [f"https://dead-{n}.test/" for n in range(300)]
        calls = [asyncio.ensure_future(receivers.post(url, {}, b"{}")) for url in urls]
        try:
            await asyncio.to_thread(are_asked.wait)
            outcome = await receivers.post("https://alive.test/", {}, b"{}")
        finally:
            is_over.set()
            await asyncio.gather(*calls)
    assert outcome.reason == "the address 127.0.0.1 is not a public one"


async def test_a_name_that_resolves_otherwise_the_second_time_leads_nowhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", answers(["93.184.215.14"], ["127.0.0.1"]))
    resolver = PublicResolver(allow_private=False, at_once=1)
    (first,) = await resolver.resolve("name.test", 443)
    assert first["host"] == "93.184.215.14"
    with pytest.raises(ForbiddenAddress):
        await resolver.resolve("name.test", 443)
    await resolver.close()


async def test_an_address_is_judged_when_its_socket_is_made() -> None:
    class Trusting(PublicResolver):
        """Lets everything pass."""

    connector = aiohttp.TCPConnector(
        resolver=Trusting(allow_private=True, at_once=1), socket_factory=open_socket
    )
    connected = asyncio.Event()

    async def connect(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connected.set()

    async with serving(connect) as port, aiohttp.ClientSession(connector=connector) as session:
        receivers = Receivers(session, allow_http=True)
        for host in ("localhost", "127.0.0.1", "[::ffff:127.0.0.1]", "0.0.0.0"):
            outcome = await receivers.post(f"http://{host}:{port}/", {}, b"{}")
            assert outcome.verdict is Verdict.FAILED
            assert "is not a public one" in outcome.reason, host
        for host in ("2130706433", "0x7f000001", "0177.0.0.1", "127.1"):
            outcome = await receivers.post(f"http://{host}:{port}/", {}, b"{}")
            assert outcome.verdict is Verdict.FAILED, host
    assert not connected.is_set()


def test_a_public_address_gets_its_socket() -> None:
    info = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("93.184.215.14", 443))
    open_socket(info).close()


def test_only_internet_addresses_get_a_socket() -> None:
    with pytest.raises(ForbiddenAddress):
        open_socket((socket.AF_UNIX, socket.SOCK_STREAM, 0, "", ("/run/x",)))
