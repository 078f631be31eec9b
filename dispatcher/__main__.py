"""`python -m dispatcher`"""

from common.config.environment import load_or_exit
from common.runtime import daemon
from common.telemetry import logs
from dispatcher.app import create_app
from dispatcher.settings import load


def main() -> None:
    settings = load_or_exit("dispatcher", load)
    logs.configure("dispatcher", settings.logs)
    daemon.run("dispatcher", create_app(settings), settings.admin)


if __name__ == "__main__":
    main()
