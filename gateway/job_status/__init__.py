"""The internal endpoint at which the worker-facing API reports jobs' statuses."""
