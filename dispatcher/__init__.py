"""Hands jobs over to the worker-facing API and keeps their statuses true."""
