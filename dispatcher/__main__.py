"""`python -m dispatcher`"""

from common.runtime import command, daemon
from dispatcher.app import create_app
from dispatcher.checks import checks
from dispatcher.settings import Settings, load


def main() -> None:
    command.main(
        "dispatcher",
        purpose="Hands queued jobs over to the worker-facing API.",
        load=load,
        checks=checks,
        serve=serve,
    )


def serve(settings: Settings) -> None:
    daemon.run("dispatcher", create_app(settings), settings.admin)


if __name__ == "__main__":
    main()
