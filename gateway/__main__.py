"""`python -m gateway`."""

import asyncio
import warnings

from common.config.environment import load_or_exit
from common.runtime.process import run
from common.telemetry import logs
from common.telemetry.health import Health
from common.telemetry.logs import get_logger
from gateway.app import create_app
from gateway.http.keys import IN_FLIGHT
from gateway.settings import load

log = get_logger()


def main() -> None:
    settings = load_or_exit("gateway", load)
    logs.configure("gateway", settings.logs)
    # about uploads' headers: each other one would be kept for ever, and shown as it was sent
    warnings.filterwarnings("ignore", module=r"aiohttp\.multipart")
    health = Health("gateway")
    app = create_app(settings, health)

    async def drain() -> None:
        """Readiness fails first; the port stays open until proxies have noticed and what is under
        way has ended."""
        await asyncio.sleep(settings.drain_delay)
        if late := await app[IN_FLIGHT].outlast(settings.shutdown_grace):
            log.warning("requests.cut_short", count=late)

    run(
        "gateway",
        app,
        host=settings.host,
        port=settings.port,
        health=health,
        drain=drain,
    )


if __name__ == "__main__":
    main()
