"""What docs/security.md refers to exists."""

import re

from tests.tools.deploy.places import DOCS, REPOSITORY

TEXT = (DOCS / "security.md").read_text()


def test_every_test_that_the_tables_name_exists() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", TEXT)
    assert len(named) > 50
    for path, name in named:
        assert f"def {name}(" in (REPOSITORY / path).read_text(), f"{path}::{name}"


def test_every_module_that_the_tables_name_exists() -> None:
    named = set(re.findall(r"`((?:common|gateway|dispatcher|notifier|deploy)/[^`]+)`", TEXT))
    assert len(named) > 20
    assert not {path for path in named if not (REPOSITORY / path).exists()}
