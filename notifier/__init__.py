"""Sends the e-mails, and the messages to webhooks, that jobs cause."""
