"""Hands jobs over to the worker-facing API and reconciles their statuses."""
