"""`python -m gateway`."""

import asyncio

from common import logs
from common.admin import Health
from common.process import run
from common.settings import load_or_exit
from gateway.app import create_app
from gateway.settings import load


def main() -> None:
    settings = load_or_exit("gateway", load)
    logs.configure("gateway", settings.logs)
    health = Health("gateway")

    async def drain() -> None:
        """Readiness fails first; the port stays open until proxies have noticed."""
        await asyncio.sleep(settings.drain_delay)

    run(
        "gateway",
        create_app(settings, health),
        host=settings.host,
        port=settings.port,
        health=health,
        drain=drain,
        shutdown_timeout=settings.shutdown_timeout,
    )


if __name__ == "__main__":
    main()
