"""Clients of S3: time-outs, retries, connections, signatures, and a fast parser of timestamps."""

from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final

from aiobotocore.config import AioConfig
from aiobotocore.session import AioSession, get_session
from botocore.utils import parse_timestamp

_CONNECT_TIMEOUT: Final = 5
_READ_TIMEOUT: Final = 60
_ATTEMPTS: Final = 3
_USER_AGENT: Final = "decode-opencloud"
"""botocore's own is composed anew for each request, which takes a tenth of the request's time."""


def open_session() -> AioSession:
    """The process's session, which caches AWS's service descriptions; its clients parse timestamps
    by `parse_time`."""
    session = get_session()
    factory = session.get_component("response_parser_factory")
    factory.set_parser_defaults(timestamp_parser=parse_time)
    return session


def create_client(
    session: AioSession, *, region: str, endpoint: str | None, connections: int
) -> Any:
    """A client, to be entered; credentials and the default endpoint come from `AWS_*` variables."""
    config = AioConfig(
        signature_version="s3v4",
        s3={
            "addressing_style": "path",
            "payload_signing_enabled": False,
            "us_east_1_regional_endpoint": "regional",
        },
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        retries={"mode": "standard", "max_attempts": _ATTEMPTS},
        max_pool_connections=connections,
        user_agent=_USER_AGENT,
        connect_timeout=_CONNECT_TIMEOUT,
        read_timeout=_READ_TIMEOUT,
    )
    return session.create_client("s3", region_name=region, endpoint_url=endpoint, config=config)


def parse_time(value: Any) -> Any:
    """ISO 8601 (in XML) and RFC 9110 (in headers); anything else is left to botocore.

    botocore's own parser takes five times as long as the rest of a listed key, on the event loop.
    """
    if isinstance(value, str):
        for parse in (datetime.fromisoformat, parsedate_to_datetime):
            try:
                return parse(value)
            except ValueError:
                continue
    return parse_timestamp(value)
