"""The labels of jobs' metrics."""

import pytest

from common.jobs import metrics
from common.jobs.metrics import application_label


@pytest.fixture(autouse=True)
def _no_application_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "_applications", set())


@pytest.mark.parametrize("stored", [None, "", "{", "[]", "null", "{}", '{"application": 7}'])
def test_what_names_no_application_is_other(stored: str | None) -> None:
    assert application_label(stored) == "other"


def test_the_number_of_labels_is_bounded() -> None:
    stored = [f'{{"application": "app-{number}", "version": "v1"}}' for number in range(1_000)]
    labels = [application_label(text) for text in stored]
    assert labels[:2] == ["app-0", "app-1"]
    assert len(set(labels)) == 51
    assert application_label(stored[0]) == "app-0"
    assert labels[-1] == "other"
