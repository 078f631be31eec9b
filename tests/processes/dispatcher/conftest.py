"""The peer of these tests."""

from tests.integration.dispatcher.conftest import peer

__all__ = ["peer"]
