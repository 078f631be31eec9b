"""Accepted paths stay in their user's tree, for any text that they are made of."""

import posixpath
from urllib.parse import quote, unquote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from common.storage.errors import InvalidPath
from common.storage.paths import (
    MAX_NAME_BYTES,
    MAX_PATH_BYTES,
    PREDEFINED,
    UserPath,
    check_name,
    is_user_name,
    relative_to,
)

TEXTS = st.one_of(
    st.text(),
    st.lists(
        st.sampled_from(["", ".", "..", "%2e", "%2E%2e", "%252e%252e", "a", "data", "\0", "é", " "])
    ).map("/".join),
)


def parse(text: str) -> UserPath | None:
    try:
        return UserPath.parse("user", text)
    except InvalidPath:
        return None


@given(TEXTS)
@example("data/../../other/x")
@example("/etc/passwd")
@example("data/%2e%2e/%2e%2e/other")
@example("data\\..\\..\\other")
def test_accepted_path_holds_names_only_and_stays_in_the_tree(text):
    path = parse(text)
    if path is None:
        return
    for tail in (str(path), unquote(str(path)), unquote(unquote(str(path)))):
        place = posixpath.normpath(posixpath.join("/root/user", "./" + tail))
        assert place == "/root/user" or place.startswith("/root/user/")
    assert UserPath.parse("user", str(path)) == path
    assert parse("/" + text.replace("/", "//")) == path
    assert path.parts == tuple(part for part in text.split("/") if part)
    for part in path.parts:
        assert check_name(part) == part
        assert part.isprintable() or not any(ord(c) < 32 or 127 <= ord(c) < 160 for c in part)
        assert 0 < len(part.encode()) <= MAX_NAME_BYTES
    assert len(str(path).encode()) <= MAX_PATH_BYTES + 1


@given(st.sampled_from([".", ".."]), st.integers(0, 4))
def test_dots_are_refused_however_often_they_are_encoded(dots, times):
    for _ in range(times):
        dots = quote(dots.replace(".", "%2e"), safe="")
    for text in (dots, f"data/{dots}", f"data/{dots}/x"):
        assert parse(text) is None


@given(st.text(alphabet="%25eE.3206", max_size=20))
@example("%%32e%25%32%65")
@example("%%%3225")
def test_only_what_decodes_to_dots_in_the_end_is_taken_for_dots(name):
    decoded = name
    while (once := unquote(decoded)) != decoded:
        decoded = once
    assert (parse(name) is None) == (decoded in {".", ".."})


@pytest.mark.timeout(30)
@pytest.mark.parametrize(
    "text",
    ["%" + "25" * 2_000_000, "a/" * 2_000_000, "é" * 2_000_000],
    ids=["encoded", "deep", "wide"],
)
def test_text_of_megabytes_is_refused_without_looking_at_each_character(text):
    with pytest.raises(InvalidPath, match="255 bytes"):
        check_name(text)
    with pytest.raises(InvalidPath, match="900 bytes"):
        UserPath.parse("user", text)


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a/b", "a\0", "\n", "\x7f", "\x85", "\ud800", "x" * 256, "é" * 128]
)
def test_invalid_names_are_refused(name):
    assert not is_user_name(name)
    with pytest.raises(InvalidPath):
        check_name(name)


@pytest.mark.parametrize("name", ["...", ".hidden", "a..b", "100%", "%41", "x" * 255, "~", "a b "])
def test_unusual_names_are_accepted(name):
    assert check_name(name) == name
    assert is_user_name(name)


def test_no_user_has_the_name_of_the_staging_directory():
    assert not is_user_name(".opencloud-staging")


def test_path_that_is_too_long_as_a_whole_is_refused():
    name = "x" * 200
    assert parse("/".join([name] * 4)) is not None
    assert parse("/".join([name] * 5)) is None


def test_trailing_slash_marks_a_directory_and_the_root_always_is_one():
    assert str(UserPath.parse("u", "data/x")) == "data/x"
    assert str(UserPath.parse("u", "data/x//")) == "data/x/"
    for text in ("", "/", "//"):
        root = UserPath.parse("u", text)
        assert root.is_root
        assert root.is_permanent
        assert root.slash
        assert (str(root), root.name) == ("", "")


@pytest.mark.parametrize("name", PREDEFINED)
def test_predefined_directories_and_what_lies_in_them_are_recognised(name):
    directory = UserPath.parse("u", name)
    inside = directory / "a" / "b"
    assert directory.is_predefined
    assert directory.is_permanent
    assert directory.in_predefined
    assert inside.in_predefined
    assert not inside.is_permanent
    assert inside.parent == UserPath.parse("u", f"{name}/a/")
    assert not UserPath.parse("u", f"{name}x/{name}").in_predefined


def test_joining_cannot_leave_the_directory():
    directory = UserPath.parse("u", "data/x")
    for name in ("..", "../y", "/../y", "a/../../y"):
        with pytest.raises(InvalidPath):
            directory / name
    assert directory / "/etc/passwd" == UserPath.parse("u", "data/x/etc/passwd")


def test_within_means_strictly_below_in_the_same_tree():
    directory = UserPath.parse("u", "data/x")
    assert UserPath.parse("u", "data/x/y").is_within(directory)
    assert not directory.is_within(directory)
    assert not UserPath.parse("u", "data/xy").is_within(directory)
    assert not UserPath.parse("v", "data/x/y").is_within(directory)


def test_relative_path_is_what_follows_the_directory():
    assert relative_to("data/x/y/z", ("data", "x")) == "y/z"
    assert relative_to("data/x", ()) == "data/x"
