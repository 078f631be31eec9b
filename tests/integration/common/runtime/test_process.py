"""Listening, and what a startup that fails leaves behind."""

from collections.abc import AsyncIterator

import aiohttp
import pytest
from aiohttp import web

from common.runtime.process import Address, CannotStart, serve
from deploy.sandbox.ports import free_port, is_free


def app_with(*names: str, log: list[str], fails: str = "") -> web.Application:
    """An application with a cleanup context for each name; `fails` is that of one more."""
    app = web.Application()

    def context(name: str) -> None:
        async def open_and_close(_: web.Application) -> AsyncIterator[None]:
            if name == fails:
                raise CannotStart(f"{name} is missing")
            log.append(f"{name} opened")
            yield
            log.append(f"{name} closed")

        app.cleanup_ctx.append(open_and_close)

    for name in filter(None, [*names, fails]):
        context(name)
    return app


async def test_an_application_listens_once_it_has_started_and_closes_in_reverse() -> None:
    log: list[str] = []
    app = app_with("a", "b", log=log)
    async with serve(app, Address("PORT", "127.0.0.1", 0)) as port:
        assert log == ["a opened", "b opened"]
        async with aiohttp.ClientSession() as session:
            assert (await session.get(f"http://127.0.0.1:{port}/")).status == 404
    assert log == ["a opened", "b opened", "b closed", "a closed"]
    assert is_free(port)


async def test_a_startup_that_fails_closes_what_is_open_and_never_listens() -> None:
    log: list[str] = []
    address = Address("PORT", "127.0.0.1", free_port())
    with pytest.raises(CannotStart, match="c is missing"):
        async with serve(app_with("a", "b", log=log, fails="c"), address):
            pytest.fail("it started")
    assert log == ["a opened", "b opened", "b closed", "a closed"]
    assert is_free(address.port)


async def test_of_two_that_bound_the_same_port_one_listens() -> None:
    log: list[str] = []
    address = Address("ADMIN_PORT", "localhost", free_port())
    first, second = address.bind(), address.bind()
    async with serve(app_with(log=log), address, bound=first):
        with pytest.raises(CannotStart, match=f"ADMIN_PORT {address.port}: address already in use"):
            async with serve(app_with("a", log=log), address, bound=second):
                pytest.fail("both listen")
        with pytest.raises(CannotStart, match="cannot listen on localhost"):
            address.bind()
    assert log == ["a opened", "a closed"]


@pytest.mark.parametrize("host", ["no.such.host.invalid", "203.0.113.1"])
def test_a_host_that_is_not_this_one_is_named(host: str) -> None:
    with pytest.raises(CannotStart, match=f"cannot listen on {host} .PORT 8000: "):
        Address("PORT", host, 8000).bind()
