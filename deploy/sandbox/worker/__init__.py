"""A worker that pulls jobs from the stand-in worker-facing API and runs their commands.

Started by `python -m deploy.sandbox.worker`.
"""
