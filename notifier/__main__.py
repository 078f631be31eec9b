"""`python -m notifier`"""

from common.config.environment import load_or_exit
from common.runtime import daemon
from common.telemetry import logs
from notifier.app import create_app
from notifier.settings import load


def main() -> None:
    settings = load_or_exit("notifier", load)
    logs.configure("notifier", settings.logs)
    daemon.run("notifier", create_app(settings), settings.admin)


if __name__ == "__main__":
    main()
