"""The gateway put together: what is opened, in which order, and closed in reverse."""

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from typing import Any, Final

import aiohttp
from aiohttp import web

from common.aws import create_client
from common.config.applications import Applications
from common.config.catalogue import InvalidApplications
from common.database.engine import Database
from common.database.errors import DatabaseUnavailable
from common.database.notify import ChannelNotifier
from common.jobs.heartbeat import BEAT_EVERY, GATEWAY, beat
from common.jobs.trees import warn_of_missing_trees
from common.notifications.links import UnsubscribeLinks
from common.runtime.process import Address, CannotStart, MakeRunner, serve
from common.runtime.startup import open_database
from common.runtime.tasks import in_background
from common.storage.factory import open_storage
from common.storage.startup import check_usable
from common.telemetry.health import Health, admin_routes, export_build
from common.telemetry.logs import get_logger
from common.telemetry.outages import warn_of_database
from common.usage.ledger import UsageLedger
from common.usage.quota import Quota
from gateway import metrics
from gateway.auth.handlers import ACCOUNTS, LOG_INS
from gateway.auth.keys import KeySet
from gateway.auth.throttle import LogInThrottle
from gateway.auth.tokens import TokenVerifier
from gateway.files.digests.notes import DigestNotes
from gateway.files.digests.service import Digests
from gateway.files.handlers import DIGESTS, LEDGER, LISTINGS, STORAGE, UNPACKING, UPLOADS
from gateway.files.listings import Listings
from gateway.files.unpacking.contents import UnpackLimits
from gateway.files.unpacking.service import Unpacking
from gateway.files.uploads import Uploads
from gateway.http.audit import DENIALS, Denials
from gateway.http.body import MAX_FIELDS
from gateway.http.budgets import budgets
from gateway.http.callers import CallerLimits
from gateway.http.client_address import TrustedProxies
from gateway.http.connections import Connections
from gateway.http.cors import Cors
from gateway.http.draining import InFlight
from gateway.http.keys import (
    CONNECTIONS,
    CORS,
    ERROR_TABLE,
    HEALTH,
    IN_FLIGHT,
    PROXIES,
    SETTINGS,
    SHARES,
    VERIFIER,
)
from gateway.http.middlewares import pipeline
from gateway.http.refusals import REFUSALS, Refusals
from gateway.http.server import Runner
from gateway.http.shares import Shares
from gateway.http.upload_limits import UploadLimits
from gateway.job_status.handlers import JOB_STATUS
from gateway.job_status.service import JobStatusService
from gateway.jobs.batch.handlers import BATCHES
from gateway.jobs.batch.service import Batches
from gateway.jobs.cancel.handlers import CANCELLING
from gateway.jobs.cancel.service import Cancelling
from gateway.jobs.events.feed import Feed
from gateway.jobs.events.handlers import EVENTS
from gateway.jobs.events.service import Events
from gateway.jobs.finding.cursors import Cursors
from gateway.jobs.finding.handlers import FINDING
from gateway.jobs.finding.service import Finding
from gateway.jobs.handlers import JOBS
from gateway.jobs.idempotency.claims import IdempotencyKeys
from gateway.jobs.idempotency.handlers import IDEMPOTENCY
from gateway.jobs.repeat.handlers import REPEATING
from gateway.jobs.repeat.service import Repeating
from gateway.jobs.results.handlers import RESULTS
from gateway.jobs.results.service import Results
from gateway.jobs.service import Jobs
from gateway.notifications.handlers import NOTIFICATIONS
from gateway.notifications.service import Notifications
from gateway.routes import ERRORS, INTERNAL, STREAMS, add_internal_routes, add_routes
from gateway.settings import Settings
from gateway.uploads.handlers import RESUMABLE
from gateway.uploads.service import ResumableUploads
from gateway.usage.handlers import USAGE
from gateway.usage.service import UserUsage
from gateway.webhooks.deliveries import Deliveries
from gateway.webhooks.handlers import DELIVERIES, WEBHOOKS
from gateway.webhooks.service import Webhooks

_APPLICATIONS: Final = web.AppKey("applications", Applications)
_DATABASE: Final = web.AppKey("database", Database)
_FOR_USERS: Final = web.AppKey("for_users", Database)
_QUOTA: Final = web.AppKey("quota", Quota)
_UPLOAD_LIMITS: Final = web.AppKey("upload_limits", UploadLimits)
FEED: Final = web.AppKey("feed", Feed)

_KEPT_FOR_WORKERS: Final = 5
"""One of so many connections to the database is never used for users."""

log = get_logger()


def create_app(settings: Settings, health: Health) -> web.Application:
    """The public application."""
    app = web.Application(client_max_size=settings.limits.body_bytes, client_max_fields=MAX_FIELDS)
    app[SETTINGS], app[HEALTH], app[ERROR_TABLE] = settings, health, ERRORS
    app[PROXIES] = TrustedProxies(settings.trusted_proxies)
    app[CONNECTIONS] = Connections(settings.connections, app[PROXIES])
    app[CONNECTIONS].export()
    app[CORS] = Cors(settings.frontend_origin)
    app[REFUSALS], app[DENIALS] = Refusals(), Denials()
    app[IN_FLIGHT] = InFlight()
    metrics.IN_FLIGHT.set_function(partial(len, app[IN_FLIGHT]))
    app[SHARES] = Shares(budgets(settings.limits))
    app[SHARES].export()
    public = add_routes(
        app,
        accounts=settings.account_endpoints,
        internal=not settings.internal_port,
        mail_events=bool(settings.mail_event_token),
    )
    limits = CallerLimits(settings.limits.concurrent_requests, settings.limits.rate)
    app.middlewares.append(
        pipeline(public=public, internal=INTERNAL, streams=STREAMS, limits=limits)
    )
    app.cleanup_ctx.extend([_serve_admin, _open_verifier, _open_storage])
    if settings.account_endpoints:
        app[LOG_INS] = LogInThrottle()
        app.cleanup_ctx.append(_open_accounts)
    app.cleanup_ctx.extend([_open_applications, _open_database, _open_usage, _open_unpacking])
    app.cleanup_ctx.extend([_open_services, _send_heartbeats])
    if settings.internal_port:
        app.cleanup_ctx.append(_serve_internal)
    return app


def runner_for(settings: Settings) -> MakeRunner:
    """What serves an application of the gateway."""
    return partial(Runner, client_timeout=settings.client_timeout)


async def _serve_admin(app: web.Application) -> AsyncIterator[None]:
    """Probes and metrics on a port of their own, which no ingress routes."""
    admin = web.Application()
    admin.add_routes(admin_routes(app[HEALTH]))
    host, port = app[SETTINGS].admin.host, app[SETTINGS].admin.port
    export_build(app[SETTINGS].admin.revision)
    async with serve(admin, Address("ADMIN_PORT", host, port)):
        log.info("admin.started", host=host, port=port)
        yield


async def _open_verifier(app: web.Application) -> AsyncIterator[None]:
    cognito = app[SETTINGS].cognito
    async with aiohttp.ClientSession() as session:
        keys = KeySet(session, cognito.jwks_url)
        app[VERIFIER] = TokenVerifier(
            keys,
            issuer=cognito.issuer,
            client_id=cognito.client_id,
            email_unverified=app[SETTINGS].email_unverified,
        )
        yield
        await keys.close()


async def _open_storage(app: web.Application) -> AsyncIterator[None]:
    settings = app[SETTINGS]
    async with open_storage(settings.storage) as storage:
        await check_usable(storage, settings.storage)
        app[STORAGE] = storage
        app[HEALTH].add_check("storage", storage.health)
        yield


async def _open_accounts(app: web.Application) -> AsyncIterator[None]:
    from gateway.auth.accounts import Accounts  # imports botocore, which is slow

    cognito = app[SETTINGS].cognito
    async with create_client("cognito-idp", region=cognito.region) as client:
        app[ACCOUNTS] = Accounts(client, cognito, app[STORAGE])
        yield


async def _open_applications(app: web.Application) -> AsyncIterator[None]:
    applications = app[_APPLICATIONS] = Applications(app[SETTINGS].applications)
    try:
        await applications.load()
    except InvalidApplications as error:
        raise CannotStart(str(error)) from error
    try:
        yield
    finally:
        await applications.close()


async def _open_database(app: web.Application) -> AsyncIterator[None]:
    async with open_database(app[SETTINGS].database) as database:
        app[_DATABASE], app[_FOR_USERS] = database, _for_users(database)
        app[HEALTH].add_check("database", database.ping)
        yield


async def _open_usage(app: web.Application) -> AsyncIterator[None]:
    """What users' files take and may take, and which files they are."""
    settings, database = app[SETTINGS], app[_DATABASE]
    limits = settings.limits
    async with (
        UsageLedger(database).running() as ledger,
        Quota(database, ledger, limits.user_bytes).running() as quota,
        DigestNotes(app[_FOR_USERS]).running() as notes,
    ):
        app[LEDGER], app[USAGE] = ledger, UserUsage(database, ledger, limits)
        app[_QUOTA], app[_UPLOAD_LIMITS] = quota, UploadLimits(app[STORAGE], limits)
        app[DIGESTS] = digests = Digests(
            app[_FOR_USERS],
            notes,
            app[STORAGE],
            app[SHARES],
            computes=settings.storage.kind == "local",
        )
        app[LISTINGS] = Listings(app[STORAGE], digests, app[SHARES])
        app[UPLOADS] = Uploads(
            app[STORAGE],
            app[_UPLOAD_LIMITS],
            quota,
            digests,
            client_timeout=settings.client_timeout,
        )
        yield


async def _open_unpacking(app: web.Application) -> AsyncIterator[None]:
    limits = app[SETTINGS].limits
    unpacked = UnpackLimits(
        files=limits.unpack_files,
        bytes=limits.unpack_bytes,
        bytes_per_file=limits.upload_bytes,
    )
    async with Unpacking(
        app[UPLOADS], app[STORAGE], app[_UPLOAD_LIMITS], app[_QUOTA], app[DIGESTS], unpacked
    ) as unpacking:
        app[UNPACKING] = unpacking
        yield


async def _open_services(app: web.Application) -> AsyncIterator[None]:
    settings, database = app[SETTINGS], app[_DATABASE]
    await warn_of_missing_trees(database, app[STORAGE], settings.storage.place)
    notifier = ChannelNotifier(database)
    app[JOB_STATUS] = JobStatusService(
        database, notifier, touch_every=settings.touch_every, ledger=app[LEDGER]
    )
    users = app[_FOR_USERS]
    app[JOBS] = Jobs(users, app[STORAGE], app[_APPLICATIONS], notifier, settings.limits)
    app[BATCHES] = Batches(users, app[STORAGE], app[_APPLICATIONS], notifier, settings.limits)
    app[REPEATING] = Repeating(app[JOBS], users, app[STORAGE])
    app[IDEMPOTENCY] = IdempotencyKeys(users, retention=settings.idempotency_retention)
    cursors = Cursors(settings.internal_api_key)
    app[FINDING] = Finding(users, app[JOBS].pages, cursors)
    app[CANCELLING] = Cancelling(users, notifier)
    app[RESULTS] = Results(users, app[STORAGE], settings.limits)
    app[WEBHOOKS] = Webhooks(users, settings.webhooks)
    app[DELIVERIES] = Deliveries(users, notifier)
    links = UnsubscribeLinks(settings.notification_keys)
    app[NOTIFICATIONS] = Notifications(users, notifier, links)
    app[RESUMABLE] = ResumableUploads(
        users,
        app[STORAGE],
        app[_UPLOAD_LIMITS],
        app[_QUOTA],
        retention=settings.upload_retention,
        client_timeout=settings.client_timeout,
    )
    async with Feed(database, users).running() as feed:
        app[EVENTS] = Events(users, feed)
        app[FEED] = feed
        yield
    await notifier.close()


def _for_users(database: Database) -> Database:
    """The database without the connections that are kept for workers' updates and heartbeats."""
    size = database.settings.pool_size
    kept = size // _KEPT_FOR_WORKERS
    return database.share(size - kept) if kept else database


async def _send_heartbeats(app: web.Application) -> AsyncIterator[None]:
    async with in_background(_beat_forever(app[_DATABASE])):
        yield


async def _beat_forever(database: Database) -> None:
    """Record that the endpoint for workers' updates works: jobs do not stall while it is down."""
    while True:
        try:
            await beat(database, GATEWAY)
        except DatabaseUnavailable as error:
            warn_of_database("heartbeat.missed", reason=str(error))
        except Exception:
            log.exception("heartbeat.failed")  # without beats, no job would count as stalled
        await asyncio.sleep(BEAT_EVERY)


async def _serve_internal(app: web.Application) -> AsyncIterator[None]:
    """The worker-facing API's endpoint on a port of its own, which no ingress routes."""
    settings = app[SETTINGS]
    internal = web.Application(client_max_size=settings.limits.body_bytes)
    internal[CORS] = Cors("")
    internal[CONNECTIONS] = app[CONNECTIONS].protected()
    shared: list[web.AppKey[Any]] = [SETTINGS, HEALTH, ERROR_TABLE, PROXIES, REFUSALS, IN_FLIGHT]
    for key in (*shared, SHARES, JOB_STATUS):
        internal[key] = app[key]
    add_internal_routes(internal)
    internal.middlewares.append(
        pipeline(
            public=frozenset(),
            internal=INTERNAL,
            streams=frozenset(),
            limits=CallerLimits(0, None),
        )
    )
    address = Address("INTERNAL_PORT", settings.host, settings.internal_port)
    async with serve(internal, address, make_runner=runner_for(settings)):
        yield
