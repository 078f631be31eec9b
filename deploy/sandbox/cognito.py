"""A Cognito user pool with accounts, at an endpoint such as moto's server."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from deploy.sandbox.aws import REGION, client

GROUPS: Final = ("users", "workers", "cloud")
_POLICY: Final = {
    "PasswordPolicy": {
        "MinimumLength": 8,
        "RequireUppercase": True,
        "RequireLowercase": True,
        "RequireNumbers": True,
        "RequireSymbols": False,
    }
}


@dataclass(frozen=True)
class Account:
    """An account whose user name is its address, the same in every run."""

    email: str
    password: str = field(repr=False)
    groups: tuple[str, ...] = ("users",)


USER: Final = Account("user@example.com", "Microscopy-1")
WORKER: Final = Account("worker@example.com", "Microscopy-2", ("workers",))


@dataclass(frozen=True)
class UserPool:
    """A pool and its client, which moto loses when it stops."""

    endpoint: str
    pool_id: str
    client_id: str
    region: str = REGION
    client_secret: str = field(default="", repr=False)

    def environment(self) -> dict[str, str]:
        """The services' settings for this pool."""
        return {
            "COGNITO_USER_POOL_ID": self.pool_id,
            "COGNITO_CLIENT_ID": self.client_id,
            "COGNITO_REGION": self.region,
            "COGNITO_SECRET": self.client_secret,
            "COGNITO_JWKS_URL": f"{self.endpoint}/{self.pool_id}/.well-known/jwks.json",
        }

    def add(self, account: Account) -> None:
        """Create the account with a permanent password, in its groups."""
        cognito = client("cognito-idp", self.endpoint, self.region)
        user = {"UserPoolId": self.pool_id, "Username": account.email}
        attributes = [
            {"Name": "email", "Value": account.email},
            {"Name": "email_verified", "Value": "true"},
        ]
        cognito.admin_create_user(**user, UserAttributes=attributes, MessageAction="SUPPRESS")
        cognito.admin_set_user_password(**user, Password=account.password, Permanent=True)
        for group in account.groups:
            cognito.admin_add_user_to_group(**user, GroupName=group)

    def id_token(self, account: Account) -> str:
        """A new ID token, for pools without a client secret."""
        cognito = client("cognito-idp", self.endpoint, self.region)
        answer = cognito.initiate_auth(
            ClientId=self.client_id,
            AuthFlow="USER_PASSWORD_AUTH",
            AuthParameters={"USERNAME": account.email, "PASSWORD": account.password},
        )
        return str(answer["AuthenticationResult"]["IdToken"])


def create_user_pool(
    endpoint: str,
    accounts: Iterable[Account] = (USER, WORKER),
    *,
    region: str = REGION,
    with_secret: bool = False,
) -> UserPool:
    """Create the pool, its client, the three groups and the accounts."""
    cognito = client("cognito-idp", endpoint, region)
    pool_id = cognito.create_user_pool(
        PoolName="sandbox", Policies=_POLICY, AutoVerifiedAttributes=["email"]
    )["UserPool"]["Id"]
    made = cognito.create_user_pool_client(
        UserPoolId=pool_id,
        ClientName="sandbox",
        GenerateSecret=with_secret,
        ExplicitAuthFlows=[
            "ALLOW_USER_PASSWORD_AUTH",
            "ALLOW_ADMIN_USER_PASSWORD_AUTH",
            "ALLOW_REFRESH_TOKEN_AUTH",
        ],
        # ID tokens have only the attributes that the client may read
        ReadAttributes=["email", "email_verified"],
    )["UserPoolClient"]
    for group in GROUPS:
        cognito.create_group(UserPoolId=pool_id, GroupName=group)
    secret = made.get("ClientSecret", "")
    pool = UserPool(endpoint, pool_id, made["ClientId"], region, secret)
    for account in accounts:
        pool.add(account)
    return pool
