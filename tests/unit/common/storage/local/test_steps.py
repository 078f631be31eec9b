"""Walks and surveys are made in steps that end in time, whatever they find."""

import itertools
import os
from pathlib import Path

import pytest

from common.storage.local import survey as surveying
from common.storage.local import tree
from common.storage.paths import UserPath

MOST = 64
"""Names between two looks at the clock."""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "user/data/many").mkdir(parents=True)
    return tmp_path / "user"


@pytest.fixture(autouse=True)
def _time_is_always_over(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = itertools.count()
    for module in (tree, surveying):
        monkeypatch.setattr(module, "monotonic", lambda: next(clock))


def test_a_walk_stops_between_entries_and_goes_on_there(home: Path) -> None:
    names = [f"{number:03}" for number in range(200)]
    for name in names:
        (home / "data/many" / name).touch()
    steps = [entries for entries, _ in tree.walk(str(home), UserPath("user", ("data", "many")))]
    assert max(map(len, steps)) == MOST
    assert [entry.path for step in steps for entry in step] == [f"data/many/{n}" for n in names]


def test_a_walk_stops_where_it_finds_nothing(home: Path) -> None:
    for number in range(200):
        os.symlink("nowhere", home / "data/many" / str(number))
    steps = [entries for entries, _ in tree.walk(str(home), UserPath("user", ("data", "many")))]
    assert steps == [[]] * len(steps)
    assert len(steps) > 200 / MOST


def test_a_survey_stops_between_inputs_that_do_not_exist(home: Path) -> None:
    absent = [UserPath("user", ("data", str(number))) for number in range(10)]
    steps = list(surveying.survey(str(home.parent), absent, [absent[0]], None))
    assert steps == [([], None)] * len(absent) + [([], [False])]
