"""The internal endpoint by which the worker-facing API reports what becomes of jobs."""
