"""The whole cloud on one machine: stand-ins for AWS, the worker-facing API and Mailjet.

Nothing here is imported by the services; they are told of it by their settings alone.
"""
