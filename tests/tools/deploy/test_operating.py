"""The manual's commands work on the logs of a real run (`sample.jsonl`)."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.tools.deploy.places import DOCS, REPOSITORY
from tests.tools.deploy.settings import LOADERS, names_of

SAMPLE = Path(__file__).parent / "sample.jsonl"
MANUAL = (DOCS / "operating.md").read_text()
RUNBOOK = (DOCS / "runbook.md").read_text()
LINES = re.findall(r"^logs \| (jq .*)$", MANUAL, flags=re.MULTILINE)
SERVICES = ("common", "gateway", "dispatcher", "notifier")


def source() -> str:
    return "".join(
        path.read_text() for package in SERVICES for path in (REPOSITORY / package).rglob("*.py")
    )


def events_in(text: str) -> set[str]:
    return set(re.findall(r'"([a-z]+\.[a-z_]+)"', text))


def test_every_event_that_the_manual_asks_for_is_logged() -> None:
    code = source()
    asked = {event for line in LINES for event in events_in(line)}
    asked |= {event for event in events_in(RUNBOOK) if event}
    assert len(asked) > 30
    assert not {event for event in asked if f'"{event}"' not in code}


@pytest.mark.parametrize("line", LINES)
def test_every_question_is_answered_from_real_logs(line: str) -> None:
    if shutil.which("jq") is None:
        pytest.skip("jq is not installed: the manual's lines are not tried")
    logged = {json.loads(entry)["event"] for entry in SAMPLE.read_text().splitlines()}

    with SAMPLE.open() as sample:
        done = subprocess.run(
            ["bash", "-c", line], stdin=sample, capture_output=True, text=True, check=False
        )

    assert (done.returncode, done.stderr) == (0, "")
    answers = [json.loads(answer) for answer in done.stdout.splitlines()]
    if not events_in(line) or events_in(line) & logged:
        assert answers


def test_every_variable_that_the_manuals_name_is_a_setting() -> None:
    known = set().union(*(names_of(service) for service in LOADERS))
    named = set(re.findall(r"`([A-Z]+(?:_[A-Z]+)+)(?:=[^`]*)?`", MANUAL + RUNBOOK))
    assert named
    assert not named - known - {"OPENCLOUD_TEST_IMAGE", "CONCURRENTLY", "RUNBOOK_URL"}


def test_links_inside_the_manuals_lead_somewhere() -> None:
    for text, folder in ((MANUAL, DOCS), (RUNBOOK, DOCS)):
        for target in re.findall(r"\]\(([^)]+)\)", text):
            path, _, anchor = target.partition("#")
            assert (folder / path).exists() if path else True
            if anchor and not path:
                headings = re.findall(r"^## (.+)$", text, flags=re.MULTILINE)
                assert anchor in {heading.lower().replace(" ", "-") for heading in headings}
