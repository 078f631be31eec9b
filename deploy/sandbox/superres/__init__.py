"""The sandbox's example application: a super-resolution image from localisations.

Its jobs run `python -m deploy.sandbox.superres`; `python -m deploy.sandbox.superres.sample` makes
realistic input.
"""


class InputError(Exception):
    """The user's input is invalid; the message is a sentence that says where and why."""
