"""Signatures, beside known ones and the official library."""

import base64
import time

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from notifier.webhooks.signing import sign

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
OTHER = f"whsec_{base64.b64encode(bytes(range(32))).decode()}"
MESSAGE = "msg_p5jXN8AQM9LWM0D4loKWxJek"
BODY = b'{"test": 2432232314}'


def test_a_known_message_has_its_known_signature() -> None:
    assert sign([SECRET], MESSAGE, 1_614_265_330, BODY) == {
        "webhook-id": MESSAGE,
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }


def test_two_secrets_make_two_signatures() -> None:
    both = sign([OTHER, SECRET], MESSAGE, 1_614_265_330, BODY)["webhook-signature"]
    each = [sign([secret], MESSAGE, 1_614_265_330, BODY) for secret in (OTHER, SECRET)]
    assert both == " ".join(headers["webhook-signature"] for headers in each)


@pytest.mark.parametrize("secret", [SECRET, OTHER])
def test_the_official_library_verifies_with_either_secret(secret: str) -> None:
    headers = sign([OTHER, SECRET], MESSAGE, int(time.time()), BODY)
    assert Webhook(secret).verify(BODY, headers) == {"test": 2432232314}
    with pytest.raises(WebhookVerificationError):
        Webhook(secret).verify(BODY + b" ", headers)
