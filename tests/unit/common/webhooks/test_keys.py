"""Webhooks' secrets at rest."""

import pytest

from common.config.environment import Reader
from common.webhooks.keys import SecretBox, UnknownKey
from common.webhooks.settings import read_webhooks

SECRET = "whsec_c2VjcmV0"


def test_a_sealed_secret_does_not_show_and_opens_again() -> None:
    box = SecretBox(["a key"])
    sealed = box.seal(SECRET)
    assert SECRET not in sealed
    assert sealed != box.seal(SECRET)
    assert box.open(sealed) == SECRET


def test_a_replaced_key_opens_what_it_sealed() -> None:
    sealed = SecretBox(["old"]).seal(SECRET)
    both = SecretBox(["new", "old"])
    assert both.open(sealed) == SECRET
    assert SecretBox(["new"]).open(both.seal(SECRET)) == SECRET


@pytest.mark.parametrize(
    "sealed",
    ["", "nonsense", SecretBox(["other"]).seal(SECRET)],
    ids=["empty", "nonsense", "of another key"],
)
def test_what_no_key_opens_is_refused(sealed: str) -> None:
    with pytest.raises(UnknownKey, match="WEBHOOK_KEY"):
        SecretBox(["a key"]).open(sealed)


@pytest.mark.parametrize(
    ("key", "internal", "keys"),
    [
        ("", "internal", ("internal",)),
        ("new, old", "internal", ("new", "old", "internal")),
        ("new", "", ("new",)),
        ("", "", ()),
    ],
)
def test_the_internal_key_stands_in_for_keys_of_its_own(
    monkeypatch: pytest.MonkeyPatch, key: str, internal: str, keys: tuple[str, ...]
) -> None:
    monkeypatch.setenv("WEBHOOK_KEY", key)
    monkeypatch.setenv("INTERNAL_API_KEY_SECRET", internal)
    reader = Reader()
    settings = read_webhooks(reader)
    assert settings.keys == keys
    assert set(keys) <= set(reader.secrets)
    assert not any(key in repr(settings) for key in keys)
