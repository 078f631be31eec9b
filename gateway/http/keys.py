"""Typed keys: where handlers and middlewares find what `app.py` made."""

from asyncio import Semaphore
from typing import TYPE_CHECKING, Final

from aiohttp import web

if TYPE_CHECKING:
    from common.storage.budget import Pieces
    from common.storage.protocol import Storage
    from common.telemetry.health import Health
    from gateway.auth.accounts import Accounts
    from gateway.auth.tokens import TokenVerifier, User
    from gateway.files.listings import Listings
    from gateway.http.cors import Cors
    from gateway.http.draining import InFlight
    from gateway.job_status.service import StatusIntake
    from gateway.jobs.service import Jobs
    from gateway.settings import Settings

HEALTH: Final[web.AppKey["Health"]] = web.AppKey("health")
SETTINGS: Final[web.AppKey["Settings"]] = web.AppKey("settings")
IN_FLIGHT: Final[web.AppKey["InFlight"]] = web.AppKey("in_flight")
LARGE_BODIES: Final[web.AppKey[Semaphore]] = web.AppKey("large_bodies")
STORAGE: Final[web.AppKey["Storage"]] = web.AppKey("storage")
UPLOADS: Final[web.AppKey["Pieces"]] = web.AppKey("uploads")
LISTINGS: Final[web.AppKey["Listings"]] = web.AppKey("listings")
VERIFIER: Final[web.AppKey["TokenVerifier"]] = web.AppKey("verifier")
ACCOUNTS: Final[web.AppKey["Accounts"]] = web.AppKey("accounts")
JOBS: Final[web.AppKey["Jobs"]] = web.AppKey("jobs")
STATUS_INTAKE: Final[web.AppKey["StatusIntake"]] = web.AppKey("status_intake")
CORS: Final[web.AppKey["Cors"]] = web.AppKey("cors")

USER: Final[web.RequestKey["User"]] = web.RequestKey("user")
REQUEST_ID: Final[web.RequestKey[str]] = web.RequestKey("request_id")
BY_COOKIE: Final[web.RequestKey[bool]] = web.RequestKey("by_cookie")
