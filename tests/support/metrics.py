"""Metrics of services that run in this process."""

from prometheus_client import REGISTRY


def metric(name: str, **labels: str) -> float:
    """The metric's present value, which must exist."""
    found = REGISTRY.get_sample_value(name, labels)
    assert found is not None
    return found
