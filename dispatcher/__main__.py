"""`python -m dispatcher`"""

from functools import partial

from common.config.environment import load_or_exit
from common.runtime import process
from common.telemetry import logs
from dispatcher.app import HEALTH, create_app, drain
from dispatcher.settings import load


def main() -> None:
    settings = load_or_exit("dispatcher", load)
    logs.configure("dispatcher", settings.logs)
    app = create_app(settings)
    process.run(
        "dispatcher",
        app,
        address=process.Address("ADMIN_PORT", settings.admin.host, settings.admin.port),
        health=app[HEALTH],
        drain=partial(drain, app),
        gc_threshold=process.DAEMON_GC_THRESHOLD,
    )


if __name__ == "__main__":
    main()
