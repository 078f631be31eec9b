"""Which URLs a webhook may have. Names are judged again whenever they are resolved."""

import re
from ipaddress import IPv6Address
from typing import Final
from urllib.parse import urlsplit

from common.webhooks.addresses import ForbiddenAddress, check_host

LONGEST: Final = 2_048
_CHARACTERS: Final = re.compile(r"[!#-;=?-\[\]_a-z~]")
_LABEL: Final = r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?"
_NAME: Final = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(\.{_LABEL})*\.?")


class WrongUrl(Exception):
    """A webhook cannot have this URL; the message is a clause that says why."""


def check_url(url: str, *, allow_private: bool) -> None:
    """Raise `WrongUrl`; `allow_private` permits plain HTTP and any address."""
    if any(not _CHARACTERS.fullmatch(char) for char in url.replace("%", "")):
        raise WrongUrl("a URL consists of ASCII characters, others are encoded")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise WrongUrl("this is no URL") from error
    if parts.scheme not in ({"http", "https"} if allow_private else {"https"}):
        raise WrongUrl("a webhook's URL begins with https://")
    if not host:
        raise WrongUrl("the URL names no host")
    if parts.username is not None or parts.password is not None:
        raise WrongUrl("the URL must not hold credentials: verify the signature instead")
    if "#" in url:
        raise WrongUrl("a fragment is never sent")
    if port == 0 or not (_NAME.fullmatch(host) or _is_ipv6(host)):
        raise WrongUrl("this is no URL")
    if not allow_private:
        try:
            check_host(host)
        except ForbiddenAddress as error:
            raise WrongUrl(str(error)) from error


def _is_ipv6(host: str) -> bool:
    try:
        IPv6Address(host)
    except ValueError:
        return False
    return True
