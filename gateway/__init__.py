"""The HTTP API that users' clients and the worker-facing API call."""
