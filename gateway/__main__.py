"""`python -m gateway`."""

import asyncio
import warnings
from typing import Final

from common.runtime import command, process
from common.telemetry.health import Health
from common.telemetry.logs import get_logger
from gateway.app import FEED, create_app, runner_for
from gateway.checks import checks
from gateway.http.keys import IN_FLIGHT
from gateway.settings import Settings, load

_QUIET: Final = 0.5
_LONGEST_LINGER: Final = 2.0

log = get_logger()


def main() -> None:
    command.main(
        "gateway",
        purpose="Serves the HTTP API: files, jobs, accounts, status updates of workers.",
        load=load,
        checks=checks,
        serve=serve,
    )


def serve(settings: Settings) -> None:
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
        else:
            await app[IN_FLIGHT].linger(_QUIET, _LONGEST_LINGER)

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
