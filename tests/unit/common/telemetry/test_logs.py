"""Lines of the log: written together, and never late where it matters."""

import asyncio
import io
import threading

from common.telemetry.logs import Lines


class Writes(io.StringIO):
    """A file that counts how often it is written to."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def write(self, text: str) -> int:
        self.count += 1
        return super().write(text)


async def test_lines_of_one_turn_of_the_loop_are_written_in_one_go() -> None:
    file = Writes()
    lines = Lines(file)
    for name in "abc":
        lines.info(name)
    assert file.getvalue() == ""
    await asyncio.sleep(0)
    assert (file.getvalue(), file.count) == ("a\nb\nc\n", 1)
    lines.debug("d")
    await asyncio.sleep(0)
    assert file.getvalue() == "a\nb\nc\nd\n"


async def test_an_error_takes_what_came_before_it_along_at_once() -> None:
    file = Writes()
    lines = Lines(file)
    lines.info("a")
    lines.error("b")
    assert file.getvalue() == "a\nb\n"
    await asyncio.sleep(0)
    assert file.count == 1


async def test_another_thread_writes_at_once_and_leaves_the_loops_lines_alone() -> None:
    file = Writes()
    lines = Lines(file)
    lines.info("a")
    thread = threading.Thread(target=lines.warning, args=("b",))
    thread.start()
    thread.join()
    assert file.getvalue() == "b\n"
    await asyncio.sleep(0)
    assert file.getvalue() == "b\na\n"


def test_without_a_loop_lines_are_written_at_once() -> None:
    file = Writes()
    Lines(file).info("a")
    assert file.getvalue() == "a\n"


def test_what_a_loop_left_behind_is_written_at_the_end() -> None:
    file = Writes()
    lines = Lines(file)

    async def speak() -> None:
        lines.info("a")

    loop = asyncio.new_event_loop()
    loop.run_until_complete(speak())
    loop.close()
    lines.flush()
    assert file.getvalue() == "a\n"
