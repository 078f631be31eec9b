"""What `python -m gateway --check` tries out."""

from collections.abc import Sequence

import aiohttp

from common.config.environment import without_credentials
from common.runtime.checks import Check, CheckFailed, check_applications, check_database
from common.storage.startup import check_storage
from gateway.auth.keys import KeySet
from gateway.settings import Settings


def checks(settings: Settings) -> Sequence[Check]:
    """Everything that the gateway uses."""

    async def check_keys() -> str:
        url = settings.cognito.jwks_url
        shown = without_credentials(url)
        async with aiohttp.ClientSession() as session:
            try:
                keys = await KeySet(session, url).fetch()
            except aiohttp.ClientResponseError as error:
                raise CheckFailed(f"{shown}: HTTP {error.status}") from error
            except (aiohttp.ClientError, OSError, ValueError) as error:
                raise CheckFailed(f"{shown}: {error or type(error).__name__}") from error
        if not keys:
            raise CheckFailed(f"{shown} has no RSA key")
        return f"{shown}, keys: {len(keys)}"

    return [
        check_applications(settings.applications),
        check_database(settings.database),
        check_storage(settings.storage, write=True),
        Check("keys", check_keys),
    ]
