"""Moments as S3 writes them, read quickly: botocore's own way takes five times as long for each as
for all the rest of a listed key, and all of it on the event loop."""

from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any

from aiobotocore.session import AioSession
from botocore.utils import parse_timestamp


def parse_moment(value: Any) -> Any:
    """ISO 8601 in XML, RFC 9110 in headers; anything else is left to botocore."""
    if isinstance(value, str):
        for parse in (datetime.fromisoformat, parsedate_to_datetime):
            try:
                return parse(value)
            except ValueError:
                continue
    return parse_timestamp(value)


def read_moments_quickly(session: AioSession) -> None:
    """Let the clients that are made from now on parse moments as above."""
    factory = session.get_component("response_parser_factory")
    factory.set_parser_defaults(timestamp_parser=parse_moment)
