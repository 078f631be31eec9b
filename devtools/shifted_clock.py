"""A Python process with a shifted clock."""

from pathlib import Path

_SHIFTED = """
import datetime, time

_time, _time_ns, _datetime = time.time, time.time_ns, datetime.datetime
time.time = lambda: _time() + {seconds}
time.time_ns = lambda: _time_ns() + {seconds} * 10**9


class _Kind(type):
    def __instancecheck__(cls, value):
        return isinstance(value, _datetime)


class Shifted(_datetime, metaclass=_Kind):
    @classmethod
    def now(cls, tz=None):
        return _datetime.now(tz) + datetime.timedelta(seconds={seconds})

    @classmethod
    def utcnow(cls):
        return _datetime.utcnow() + datetime.timedelta(seconds={seconds})


datetime.datetime = Shifted
"""


def shifted_clock(folder: Path, seconds: int) -> Path:
    """A directory for the front of the process's `PYTHONPATH`."""
    place = folder / f"clock{seconds}"
    place.mkdir()
    (place / "sitecustomize.py").write_text(_SHIFTED.format(seconds=seconds))
    return place
