"""Stand-in for Mailjet: accepts mails as its API does, stores them, and shows them on a page.

Started by `python -m deploy.sandbox.mailjet`, in tests by `create_app`.
"""

from deploy.sandbox.mailjet.app import MAILJET, Mailjet, MailjetSettings, create_app

__all__ = ["MAILJET", "Mailjet", "MailjetSettings", "create_app"]
