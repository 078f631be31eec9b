"""Wrong settings of the daemons are refused in sentences that name them."""

import pytest

from common.config.environment import SettingsError
from tests.tools.deploy.settings import read

MAILJET = {
    "EMAIL_SENDER_SERVICE": "mailjet",
    "EMAIL_SENDER_ADDRESS": "cloud@example.org",
    "EMAIL_SENDER_API_KEY": "key",
    "EMAIL_SENDER_SECRET_KEY": "secret",
}
NO_HOST = "must name a host, and a port if any, as in https://example.org:8443"


@pytest.mark.parametrize(
    ("service", "environment", "sentence"),
    [
        ("dispatcher", {"WORKERFACING_API_URL": "http://:8001"}, f"WORKERFACING_API_URL {NO_HOST}"),
        ("notifier", {"EMAIL_SENDER_API_URL": "https://a:b"}, f"EMAIL_SENDER_API_URL {NO_HOST}"),
        ("notifier", {"EMAIL_SENDER_ADDRESS": ""}, "EMAIL_SENDER_ADDRESS is missing"),
        *(
            ("notifier", {"EMAIL_SENDER_ADDRESS": text}, "EMAIL_SENDER_ADDRESS must be an address")
            for text in ("no-reply", "@example.org", "a@b@c", "Cloud <a@b.org>", "a@b, c@d")
        ),
        *(
            ("notifier", {"WEBHOOK_RETRY_DELAYS": text}, "WEBHOOK_RETRY_DELAYS must be seconds")
            for text in (",", "5,,300", "5 s", "-1", "inf", "nan")
        ),
        ("notifier", {"WEBHOOK_GIVE_UP_AFTER": "days"}, "WEBHOOK_GIVE_UP_AFTER"),
        ("notifier", {"WEBHOOK_ALLOW_PRIVATE": "perhaps"}, "WEBHOOK_ALLOW_PRIVATE is wrong"),
        ("notifier", {"EMAIL_SENDER_SECRET_KEY": ""}, "EMAIL_SENDER_SECRET_KEY is missing"),
        (
            "notifier",
            {"PUBLIC_URL": "https://api.example.org", "INTERNAL_API_KEY_SECRET": ""},
            "NOTIFICATION_KEYS (or INTERNAL_API_KEY_SECRET) is missing",
        ),
    ],
)
def test_a_wrong_setting_is_named(service: str, environment: dict[str, str], sentence: str) -> None:
    complete = {"INTERNAL_API_KEY_SECRET": "key", **MAILJET}
    read(service, complete)
    with pytest.raises(SettingsError) as refusal:
        read(service, {**complete, **environment})
    assert sentence in str(refusal.value)


PUBLIC = {
    **MAILJET,
    "PUBLIC_URL": "https://api.example.org/",
    "INTERNAL_API_KEY_SECRET": "internal",
}


@pytest.mark.parametrize(
    ("environment", "keys"),
    [
        ({}, ("internal",)),
        ({"NOTIFICATION_KEYS": "a key"}, ("a key",)),
        ({"NOTIFICATION_KEYS": "new, old,"}, ("new", "old")),
        ({"NOTIFICATION_KEYS": '{"password": "new,old"}'}, ("new", "old")),
        ({"PUBLIC_URL": ""}, ()),
    ],
)
def test_links_are_signed_with_their_own_keys_or_the_internal_one(
    environment: dict[str, str], keys: tuple[str, ...]
) -> None:
    settings, _ = read("notifier", {**PUBLIC, **environment})
    assert settings.notification_keys == keys
    assert set(keys) <= set(settings.logs.secrets)
    if settings.public_url:
        assert settings.public_url == "https://api.example.org"
        gateway, _ = read(
            "gateway",
            {
                **PUBLIC,
                **environment,
                "COGNITO_USER_POOL_ID": "eu-central-1_Abc",
                "COGNITO_CLIENT_ID": "c",
            },
        )
        assert gateway.notification_keys == keys


def test_messages_to_webhooks_follow_the_published_schedule_or_that_of_the_settings() -> None:
    published, _ = read("notifier", {})
    hours = [2, 5, 10, 14, 20, 24]
    assert [*published.webhooks.retry_delays] == [5, 300, 1_800, *(hour * 3_600 for hour in hours)]
    assert published.webhooks.give_up_after == 5 * 24 * 3_600
    own, _ = read("notifier", {"WEBHOOK_RETRY_DELAYS": "0.5, 2", "WEBHOOK_GIVE_UP_AFTER": "60"})
    assert (own.webhooks.retry_delays, own.webhooks.give_up_after) == ((0.5, 2.0), 60.0)
