"""What can go wrong with accounts and tokens. None of these knows HTTP."""


class AccountRefused(Exception):
    """Cognito refused the request; the message is for the caller."""


class UnknownUser(AccountRefused):
    """No user has this e-mail address."""


class WrongPassword(AccountRefused):
    """The password is not the user's."""


class WeakPassword(AccountRefused):
    """The password does not meet the user pool's requirements."""


class UserExists(AccountRefused):
    """The e-mail address is registered already."""


class KeysUnavailable(Exception):
    """No key has been fetched yet, and the key server does not answer."""
