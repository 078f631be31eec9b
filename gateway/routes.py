"""All routes, and the credentials that they need."""

from typing import Any, Final

from aiohttp import web
from aiohttp.typedefs import Handler

from common.notifications.links import UNSUBSCRIBE_PATH
from gateway import meta
from gateway.auth import handlers as auth
from gateway.files import handlers as files
from gateway.http import errors
from gateway.http.openapi import OpenApi
from gateway.http.responses import json_bytes
from gateway.http.routing import add_route
from gateway.job_status import handlers as job_status
from gateway.jobs import handlers as jobs
from gateway.jobs.batch import handlers as batch
from gateway.jobs.cancel import handlers as cancel
from gateway.jobs.events import handlers as events
from gateway.jobs.examples import ConfiguredExamples
from gateway.jobs.finding import handlers as finding
from gateway.jobs.repeat import handlers as repeat
from gateway.jobs.results import handlers as results
from gateway.notifications import handlers as notifications
from gateway.uploads import handlers as uploads
from gateway.usage import handlers as usage
from gateway.webhooks import handlers as webhooks

PUBLIC: Final[frozenset[Handler]] = frozenset(
    {
        meta.welcome,
        meta.access_info,
        meta.docs_page,
        meta.docs_asset,
        auth.register,
        auth.issue_token,
        auth.log_in,
        notifications.show_unsubscribe,
        notifications.unsubscribe,
        notifications.take_mail_events,
    }
)
"""Handlers that need no credentials. All others but the internal ones need a user."""

INTERNAL: Final[frozenset[Handler]] = frozenset({job_status.update_status})
"""Handlers that need the internal key."""

STREAMS: Final[frozenset[Handler]] = frozenset({events.stream_events})
"""Handlers of long streams, which do not count as requests under way."""

TAGS: Final = {
    "Files": "The caller's tree: `config`, `data`, `artifact`, `output` and `log`.",
    "Uploads": "Files that arrive in portions, by the tus protocol 1.0.0 (https://tus.io).",
    "Jobs": "What runs on the caller's files, and what can run.",
    "Webhooks": "Where changes of the caller's jobs are announced.",
    "Account": "Who is calling; where there are accounts of its own, registration and log-in.",
    "Public": "What needs no credentials.",
    "Internal": "For the worker-facing API.",
}
"""The groups of operations in `/openapi.json`, in this order."""

ERRORS: Final[errors.ErrorTable] = {
    **errors.ERRORS,
    **auth.ERRORS,
    **files.ERRORS,
    **jobs.ERRORS,
    **results.ERRORS,
    **job_status.ERRORS,
    **webhooks.ERRORS,
    **notifications.ERRORS,
    **uploads.ERRORS,
}
"""The answer to each error that a request may fail with."""


def add_routes(
    app: web.Application, *, accounts: bool, internal: bool = True, mail_events: bool = True
) -> frozenset[Handler]:
    """Add the routes; returns the public handlers, the generated ones included.

    `accounts` adds registration and log-in, `internal` the routes of `add_internal_routes`,
    `mail_events` what Mailjet calls.
    """
    add_route(app, "GET", "/", meta.welcome)
    add_route(app, "GET", "/access_info", meta.access_info, slash=True)
    add_route(app, "GET", "/docs", meta.docs_page)
    add_route(app, "GET", "/docs/{asset}", meta.docs_asset)

    add_route(app, "GET", "/user", auth.current_user, slash=True)
    add_route(app, "GET", "/user/usage", usage.user_usage, slash=True)
    add_route(app, "GET", "/user/notifications", notifications.get_notifications, slash=True)
    add_route(app, "PUT", "/user/notifications", notifications.put_notifications, slash=True)
    add_route(app, "GET", UNSUBSCRIBE_PATH, notifications.show_unsubscribe)
    add_route(app, "POST", UNSUBSCRIBE_PATH, notifications.unsubscribe)
    if mail_events:
        add_route(app, "POST", "/notifications/mailjet", notifications.take_mail_events)
    if accounts:
        add_route(app, "POST", "/user", auth.register, slash=True)
        add_route(app, "POST", "/token", auth.issue_token, slash=True)
        add_route(app, "POST", "/login", auth.log_in, slash=True)

    add_route(app, "GET", "/jobs", finding.list_jobs, slash=True)
    add_route(app, "POST", "/jobs", jobs.start_job, slash=True)
    add_route(app, "GET", "/jobs/applications", jobs.list_applications, slash=True)
    add_route(app, "POST", "/jobs/batch", batch.start_batch, slash=True)
    add_route(app, "POST", "/jobs/cancel", cancel.cancel_many, slash=True)
    add_route(app, "POST", "/jobs/{job_id}/cancel", cancel.cancel_job, slash=True)
    add_route(app, "GET", "/jobs/events", events.stream_events, slash=True)
    add_route(app, "POST", "/jobs/{job_id}/repeat", repeat.repeat_job, slash=True)
    add_route(app, "GET", "/jobs/{job_id}/events", events.list_events, slash=True)
    add_route(app, "GET", "/jobs/{job_id}/files", results.list_job_files, slash=True)
    add_route(app, "GET", "/jobs/{job_id}/download", results.download_job_files, slash=True)
    add_route(app, "HEAD", "/jobs/{job_id}/download", results.download_job_files, slash=True)
    add_route(app, "GET", "/jobs/{job_id}/log", results.tail_job_log, slash=True)
    add_route(app, "GET", "/jobs/{job_id}", jobs.describe_job, slash=True)
    add_route(app, "PATCH", "/jobs/{job_id}", finding.label_job, slash=True)
    add_route(app, "DELETE", "/jobs/{job_id}", jobs.delete_job, slash=True)

    add_webhook_routes(app)

    add_route(app, "GET", "/files/{file_path:path}/download", files.download_file)
    add_route(app, "HEAD", "/files/{file_path:path}/download", files.download_file)
    add_route(app, "GET", "/files/{file_path:path}/url", files.download_link)
    add_route(app, "POST", "/files/{f_type}/{base_path:path}/upload", files.upload_file)
    add_route(app, "POST", "/files/{f_type}/{base_path:path}/url", files.upload_link)
    add_route(app, "POST", "/files/{f_type}/{base_path:path}/", files.make_directory)
    add_route(app, "GET", "/files/{file_path:path}", files.list_files, also="/files")
    add_route(app, "PUT", "/files/{file_path:path}", files.rename_file)
    add_route(app, "DELETE", "/files/{file_path:path}", files.delete_file)

    _add_upload_routes(app)

    if internal:
        add_internal_routes(app)

    document = ConfiguredExamples(openapi_document(app, accounts=accounts))

    async def openapi(request: web.Request) -> web.Response:
        return json_bytes(document.render(await request.app[jobs.JOBS].catalogue()))

    add_route(app, "GET", "/openapi.json", openapi)
    return PUBLIC | {openapi}


def add_webhook_routes(app: web.Application) -> None:
    """Add the routes of users' webhooks."""
    one = "/webhooks/{webhook_id}"
    add_route(app, "GET", "/webhooks", webhooks.list_webhooks, slash=True)
    add_route(app, "POST", "/webhooks", webhooks.add_webhook, slash=True)
    add_route(app, "GET", one, webhooks.describe_webhook, slash=True)
    add_route(app, "PATCH", one, webhooks.change_webhook, slash=True)
    add_route(app, "DELETE", one, webhooks.delete_webhook, slash=True)
    add_route(app, "POST", f"{one}/test", webhooks.test_webhook, slash=True)
    add_route(app, "POST", f"{one}/rotate", webhooks.rotate_secret, slash=True)
    add_route(app, "GET", f"{one}/deliveries", webhooks.list_deliveries, slash=True)
    again = f"{one}/deliveries/{{message}}/redeliver"
    add_route(app, "POST", again, webhooks.redeliver_message, slash=True)


def _add_upload_routes(app: web.Application) -> None:
    """The tus protocol, whose clients may be unable to send some methods."""
    one = "/uploads/{upload_id}"
    add_route(app, "OPTIONS", "/uploads", uploads.describe_protocol, slash=True, overridable=True)
    add_route(app, "POST", "/uploads", uploads.create_upload, slash=True, overridable=True)
    add_route(app, "HEAD", one, uploads.find_upload, overridable=True)
    add_route(app, "PATCH", one, uploads.append_to_upload, overridable=True)
    add_route(app, "DELETE", one, uploads.terminate_upload, overridable=True)


def openapi_document(app: web.Application, *, accounts: bool) -> dict[str, Any]:
    """The OpenAPI document of the routes of `app`."""
    token_path = "/token" if accounts else None
    builder = OpenApi(public=PUBLIC, internal=INTERNAL, tags=TAGS, token_path=token_path)
    return builder.build(app.router.routes())


def add_internal_routes(app: web.Application) -> None:
    """Add the endpoint to which the worker-facing API reports.

    A 404 means there that the job is gone, so that a slash at the end must not lead to one.
    """
    add_route(app, "PUT", "/_job_status", job_status.update_status, slash=True)
