"""Connections to receivers, which users choose: to public addresses only.

An address is judged when a socket is made for it, whatever the URL said and a resolver answered
before: names that resolve otherwise the second time, and addresses spelled in the URL, which never
reach a resolver, are judged there as well.
"""

import asyncio
import socket
import ssl
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from common.webhooks.addresses import ForbiddenAddress, check_address

_KEEP_ALIVE: Final = 1.0
"""Seconds: shorter than any server's, so that no request meets a connection that is closing."""

_CONNECT_TIMEOUT: Final = 5.0


class PublicResolver(AbstractResolver):
    """Resolves names to public addresses, in threads of its own.

    With one address that is not public, a name is refused altogether.
    """

    def __init__(self, *, allow_private: bool, at_once: int) -> None:
        """A look-up blocks a thread, for long if the name server is dead. So that it holds up no
        other name, `at_once` is the number of callers."""
        self._allow_private = allow_private
        self._threads = ThreadPoolExecutor(at_once, thread_name_prefix="resolver")

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Raises `OSError`: `ForbiddenAddress`, or what the system says."""
        found = await asyncio.get_running_loop().run_in_executor(
            self._threads, self._look_up, host, port, family
        )
        if not self._allow_private:
            for _, _, _, _, address in found:
                check_address(str(address[0]))
        return [
            ResolveResult(
                hostname=host,
                host=str(address[0]),
                port=port,
                family=kind,
                proto=protocol,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for kind, _, protocol, _, address in found
        ]

    def _look_up(self, host: str, port: int, family: int) -> Any:
        flags = socket.AI_ADDRCONFIG
        return socket.getaddrinfo(host, port, family, socket.SOCK_STREAM, 0, flags)

    async def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)


def open_socket(info: tuple[Any, ...]) -> socket.socket:
    """A socket for a public address. Raises `ForbiddenAddress`."""
    family, kind, protocol, _, address = info
    if family not in {socket.AF_INET, socket.AF_INET6}:
        raise ForbiddenAddress("only internet addresses are connected to")
    check_address(str(address[0]))
    return socket.socket(family, kind, protocol)


def open_session(
    *, allow_private: bool, connections: int, tls: ssl.SSLContext | None = None
) -> aiohttp.ClientSession:
    """A session for receivers: no cookies, no proxies, nothing decompressed.

    `tls`: whom to trust, if not the system's authorities.
    """
    connector = aiohttp.TCPConnector(
        limit=connections,
        keepalive_timeout=_KEEP_ALIVE,
        resolver=PublicResolver(allow_private=allow_private, at_once=connections),
        socket_factory=None if allow_private else open_socket,
        ssl=tls or True,
    )
    return aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"User-Agent": "opencloud-notifier", "Accept": "*/*"},
        skip_auto_headers=("Accept-Encoding",),
        auto_decompress=False,
        trust_env=False,
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_TIMEOUT),
    )
