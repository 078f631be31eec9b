"""What `python -m dispatcher --check` tries out."""

from collections.abc import Sequence
from typing import Final

from common.config.environment import without_credentials
from common.outbox.peer_client import open_session, why_dead
from common.runtime.checks import Check, CheckFailed, check_applications, check_database
from common.storage.startup import check_storage
from dispatcher.settings import Settings

_DEADLINE: Final = 5.0


def checks(settings: Settings) -> Sequence[Check]:
    """Everything that the dispatcher uses; jobs are submitted to the peer by POST, which no check
    may do, so that a wrong key shows with the first job."""

    async def check_peer() -> str:
        shown = without_credentials(settings.worker_api_url)
        async with open_session("dispatcher", connections=1) as session:
            url = f"{settings.worker_api_url}/openapi.json"
            reason = await why_dead(session, url, deadline=_DEADLINE)
        if reason is not None:
            raise CheckFailed(f"WORKERFACING_API_URL {shown}: {reason}")
        return f"{shown} answers"

    return [
        check_applications(settings.applications),
        check_database(settings.database),
        check_storage(settings.storage, write=False),
        Check("peer", check_peer),
    ]
