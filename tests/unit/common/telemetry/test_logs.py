"""Log lines: written together, errors at once; their fields and form."""

import asyncio
import io
import json
import re
import subprocess
import sys
import threading

import pytest

from common.config.settings import REPOSITORY
from common.telemetry.logs import Lines


class Writes(io.StringIO):
    """A file that counts how often it is written to."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def write(self, text: str) -> int:
        self.count += 1
        return super().write(text)


@pytest.fixture
def file() -> Writes:
    return Writes()


@pytest.fixture
def lines(file: Writes) -> Lines:
    return Lines(file)


async def test_lines_of_one_iteration_of_the_loop_are_written_together(
    file: Writes, lines: Lines
) -> None:
    for name in "abc":
        lines.info(name)
    assert file.getvalue() == ""
    await asyncio.sleep(0)
    assert (file.getvalue(), file.count) == ("a\nb\nc\n", 1)
    lines.debug("d")
    await asyncio.sleep(0)
    assert file.getvalue() == "a\nb\nc\nd\n"


async def test_an_error_is_written_at_once_after_the_lines_before_it(
    file: Writes, lines: Lines
) -> None:
    lines.info("a")
    lines.error("b")
    assert file.getvalue() == "a\nb\n"
    await asyncio.sleep(0)
    assert file.count == 1


async def test_another_thread_writes_at_once_and_leaves_the_waiting_lines(
    file: Writes, lines: Lines
) -> None:
    lines.info("a")
    thread = threading.Thread(target=lines.warning, args=("b",))
    thread.start()
    thread.join()
    assert file.getvalue() == "b\n"
    await asyncio.sleep(0)
    assert file.getvalue() == "b\na\n"


def test_lines_are_written_at_once_without_a_loop_and_after_it_by_a_flush(
    file: Writes, lines: Lines
) -> None:
    lines.info("a")
    assert file.getvalue() == "a\n"

    async def speak() -> None:
        lines.info("b")

    loop = asyncio.new_event_loop()
    loop.run_until_complete(speak())
    loop.close()
    lines.flush()
    assert file.getvalue() == "a\nb\n"


SPEAK = """
import logging
from common.config.settings import LogSettings
from common.telemetry import logs

logs.configure("gateway", LogSettings(form={form!r}, level="INFO", secrets=("hunter2-hunter2",)))
logs.bind(request_id="r")
log = logs.get_logger()
log.debug("thing.hidden")
log.info("thing.happened", number={number}, password="hunter2-hunter2")
def fail(token):
    raise ValueError("hunter2-hunter2")
try:
    fail(token="-".join(["shown", "nowhere"]))
except ValueError:
    log.exception("thing.failed")
logging.getLogger("library").warning("of %s", "theirs", extra={{"more": 1}})
"""


def spoken(form: str, number: int) -> list[str]:
    code = SPEAK.format(form=form, number=number)
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    assert "hunter2" not in ended.stdout
    assert "shown-nowhere" not in ended.stdout, "local variables may be secrets"
    return ended.stdout.splitlines()


@pytest.mark.parametrize("number", [1, 10**30], ids=["usual", "beyond 64 bits"])
def test_a_line_is_an_object_with_the_bound_fields(number: int) -> None:
    happened, failed, foreign = map(json.loads, spoken("json", number))
    moment = happened.pop("timestamp")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z", moment)
    assert happened == {
        "event": "thing.happened",
        "level": "info",
        "service": "gateway",
        "request_id": "r",
        "number": number,
        "password": "***",
    }
    assert "ValueError: ***" in failed["exception"]
    assert (foreign["event"], foreign["level"], foreign["more"]) == ("of theirs", "warning", 1)


def test_lines_on_a_terminal_are_text() -> None:
    assert any("thing.happened" in line and "request_id" in line for line in spoken("pretty", 1))


HOSTILE = r"""
import logging
from common.config.settings import LogSettings
from common.telemetry import logs

logs.configure("gateway", LogSettings(form={form!r}, level="INFO", secrets=()))
hostile = "a\x1b]0;b\x07\x9bc\u202ed\ud800\r\n"
class Odd:
    def __repr__(self):
        return hostile
log = logs.get_logger()
key = {{hostile: 1}}
log.info("thing.happened", path=hostile, several=[hostile], odd=Odd(), plain="x y", **key)
log.info(hostile)
logging.getLogger(hostile).warning("of %s", hostile)
try:
    raise ValueError(hostile)
except ValueError:
    log.exception("thing.failed")
"""


@pytest.mark.parametrize("form", ["pretty", "json"])
def test_characters_that_a_terminal_obeys_are_shown_not_sent(form: str) -> None:
    code = HOSTILE.format(form=form)
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, check=True
    )
    lines = ended.stdout.decode().split("\n")
    shown = "\n".join(re.sub(r"\x1b\[[0-9;]*m", "", line) for line in lines)  # our own colours
    assert all(line.isprintable() for line in shown.split("\n"))
    assert lines[0].count("1b]0;b") >= 4, "a value, one in a list, one's repr, a key"
    assert "'x y'" in shown or '"x y"' in shown
    (message,) = [line for line in shown.split("\n") if "ValueError" in line and "]0;b" in line]
    assert "\\u202e" in message
