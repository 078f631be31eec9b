"""What people read of workers' output."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.jobs.terminal import as_shown

SPECIAL = "\r\b\n\t\x1b\x9b\x9d\x9c\x07\x00\x7f[]();mKPX^_\\0 (x"
OUTPUT = st.text(st.one_of(st.sampled_from(SPECIAL), st.characters()))


@pytest.mark.parametrize(
    ("sent", "shown"),
    [
        ("epoch 1\nepoch 2\n", "epoch 1\nepoch 2\n"),
        (" 10%|#   |\r 50%|##  |\r100%|####|\ndone", "100%|####|\ndone"),
        ("Windows\r\nlines\r\n", "Windows\nlines\n"),
        ("halted at 10%\r", "halted at 10%"),
        ("a long line\rshort", "short"),
        ("transient\r         \r\nend", "         \nend"),
        ("|\b/\b-\b\\\bdone", "done"),
        ("100%\b\b\b\b\b", "100%"),
        ("3/10 loss 0.5\b\b\b\b\b\b\b\b\b\b\b\b\b\r4/10", "4/10"),
        ("b\bbo\bol\bld _\bu", "bold u"),
        ("abc\b\bX", "aXc"),
        ("\b\bstart", "start"),
        ("\x1b[1;31merror\x1b[0m: \x1b[38;2;1;2;3mout of memory\x1b[m", "error: out of memory"),
        ("\x1b[2K\r\x1b[?25lepoch 7\x1b[1A\x1b[K\x1b[?25h", "epoch 7"),
        ("\x9b31mred\x9b0m", "red"),
        ("\x1b]0;a title\x07text", "text"),
        ("\x1b]8;;https://example.org\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x1bP1$r\x1b\\a\x1b_app\x1b\\b\x1b^pm\x1b\\c\x1bXsos\x9cd", "abcd"),
        ("\x1b(B\x1b)0\x1b7saved\x1b8\x1bM\x1bc\x1b#8", "saved"),
        ("\x1b]0;no end\nnext line", "\nnext line"),
        ("\x1b[31", ""),
        ("\x1b[\nx\x1b", "\nx"),
        ("a\x00\x01\x07\x0b\x0c\x0e\x7f\x85b\tc", "ab\tc"),
        ("größer 漢字 \U0001f52c\r\U0001f52c ok", "\U0001f52c ok"),
    ],
)
def test_output_is_shown_as_on_a_terminal(sent: str, shown: str) -> None:
    assert as_shown(sent) == shown


@given(OUTPUT)
def test_only_line_feeds_and_tabs_remain_of_control_characters(text: str) -> None:
    left = as_shown(text)
    assert not {c for c in left if c < " " or "\x7f" <= c <= "\x9f"} - {"\n", "\t"}
    assert as_shown(left) == left


@given(st.text(st.characters(exclude_categories=["Cc"])))
def test_plain_text_stays_as_it_is(text: str) -> None:
    assert as_shown(text) == text


@given(st.lists(OUTPUT.map(lambda text: text.replace("\n", ""))))
def test_a_line_never_changes_another(lines: list[str]) -> None:
    assert as_shown("\n".join(lines)) == "\n".join(map(as_shown, lines))


@given(st.lists(st.sampled_from("ab\b\r"), max_size=30))
def test_moves_have_the_effect_of_one_character_after_the_other(characters: list[str]) -> None:
    cells: list[str] = []
    cursor, restarts = 0, False
    for character in characters:
        if character == "\r":
            cursor, restarts = 0, True
        elif character == "\b":
            cursor = max(0, cursor - 1)
        else:
            if restarts:
                cells, restarts = [], False
            cells[cursor : cursor + 1] = character
            cursor += 1
    assert as_shown("".join(characters)) == "".join(cells)


@pytest.mark.parametrize(
    "unit",
    ["\x1b", "\x1b[", "\x1b[1;", "\x1b]", "\x9d\n", "\r", "x\r", "\b", "x\b", "ab\b\r", "\n"],
)
def test_four_megabytes_of_hostile_output_take_linear_time(unit: str) -> None:
    text = unit * ((4 << 20) // len(unit))
    began = time.thread_time()
    as_shown(f"x{text}x")
    assert time.thread_time() - began < 30  # hours, if it were quadratic
