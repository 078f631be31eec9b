"""`python -m gateway`."""

import asyncio
import warnings

from common.config.environment import load_or_exit
from common.runtime import process
from common.telemetry import logs
from common.telemetry.health import Health
from gateway.app import FEED, create_app, runner_for
from gateway.http.keys import IN_FLIGHT
from gateway.settings import load

log = logs.get_logger()


def main() -> None:
    settings = load_or_exit("gateway", load)
    logs.configure("gateway", settings.logs)
    # each warning about an upload's header would be kept for good, and shows what was sent
    warnings.filterwarnings("ignore", module=r"aiohttp\.multipart")
    health = Health("gateway")
    app = create_app(settings, health)

    async def drain() -> None:
        """Keep the port open until proxies have noticed, then until requests in flight end."""
        await asyncio.sleep(settings.drain_delay)
        app[FEED].end()
        if late := await app[IN_FLIGHT].outlast(settings.shutdown_grace):
            log.warning("requests.cut_short", count=late)

    process.run(
        "gateway",
        app,
        address=process.Address("PORT", settings.host, settings.port),
        health=health,
        drain=drain,
        make_runner=runner_for(settings),
    )


if __name__ == "__main__":
    main()
