"""Where a job's results lie in its user's tree. Pure."""

from collections.abc import Mapping
from typing import Any

from common.storage.errors import InvalidPath
from common.storage.paths import UserPath


def result_directories(user_id: str, paths_out: Any) -> dict[str, UserPath | None]:
    """The job's own directories by kind, as `jobs.paths_out` names them.

    None for what is none of its own, which an adopted row may name: a predefined directory, or a
    place outside of all of them.
    """
    named: Mapping[str, Any] = paths_out if isinstance(paths_out, dict) else {}
    return {kind: _own_directory(user_id, text) for kind, text in named.items()}


def _own_directory(user_id: str, text: Any) -> UserPath | None:
    try:
        path = UserPath.parse(user_id, f"{text}/")
    except InvalidPath:
        return None
    return path if path.in_predefined and not path.is_predefined else None
