"""The whole cloud on one machine: stand-ins for AWS, the worker-facing API and Mailjet.

The services import nothing from here; only their settings point to it.
"""
