"""Delivers what happened to jobs to their users' webhooks, by Standard Webhooks 1.0."""
