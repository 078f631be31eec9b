"""A worker: pulls jobs from the stand-in worker-facing API and really runs their commands.

Start it with `python -m deploy.sandbox.worker --help`.
"""
