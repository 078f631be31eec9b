"""promtool, where installed, checks rules, alerts and the dashboard's queries."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.tools.deploy.places import KUBERNETES
from tests.tools.deploy.test_monitoring import dashboard_queries

CASES = Path(__file__).parent / "alerts.yaml"


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    """The rules as Prometheus reads them, without the operator's wrapping."""
    wrapped = yaml.safe_load((KUBERNETES / "monitoring" / "rules.yaml").read_text())
    return written(tmp_path / "rules.yaml", wrapped["spec"])


def written(path: Path, content: Any) -> Path:
    path.write_text(yaml.safe_dump(content))
    return path


def promtool(*arguments: str | Path) -> None:
    tool = shutil.which("promtool")
    if tool is None:
        pytest.skip("promtool (Debian's package prometheus) is not installed")
    done = subprocess.run([tool, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_prometheus_reads_the_rules(rules: Path) -> None:
    promtool("check", "rules", rules)


def test_prometheus_reads_the_panels_queries(tmp_path: Path) -> None:
    queries = [re.sub(r"\$__rate_interval", "1m", query) for query in dashboard_queries()]
    asked = [
        {"record": f"panel:{number}", "expr": query.replace("$namespace", ".*")}
        for number, query in enumerate(queries)
        if not query.startswith("label_values(")
    ]
    promtool(
        "check",
        "rules",
        written(tmp_path / "panels.yaml", {"groups": [{"name": "panels", "rules": asked}]}),
    )


def test_alerts_are_raised_when_they_should_and_not_before(rules: Path) -> None:
    promtool("test", "rules", shutil.copy(CASES, rules.parent))
