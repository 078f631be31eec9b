"""Which webhooks are refused, and why."""

from typing import Any

import pytest

from devtools.user_pool import Issuer
from tests.integration.gateway.conftest import StartGateway
from tests.support.gateway import Api

URL = "https://example.org/hooks/1"


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://example.org/", "begins with https://"),
        ("ftp://example.org/", "begins with https://"),
        ("example.org", "begins with https://"),
        ("", "begins with https://"),
        ("https://", "names no host"),
        ("https:///path", "names no host"),
        ("https://user:pass@example.org/", "must not hold credentials"),
        ("https://user@example.org/", "must not hold credentials"),
        ("https://@example.org/", "must not hold credentials"),
        ("https://example.org/#part", "fragment"),
        ("https://example.org#", "fragment"),
        ("https://example.org:0/", "no URL"),
        ("https://[v1.a:b]/", "no URL"),
        ("https://%31%32%37.0.0.1/", "no URL"),
        ("https://a..b/", "no URL"),
        ("https://-/", "no URL"),
        (f"https://{'x' * 64}.org/", "no URL"),
        ("https://example.org:99999/", "no URL"),
        ("https://[::1/", "no URL"),
        ("https://exa mple.org/", "ASCII"),
        ("https://éxample.org/", "ASCII"),
        ("https://example.org\\@127.0.0.1/", "ASCII"),
        ("https://127.0.0.1/", "127.0.0.1 is not a public one"),
        ("https://10.0.0.1:8443/x", "10.0.0.1 is not a public one"),
        ("https://169.254.169.254/latest", "is not a public one"),
        ("https://[::1]/", "::1 is not a public one"),
        ("https://[::ffff:127.0.0.1]/", "is not a public one"),
        ("https://[64:ff9b::10.0.0.1]/", "is not a public one"),
        ("https://2130706433/", "not the usual spelling"),
        ("https://0x7f.1/", "not the usual spelling"),
        ("https://0177.0.0.1/", "not the usual spelling"),
    ],
)
def test_a_url_that_cannot_be_is_refused_with_the_reason(api: Api, url: str, reason: str) -> None:
    kept = api.post("/webhooks", json={"url": URL}).json()
    for reply in (
        api.post("/webhooks", json={"url": url}),
        api.send("PATCH", f"/webhooks/{kept['id']}", json={"url": url}),
    ):
        assert reply.faults() == {(("body", "url"), "value_error")}
        assert reason in reply.detail[0]["msg"]
    assert [hook["url"] for hook in api.get("/webhooks").json()] == [URL]


@pytest.mark.parametrize(
    ("body", "place"),
    [
        ({"url": None}, ("body", "url")),
        ({}, ("body", "url")),
        ({"url": f"https://example.org/{'x' * 2_048}"}, ("body", "url")),
        ({"url": URL, "events": []}, ("body", "events")),
        ({"url": URL, "events": ["queued"]}, ("body", "events", 0)),
        ({"url": URL, "events": "finished"}, ("body", "events")),
        ({"url": URL, "events": None}, ("body", "events")),
        ({"url": URL, "labels": ["a b"]}, ("body", "labels", 0)),
        ({"url": URL, "labels": ["x" * 64]}, ("body", "labels", 0)),
        ({"url": URL, "labels": [f"x:{'y' * 256}"]}, ("body", "labels", 0)),
        ({"url": URL, "labels": [""]}, ("body", "labels", 0)),
        ({"url": URL, "labels": ["x"] * 17}, ("body", "labels")),
    ],
)
def test_a_faulty_webhook_is_refused_where_it_is_faulty(
    api: Api, body: Any, place: tuple[Any, ...]
) -> None:
    assert {where for where, _ in api.post("/webhooks", json=body).faults()} == {place}


def test_a_change_is_refused_where_it_is_faulty(api: Api) -> None:
    target = f"/webhooks/{api.post('/webhooks', json={'url': URL}).json()['id']}"
    for value, kind in ((None, "bool_type"), ("perhaps", "bool_parsing")):
        reply = api.send("PATCH", target, json={"disabled": value})
        assert reply.faults() == {(("body", "disabled"), kind)}


def test_private_receivers_without_tls_are_a_setting(
    start_gateway: StartGateway, issuer: Issuer
) -> None:
    gateway = start_gateway(WEBHOOK_ALLOW_PRIVATE="true")
    api = Api(gateway, "ada", issuer.token("ada"))
    assert api.post("/webhooks", json={"url": "http://127.0.0.1:8000/x"}).status == 201
