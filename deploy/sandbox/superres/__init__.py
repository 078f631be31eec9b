"""The sandbox's example application: a super-resolution image from localisations.

`python -m deploy.sandbox.superres` is what its jobs run; `python -m
deploy.sandbox.superres.sample` makes realistic input for it.
"""


class InputError(Exception):
    """The user's input cannot be used; the message is one sentence that says where and why."""
