"""Mailjet stand-in: takes mails as Mailjet's API does, keeps them, and shows them on a page.

Start it with `python -m deploy.sandbox.mailjet --help`, or in a test with `create_app`.
"""

from deploy.sandbox.mailjet.app import MAILJET, Mailjet, MailjetSettings, create_app

__all__ = ["MAILJET", "Mailjet", "MailjetSettings", "create_app"]
