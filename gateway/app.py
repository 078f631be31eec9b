"""The gateway, put together: what is opened, in which order, and closed in reverse."""

import asyncio
from collections.abc import AsyncIterator
from functools import partial

import aiohttp
from aiohttp import web

from common.config.applications import Applications, InvalidApplications
from common.database.engine import Database
from common.database.errors import DatabaseUnavailable
from common.database.notify import ChannelNotifier
from common.database.pool import export_pool
from common.jobs.heartbeat import BEAT_EVERY, GATEWAY, beat
from common.runtime.process import LATECOMERS, CannotStart
from common.runtime.startup import make_ready
from common.storage.budget import Pieces
from common.storage.factory import open_storage
from common.telemetry.health import Health, serve_admin
from common.telemetry.logs import get_logger
from gateway import metrics
from gateway.auth.handlers import ACCOUNTS
from gateway.auth.keys import KeySet
from gateway.auth.tokens import TokenVerifier
from gateway.files.handlers import LISTINGS, STORAGE
from gateway.files.listings import Listings
from gateway.files.uploads import CHUNK, UPLOADS
from gateway.http.body import LARGE_AT_ONCE
from gateway.http.cors import Cors
from gateway.http.draining import InFlight
from gateway.http.keys import CORS, HEALTH, IN_FLIGHT, LARGE_BODIES, SETTINGS, VERIFIER
from gateway.http.middlewares import answer_errors, authenticate, observe, sign
from gateway.http.server import serve_with_care
from gateway.job_status.handlers import JOB_STATUS
from gateway.job_status.service import JobStatusService
from gateway.jobs.handlers import JOBS
from gateway.jobs.service import Jobs
from gateway.routes import INTERNAL, add_internal_routes, add_routes
from gateway.settings import Settings

log = get_logger()


def create_app(settings: Settings, health: Health) -> web.Application:
    """The public application, ready for `web.run_app`."""
    app = web.Application(client_max_size=settings.limits.body_bytes)
    app[SETTINGS] = settings
    app[HEALTH] = health
    app[IN_FLIGHT] = InFlight()
    metrics.IN_FLIGHT.set_function(partial(len, app[IN_FLIGHT]))
    app[LARGE_BODIES] = asyncio.Semaphore(LARGE_AT_ONCE)
    app[CORS] = Cors(settings.frontend_origin)
    public = add_routes(
        app, accounts=settings.account_endpoints, internal=not settings.internal_port
    )
    app.middlewares.extend(
        [
            observe,
            answer_errors,
            authenticate(public=public, internal=INTERNAL),
        ]
    )
    app.on_response_prepare.append(sign)
    serve_with_care(app, client_timeout=settings.client_timeout)
    app.cleanup_ctx.extend(
        [serve_admin(settings.admin, health), _open_verifier, _open_storage, _open_jobs]
    )
    if settings.internal_port:
        app.cleanup_ctx.append(_serve_internal)
    app.cleanup_ctx.append(_announce)
    return app


async def _open_verifier(app: web.Application) -> AsyncIterator[None]:
    cognito = app[SETTINGS].cognito
    async with aiohttp.ClientSession() as session:
        keys = KeySet(session, cognito.jwks_url)
        app[VERIFIER] = TokenVerifier(keys, issuer=cognito.issuer, client_id=cognito.client_id)
        yield
        await keys.close()


async def _open_storage(app: web.Application) -> AsyncIterator[None]:
    settings = app[SETTINGS]
    async with open_storage(settings.storage) as storage:
        app[STORAGE] = storage
        app[LISTINGS] = Listings(storage)
        app[UPLOADS] = Pieces(largest=CHUNK)
        app[HEALTH].add_check("storage", storage.health)
        if not settings.account_endpoints:
            yield
            return
        from gateway.auth.accounts import open_accounts  # with botocore

        async with open_accounts(settings.cognito, storage) as accounts:
            app[ACCOUNTS] = accounts
            yield


async def _open_jobs(app: web.Application) -> AsyncIterator[None]:
    settings = app[SETTINGS]
    applications = Applications(settings.applications)
    try:
        await applications.load()
    except InvalidApplications as error:
        raise CannotStart(str(error)) from error
    database = Database(settings.database)
    export_pool(database.engine)
    app[HEALTH].add_check("database", database.ping)
    try:
        await make_ready(database)
        notifier = ChannelNotifier(database)
        app[JOB_STATUS] = JobStatusService(database, notifier, touch_every=settings.touch_every)
        app[JOBS] = Jobs(database, app[STORAGE], applications, notifier, settings.limits)
        beating = asyncio.create_task(_beat_for_ever(database))
        yield
        beating.cancel()
        await asyncio.gather(beating, return_exceptions=True)
        await notifier.close()
    finally:
        await applications.close()
        await database.close()


async def _beat_for_ever(database: Database) -> None:
    """Vouch for the endpoint that workers report to: an outage of it is not their silence."""
    while True:
        try:
            await beat(database, GATEWAY)
        except DatabaseUnavailable as error:
            log.warning("heartbeat.missed", reason=str(error))
        except Exception:
            log.exception("heartbeat.failed")  # without any, no silence would be seen any more
        await asyncio.sleep(BEAT_EVERY)


async def _serve_internal(app: web.Application) -> AsyncIterator[None]:
    """The worker-facing API's endpoint on a port of its own, which no ingress routes."""
    settings = app[SETTINGS]
    internal = web.Application(
        client_max_size=settings.limits.body_bytes,
        middlewares=[
            observe,
            answer_errors,
            authenticate(public=frozenset(), internal=INTERNAL),
        ],
    )
    internal.on_response_prepare.append(sign)
    internal[SETTINGS], internal[HEALTH] = settings, app[HEALTH]
    internal[IN_FLIGHT], internal[LARGE_BODIES] = app[IN_FLIGHT], app[LARGE_BODIES]
    internal[JOB_STATUS] = app[JOB_STATUS]
    add_internal_routes(internal)
    serve_with_care(internal, client_timeout=settings.client_timeout)
    runner = web.AppRunner(internal, access_log=None, shutdown_timeout=LATECOMERS)
    await runner.setup()
    try:
        await web.TCPSite(runner, settings.host, settings.internal_port).start()
        yield
    finally:
        await runner.cleanup()


async def _announce(app: web.Application) -> AsyncIterator[None]:
    app[HEALTH].started = True
    log.info("gateway.started", host=app[SETTINGS].host, port=app[SETTINGS].port)
    yield
