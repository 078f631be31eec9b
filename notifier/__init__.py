"""Sends the e-mails that jobs cause."""
