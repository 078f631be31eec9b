import pytest

from common.notifications.links import UnknownLink, UnsubscribeLinks

USERS = ["ada", "ada@example.org", "ä\udc80/..", "x" * 255]


@pytest.mark.parametrize("user", USERS)
def test_a_token_names_its_user_to_those_with_the_key_only(user: str) -> None:
    links = UnsubscribeLinks(["key"])
    token = links.token(user)
    assert links.user_of(token) == user
    with pytest.raises(UnknownLink):
        UnsubscribeLinks(["another"]).user_of(token)


def test_the_address_of_a_user_cannot_be_read_in_a_link() -> None:
    links = UnsubscribeLinks(["key"])
    ada, eve = links.token("ada@example.org"), links.token("eve@example.org")
    assert ada != eve
    # URL-safe text of which no alignment decodes to the name
    assert all(char.isalnum() or char in "-_" for char in ada)
    assert "example" not in ada


def test_any_damage_is_noticed() -> None:
    links = UnsubscribeLinks(["key"])
    token = links.token("ada")
    damaged = [token[:place] + ("A" if token[place] != "A" else "B") + token[place + 1 :]
               for place in range(len(token))]  # fmt: skip
    # the last character has bits that decoding ignores
    last = [token[:-1] + chr(ord(token[-1]) + 1)]
    for wrong in [*damaged, *last, "", "t", token[1:], token + "A", token + "!", "é"]:
        with pytest.raises(UnknownLink):
            links.user_of(wrong)


def test_keys_are_replaced_without_breaking_links_that_are_out() -> None:
    old, both, new = (UnsubscribeLinks(keys) for keys in (["old"], ["new", "old"], ["new"]))
    assert both.user_of(old.token("ada")) == new.user_of(both.token("ada")) == "ada"
    with pytest.raises(UnknownLink):
        new.user_of(old.token("ada"))
