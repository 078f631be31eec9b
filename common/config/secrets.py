"""Secrets in the three forms that a deployment may use.

A secret is the value itself, the JSON object that AWS injects (`{"password": "…", …}`), or the
ARN of a Secrets Manager secret, which is fetched and holds one of the other two forms.
"""

import asyncio
import json
import re

from common.aws import create_client, error_code

_ARN = re.compile(r"arn:aws[\w-]*:secretsmanager:(?P<region>[\w-]+):\d*:secret:\S+")


class SecretError(Exception):
    """The secret cannot be read; the message never contains its value."""


def read_secret(text: str) -> str:
    """The value behind `text`. Raises `SecretError`.

    Blocks for a request to Secrets Manager, so call it before the event loop runs.
    """
    if match := _ARN.fullmatch(text):
        text = asyncio.run(_fetch(text, match["region"]))
    return _password_of(text)


def _password_of(text: str) -> str:
    try:
        parsed = json.loads(text)
    except ValueError:
        return text
    if not isinstance(parsed, dict):
        return text
    password = parsed.get("password")
    if not isinstance(password, str) or not password:
        raise SecretError("it is JSON without a text under the key 'password'")
    return password


async def _fetch(arn: str, region: str) -> str:
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        async with create_client("secretsmanager", region=region) as secrets_manager:
            answer = await secrets_manager.get_secret_value(SecretId=arn)
    except ClientError as error:
        raise SecretError(f"Secrets Manager answered {error_code(error)}") from error
    except (BotoCoreError, OSError) as error:
        raise SecretError(f"Secrets Manager did not answer ({error_code(error)})") from error
    text = answer.get("SecretString")
    if not isinstance(text, str):
        raise SecretError("the secret holds no text")
    return text
