"""The peer of these tests."""

from tests.integration.notifier.conftest import mailjet

__all__ = ["mailjet"]
