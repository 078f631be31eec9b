"""`python -m notifier`"""

from common.runtime import command, daemon
from notifier.app import create_app
from notifier.checks import checks
from notifier.settings import Settings, load


def main() -> None:
    command.main(
        "notifier",
        purpose="Sends e-mails about jobs that have ended, and messages to webhooks.",
        load=load,
        checks=checks,
        serve=serve,
    )


def serve(settings: Settings) -> None:
    daemon.run("notifier", create_app(settings), settings.admin)


if __name__ == "__main__":
    main()
