"""Typed keys of what every request needs; each feature defines its own in its `handlers`."""

from typing import TYPE_CHECKING, Final

from aiohttp import web

if TYPE_CHECKING:
    from common.telemetry.health import Health
    from gateway.http.client_address import TrustedProxies
    from gateway.http.connections import Connections
    from gateway.http.cors import Cors
    from gateway.http.draining import InFlight
    from gateway.http.errors import ErrorTable
    from gateway.http.limits import Caller
    from gateway.http.rates import Standing
    from gateway.http.shares import Shares, Slot
    from gateway.identity import User, Verifier
    from gateway.settings import Settings

HEALTH: Final[web.AppKey["Health"]] = web.AppKey("health")
SETTINGS: Final[web.AppKey["Settings"]] = web.AppKey("settings")
ERROR_TABLE: Final[web.AppKey["ErrorTable"]] = web.AppKey("error_table")
IN_FLIGHT: Final[web.AppKey["InFlight"]] = web.AppKey("in_flight")
SHARES: Final[web.AppKey["Shares"]] = web.AppKey("shares")
VERIFIER: Final[web.AppKey["Verifier"]] = web.AppKey("verifier")
PROXIES: Final[web.AppKey["TrustedProxies"]] = web.AppKey("proxies")
CONNECTIONS: Final[web.AppKey["Connections"]] = web.AppKey("connections")
CORS: Final[web.AppKey["Cors"]] = web.AppKey("cors")

CALLER: Final[web.RequestKey["Caller"]] = web.RequestKey("caller")
USER: Final[web.RequestKey["User"]] = web.RequestKey("user")
STANDING: Final[web.RequestKey["Standing | None"]] = web.RequestKey("standing")
REQUEST_ID: Final[web.RequestKey[str]] = web.RequestKey("request_id")
BODY_SLOT: Final[web.RequestKey["Slot"]] = web.RequestKey("body_slot")
BY_COOKIE: Final[web.RequestKey[bool]] = web.RequestKey("by_cookie")
