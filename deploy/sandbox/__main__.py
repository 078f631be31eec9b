"""`python -m deploy.sandbox`: the whole cloud on this machine, until Ctrl-C.

Variables: PORT, PEER_PORT, MAIL_PORT, AWS_PORT and ADMIN_PORT (the first of three) change ports;
FILESYSTEM=s3 keeps users' files in the S3 stand-in; DATABASE_URL (and DATABASE_SECRET) uses
PostgreSQL; APPLICATION_CONFIG_FILE, FRONTEND_URL, HANDOVER_TIMEOUT, HANDOVER_GRACE, LOG_LEVEL,
WEBHOOK_RETRY_DELAYS, WEBHOOK_GIVE_UP_AFTER and WORKERFACING_STATUS_PATH are passed to the services.
"""

import argparse
import asyncio
import json
import signal
import sys
from pathlib import Path

import aiohttp

from deploy.sandbox.cognito import USER
from deploy.sandbox.exclusive import Children, only_one
from deploy.sandbox.layout import Folder, Ports, SandboxError, url
from deploy.sandbox.programs import Catalogue
from deploy.sandbox.superres import sample
from deploy.sandbox.supervisor import Supervisor
from deploy.sandbox.terminal import complain, paint, say
from deploy.sandbox.walkthrough import fetch_token, overview, run_file, walkthrough


class Interrupts:
    """The first SIGINT, SIGTERM or SIGHUP stops the sandbox, the second one hurries."""

    def __init__(self) -> None:
        self.stop = asyncio.Event()
        self.hurry = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, self._note)

    def _note(self) -> None:
        (self.hurry if self.stop.is_set() else self.stop).set()


async def serve(folder: Folder, ports: Ports, catalogue: Catalogue) -> None:
    """Run the sandbox until an interrupt. Raises `SandboxError`."""
    interrupts = Interrupts()

    def note(pids: dict[str, int]) -> None:
        folder.run_file.touch(mode=0o600)
        folder.run_file.write_text(json.dumps(run_file(folder, ports, pids), indent=2) + "\n")

    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30)) as session:
        supervisor = Supervisor(folder, ports, session, catalogue, note)
        try:
            if await _start(supervisor, interrupts):
                token = await fetch_token(session, url(ports.gateway))
                note(supervisor.pids())
                _show(folder, ports, supervisor.pids(), catalogue.users_files, token)
                await supervisor.watch(interrupts.stop)
        finally:
            interrupts.stop.set()
            folder.run_file.unlink(missing_ok=True)
            say()
            say("Stopping (Ctrl-C again to hurry) ...")
            await supervisor.stop(at_once=interrupts.hurry)
            say("Stopped.")


async def _start(supervisor: Supervisor, interrupts: Interrupts) -> bool:
    """Returns whether everything started before an interrupt."""
    starting = asyncio.create_task(supervisor.start())
    stopping = asyncio.create_task(interrupts.stop.wait())
    await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if not starting.done():
        starting.cancel()
        await asyncio.wait({starting})
        return False
    await starting
    return True


def _show(folder: Folder, ports: Ports, pids: dict[str, int], users_files: str, token: str) -> None:
    say()
    say(paint("The sandbox is up.", "bold", "green"))
    say(overview(folder, ports, pids, users_files))
    say()
    say(paint(f"A ready token of {USER.email}:", "bold"))
    say(token)
    say()
    say(paint("Commands to paste into another terminal, one by one:", "bold"))
    say(walkthrough(folder, ports))
    say()
    say("The same in one command: make demo. To stop: Ctrl-C.")


def main() -> int:
    """Exit status 0 after a Ctrl-C, 1 after one sentence on standard error."""
    parser = argparse.ArgumentParser(
        prog="python -m deploy.sandbox",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--folder", type=Path, help="working folder, instead of .sandbox")
    given = parser.parse_args()
    folder = Folder(given.folder.resolve()) if given.folder else Folder()
    try:
        ports = Ports.read()
        catalogue = Catalogue(folder, ports)
        folder.create()
        with only_one(folder):
            if leftovers := Children(folder).end_leftovers():
                say(f"Ended {leftovers} processes of a crashed sandbox.")
            ports.check_free()
            sample.write(folder.samples)
            say(paint("Starting the sandbox ...", "bold"))
            asyncio.run(serve(folder, ports, catalogue))
    except (SandboxError, OSError) as error:
        complain(f"sandbox: {error}")
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
