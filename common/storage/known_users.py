"""The users whose trees this process has already seen to."""

from typing import Final

_LIMIT: Final = 10_000


class KnownUsers:
    """A bounded set that forgets the oldest: a forgotten user costs a look at the storage."""

    def __init__(self) -> None:
        self._users: dict[str, None] = {}

    def __contains__(self, user: str) -> bool:
        return user in self._users

    def add(self, user: str) -> None:
        while len(self._users) >= _LIMIT:
            del self._users[next(iter(self._users))]
        self._users[user] = None
