"""The rendered overlays."""

from pathlib import Path

import pytest

from tests.tools.deploy.kustomize import Manifest, render
from tests.tools.deploy.places import KUBERNETES


@pytest.fixture(scope="session", params=["staging", "production"])
def overlay(request: pytest.FixtureRequest) -> Path:
    return KUBERNETES / "overlays" / str(request.param)


@pytest.fixture(scope="session")
def manifests(overlay: Path) -> list[Manifest]:
    return render(overlay)
