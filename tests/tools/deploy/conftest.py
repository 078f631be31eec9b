"""The rendered overlays."""

from pathlib import Path

import pytest

from tests.tools.deploy.kustomize import Manifest, render
from tests.tools.deploy.places import KUBERNETES

OVERLAYS = ("staging", "production")


@pytest.fixture(params=OVERLAYS)
def overlay(request: pytest.FixtureRequest) -> Path:
    return KUBERNETES / "overlays" / request.param


@pytest.fixture
def manifests(overlay: Path) -> list[Manifest]:
    return render(overlay)
