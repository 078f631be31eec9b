"""`python -m notifier`"""

from functools import partial

from common.config.environment import load_or_exit
from common.runtime import process
from common.telemetry import logs
from notifier.app import HEALTH, create_app, drain
from notifier.settings import load


def main() -> None:
    settings = load_or_exit("notifier", load)
    logs.configure("notifier", settings.logs)
    app = create_app(settings)
    process.run(
        "notifier",
        app,
        address=process.Address("ADMIN_PORT", settings.admin.host, settings.admin.port),
        health=app[HEALTH],
        drain=partial(drain, app),
        gc_threshold=process.DAEMON_GC_THRESHOLD,
    )


if __name__ == "__main__":
    main()
